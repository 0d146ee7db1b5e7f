"""What planning a cut per device and round gains, in modelled time: spread, the clock of a run, and late transfers.

Times are the library's model of a step (`flower_edge.splitting.costs`): computing on the device, its link both ways
with delays, and its share of the cloud; a run's clock adds what moves between rounds: halves with their optimisers'
state, whole models for federated averaging, merging. Nothing here trains, and no wall time is in any figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from flower_edge.splitting.budgets import Budgets
from flower_edge.splitting.capacity import Capacity, Cloud
from flower_edge.splitting.codec_pairs import codecs_named
from flower_edge.splitting.costs import Job
from flower_edge.splitting.dynamic import Dynamic
from flower_edge.splitting.plan import DeviceView, Plan
from flower_edge.splitting.planner import FixedCut, Planner, WholeModel
from flower_edge.splitting.profile import ModelProfile
from flower_edge.splitting.reservations import jitter_bound, needed_bps, violation_rate
from flower_edge.transport.pacing import Pace

from .harness.figures import mean_and_error, ratio_and_error
from .split_task import (
    BATCH,
    CLOUD_FLOPS_PER_S,
    DELAY_S,
    DEVICES,
    FIXED_AFTER,
    LINK_BPS,
    MERGE_EVERY,
    ROUNDS,
    STEPS,
    TRAIN_S,
    TRANSFER_S,
    cut_after,
    speeds,
)

__all__ = ["INT8", "JOB", "plan_rounds", "planners", "planning_figures", "reservation_figures", "views"]

JOB: Final = Job(batch_size=BATCH, steps=STEPS, merge_every=MERGE_EVERY, labels="cloud", label_bytes=1, state_copies=1)
CLOUD: Final = Cloud(flops_per_s=CLOUD_FLOPS_PER_S)
#: As the set-up has it.
INT8: Final = codecs_named("int8")
BUDGETS: Final = Budgets(train_s=TRAIN_S, transfer_s=TRANSFER_S)
#: A link gives between this and all of what is reserved.
LEAST_RATE: Final = 0.7
TRANSFERS: Final = 1_000
#: Transfers that are measured before, in order to know how far rates fall.
MEASURED: Final = 200


def planners(profile: ModelProfile) -> dict[str, Planner]:
    """What is compared, by name."""
    dynamic = Dynamic(CLOUD, JOB, codecs=(INT8,), fallback=False)
    return {
        "dynamic": dynamic,
        "budgets": replace(dynamic, budgets=BUDGETS),
        "fixed": FixedCut(cut_after(profile, FIXED_AFTER), INT8, CLOUD, JOB),
        "whole": WholeModel(CLOUD, JOB),
    }


def views(flops_per_s: Sequence[float], link_bps: Sequence[float] = LINK_BPS) -> dict[int, DeviceView]:
    """Devices as a planner sees them in one round."""
    return {
        number: DeviceView(Capacity(float(speed), rate_bps, rate_bps, DELAY_S))
        for number, (speed, rate_bps) in enumerate(zip(flops_per_s, link_bps, strict=True))
    }


def plan_rounds(planner: Planner, profile: ModelProfile, seed: int, rounds: int = ROUNDS) -> list[Plan]:
    """A plan for each round, speeds known as the round begins."""
    return [planner.plan(profile, views(now), at) for at, now in enumerate(speeds(seed, rounds), 1)]


def planning_figures(profile: ModelProfile, seeds: Sequence[int]) -> dict[str, Any]:
    """Spread between devices, and the modelled clock of 60 rounds, of every planner."""
    plans = {
        name: [plan_rounds(planner, profile, seed) for seed in seeds] for name, planner in planners(profile).items()
    }
    spread_s = {name: [float(np.mean([plan.spread_s for plan in run])) for run in of] for name, of in plans.items()}
    clock_s = {name: [sum(plan.round_s for plan in run) for run in of] for name, of in plans.items()}
    # Plain federated averaging does not move its models in every round, and no optimiser's state at all.
    clock_s["whole"] = [sum(plan.whole_s for plan in run) for run in plans["whole"]]
    ratio, ratio_se = ratio_and_error(spread_s["fixed"], spread_s["dynamic"])
    clock, clock_se = ratio_and_error(clock_s["dynamic"], clock_s["whole"])
    told: dict[str, Any] = {}
    for name, of in plans.items():
        chosen = np.array([[plan.assignments[n].cut for n in range(DEVICES)] for run in of for plan in run])
        bits = [sum(plan.whole_bits if name == "whole" else plan.round_bits for plan in run) for run in of]
        told[name] = {
            "spread_ms": 1e3 * mean_and_error(spread_s[name])[0],
            "step_ms": 1e3 * float(np.mean([plan.step_s for run in of for plan in run])),
            "clock_s": mean_and_error(clock_s[name])[0],
            "traffic_mb": float(np.mean(bits)) / 8e6,
            "cuts": [
                {int(cut): int(n) for cut, n in zip(*np.unique(one, return_counts=True), strict=True)}
                for one in chosen.T
            ],
        }
    fixed = _fixed_cuts(profile, seeds)
    budgets, _ = ratio_and_error(spread_s["fixed"], spread_s["budgets"])
    return {
        "device_spread_ratio": ratio,
        "device_spread_ratio_se": ratio_se,
        "device_spread_ratio_budgets": budgets,
        "time_ratio_vs_fedavg": clock,
        "time_ratio_vs_fedavg_se": clock_se,
        "planners": told,
        "time_ratio_vs_best_fixed": told["dynamic"]["clock_s"] / min(of["clock_s"] for of in fixed.values()),
        "fixed_cuts": fixed,
        **_where_it_does_not_pay(profile),
    }


def _fixed_cuts(profile: ModelProfile, seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """Spread, slowest step and clock with each cut that all devices could have for good, by member before it."""
    found = {}
    for member in dict.fromkeys(cut.name.split(".")[0].split("#")[0] for cut in profile.cuts[1:-1]):
        planner = FixedCut(cut_after(profile, member), INT8, CLOUD, JOB)
        runs = [plan_rounds(planner, profile, seed) for seed in seeds]
        found[member] = {
            "spread_ms": 1e3 * float(np.mean([plan.spread_s for run in runs for plan in run])),
            "step_ms": 1e3 * float(np.mean([plan.step_s for run in runs for plan in run])),
            "clock_s": float(np.mean([sum(plan.round_s for plan in run) for run in runs])),
        }
    return found


def _where_it_does_not_pay(profile: ModelProfile) -> dict[str, Any]:
    """Quick devices on slow links: what dividing would cost, and what the planner does about it."""
    cases = {
        "thin links": ((2e9, 1e9, 0.1e9, 5e9), (1e6,) * DEVICES),
        "fast devices": ((20e9, 10e9, 40e9, 50e9), LINK_BPS),
        "fast devices on thin links": ((20e9, 10e9, 40e9, 50e9), (1e6,) * DEVICES),
    }
    found: dict[str, Any] = {}
    for name, (flops_per_s, link_bps) in cases.items():
        seen = views(flops_per_s, link_bps)
        # Nobody may keep the whole model: what dividing costs where it is done all the same.
        divided = Dynamic(CLOUD, JOB, codecs=(INT8,), whole=False, fallback=False).plan(profile, seen, 1)
        planned = Dynamic(CLOUD, JOB, codecs=(INT8,)).plan(profile, seen, 1)
        found[name] = {
            "divided_over_whole": divided.round_s / divided.whole_s,
            "planned_over_whole": min(planned.round_s, planned.whole_s if not planned.worth else np.inf)
            / planned.whole_s,
            "worth": bool(planned.worth),
            "why": planned.why,
        }
    return {
        "time_ratio_where_bytes_bind": found["fast devices on thin links"]["divided_over_whole"],
        "where_it_does_not_pay": found,
    }


def reservation_figures(profile: ModelProfile, seeds: Sequence[int]) -> dict[str, Any]:
    """How many of 1,000 transfers are late when the rate falls to U(0.7, 1) of what was reserved."""
    ways = {
        "learned": [_late(profile, seed, learn=True) for seed in seeds],
        "bound known": [_late(profile, seed, jitter=1.0 - LEAST_RATE) for seed in seeds],
        "no allowance": [_late(profile, seed) for seed in seeds],
    }
    rate, error = mean_and_error(ways["learned"])
    return {
        "reservation_violation_rate": rate,
        "reservation_violation_rate_se": error,
        "reservations": {name: mean_and_error(of)[0] for name, of in ways.items()},
    }


def _late(profile: ModelProfile, seed: int, *, jitter: float = 0.0, learn: bool = False) -> float:
    """Of transfers of every size there is, each in half of T_trans: the tensors one way."""
    draw = np.random.default_rng([seed, 7])
    within_s = TRANSFER_S / 2
    kept: list[float] = []
    took_s: list[float] = []
    for at in range(MEASURED * learn + TRANSFERS):
        bits = int(BATCH * INT8.up_bits * profile.cuts[int(draw.integers(1, profile.last))].values)
        got = float(draw.uniform(LEAST_RATE, 1.0))
        bound = jitter_bound(kept, 1.0) if learn else jitter
        one_s = _sent_s(bits, needed_bps(bits, within_s, DELAY_S, bound), got) + DELAY_S
        # What the sender measures, not what was drawn.
        kept.append(bits / (one_s - DELAY_S) / needed_bps(bits, within_s, DELAY_S, bound))
        if at >= MEASURED * learn:
            took_s.append(one_s)
    return violation_rate(took_s, within_s)


def _sent_s(bits: int, reserved_bps: float, got: float) -> float:
    """Seconds until the library's own pace has let the last piece leave on a link that gives a part of the rate."""
    now_s = [0.0]
    pace = Pace(reserved_bps * got, clock=lambda: now_s[0])
    pace.begin()
    left = bits
    while left > 0:
        piece = min(left, 8 * pace.piece_bytes(1 << 20))
        pace.book(piece)
        now_s[0] += pace.wait_s()
        left -= piece
    return now_s[0]
