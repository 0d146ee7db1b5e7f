"""From chosen options to a `Plan`: rates on shared links, modelled times, and whether splitting is worth it.

On its own link each device reserves a part g, both ways alike. The least step time T that all can keep together follows
from g[i] = wire_s[i] / (T - fixed_s[i]) and the shared links' rates. What is then left of a shared link is divided so
that all come equally near to the whole of their own. Nothing here chooses cuts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from ..units import human_bits, human_s
from .budgets import Budgets
from .costs import Costs, Floats
from .plan import Assignment, DeviceView, Plan
from .profile import ModelProfile

__all__ = ["admitted", "least_parts", "least_step_s", "settle"]

#: Of a rate or time: sums and quotients are rounded.
ROUNDING: Final = 1e-9


def least_parts(fixed_s: Floats, wire_s: Floats, within_s: float | Floats) -> Floats:
    """g: the part of its own link each needs to be done within a time; above 1, or infinite, where it cannot be.

    >>> least_parts(np.array([1.0, 1.0, 3.0]), np.array([0.5, 0.0, 0.5]), within_s=2.0).tolist()
    [0.5, 0.0, inf]
    """
    left = within_s - fixed_s
    with np.errstate(divide="ignore", invalid="ignore"):
        parts: Floats = np.where(left < 0.0, np.inf, np.where(wire_s == 0.0, 0.0, wire_s / left))
    return parts


def admitted(costs: Costs, parts: Floats) -> npt.NDArray[np.bool_]:
    """Whether all shared links hold such parts, [...] for parts [..., devices]."""
    if len(costs.link_bps) == 0:
        return np.ones(parts.shape[:-1], dtype=np.bool_)
    return np.asarray((parts @ costs.load_bps.T <= costs.link_bps * (1.0 + ROUNDING)).all(axis=-1), dtype=np.bool_)


def least_step_s(costs: Costs, fixed_s: Floats, wire_s: Floats) -> float:
    """T: the least that all devices can keep with these options; [devices] each.

    Without shared links that bind, the slowest device's own; else by bisection, to one part in 10^9.
    """
    low = float((fixed_s + wire_s).max())
    if admitted(costs, (wire_s > 0.0).astype(np.float64)):
        return low
    high = 2.0 * low
    while not admitted(costs, least_parts(fixed_s, wire_s, high)):
        high *= 2.0
    while high - low > ROUNDING * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if admitted(costs, least_parts(fixed_s, wire_s, middle)) else (middle, high)
    return high


def settle(
    profile: ModelProfile,
    devices: Mapping[int, DeviceView],
    costs: Costs,
    chosen: Mapping[int, int],
    reasons: Mapping[int, str],
    budgets: Budgets | None = None,
) -> Plan:
    """The plan for chosen options.

    Args:
        profile, devices: what `costs` was made from.
        costs: the table.
        chosen: option by device number.
        reasons: in words, by device number.
        budgets: reserve so much that transfers keep these, where shared links admit it; else so much that steps keep
            the least T.
    """
    rows = np.arange(len(costs.numbers))
    at = np.array([chosen[number] for number in costs.numbers])
    users = int(np.count_nonzero(at != costs.whole))
    fixed_s, wire_s = costs.fixed_s(users)[rows, at], costs.wire_s[rows, at]
    within_s = math.inf if budgets is None else budgets.transfer_s
    parts = np.minimum(least_parts(costs.delay_s[rows, at], wire_s, within_s), 1.0)
    if budgets is None or not admitted(costs, parts):
        parts = np.minimum(least_parts(fixed_s, wire_s, least_step_s(costs, fixed_s, wire_s)), 1.0)
    parts = _filled(costs, parts, (wire_s > 0.0).astype(np.float64))
    assignments: dict[int, Assignment] = {}
    for row, (number, option) in enumerate(zip(costs.numbers, at.tolist(), strict=True)):
        cut, codecs = costs.options[option]
        sends = option != costs.whole
        part = float(parts[row])
        assignments[number] = Assignment(
            cut=cut,
            up=codecs.up,
            down=codecs.down,
            codecs=codecs.name if sends else "none",
            up_bps=_rate(part * costs.up_bps[row]) if sends and part else None,
            down_bps=_rate(part * costs.down_bps[row]) if sends and part else None,
            compute_s=float(costs.compute_s[row, option]),
            transfer_s=float(costs.delay_s[row, option] + (wire_s[row] / part if part else 0.0)),
            cloud_s=float(users * costs.cloud_flops[option] / costs.cloud_flops_per_s),
            up_bits=float(costs.up_bits[option]),
            down_bits=float(costs.down_bits[option]),
            memory_bytes=float(costs.memory[option]),
            reason=reasons[number],
        )
    return _weighed(profile, devices, costs, assignments, budgets)


def _filled(costs: Costs, parts: Floats, wanted: Floats) -> Floats:
    """Parts raised towards what is wanted, all by the same share of what they lack, until a shared link is full."""
    share = 1.0
    for rate_bps, load_bps in zip(costs.link_bps, costs.load_bps, strict=True):
        lacking = float(load_bps @ (wanted - parts))
        if lacking > 0.0:
            share = min(share, max(0.0, float(rate_bps - load_bps @ parts) / lacking))
    return parts + share * (wanted - parts)


def _rate(value_bps: float) -> float | None:
    return float(value_bps) if math.isfinite(value_bps) else None


def _weighed(
    profile: ModelProfile,
    devices: Mapping[int, DeviceView],
    costs: Costs,
    assignments: Mapping[int, Assignment],
    budgets: Budgets | None,
) -> Plan:
    """The plan, beside plain federated training under the same capacities."""
    job, last = costs.job, profile.last
    # While halves and models move, everybody does so at once, with the same part of the own link.
    crowd = [rate / load.sum() for rate, load in zip(costs.link_bps, costs.load_bps, strict=True) if load.sum() > 0.0]
    part = min([1.0, *crowd])
    per_bit_s = (1.0 / costs.up_bps + 1.0 / costs.down_bps) / part
    delay_s = np.array([devices[number].capacity.delay_s for number in costs.numbers])

    own = np.array([_half_bits(profile, assignments[number].cut, costs) for number in costs.numbers])
    step_s = np.array([assignments[number].step_s for number in costs.numbers])
    model_bits = 8.0 * profile.state_bytes(0, last)
    parameters = sum(unit.parameters for unit in profile.units)
    merge_s = 2.0 * parameters * len(own) / costs.cloud_flops_per_s / job.merge_every
    round_s = float((job.steps * step_s + own * per_bit_s + 2.0 * delay_s).max()) + merge_s
    whole_step_s = costs.compute_s[:, costs.whole]
    moved_s = (model_bits * per_bit_s + 2.0 * delay_s) / job.merge_every
    whole_s = float((job.steps * whole_step_s + moved_s).max()) + merge_s
    room = {number: devices[number].capacity.memory_bytes for number in costs.numbers}
    short = [number for number, most in room.items() if most is not None and most < costs.memory[costs.whole]]
    if short:
        whole_s = math.inf
    sent = sum(job.steps * (one.up_bits + one.down_bits) for one in assignments.values())
    round_bits = float(sent + 2.0 * own.sum())
    whole_bits = 2.0 * model_bits * len(own) / job.merge_every
    divided = any(one.cut != last for one in assignments.values())
    slowest = max(assignments.values(), key=lambda one: one.step_s)
    traffic = f"{human_bits(round_bits)} a round instead of {human_bits(whole_bits)}"
    worth = divided and (round_s < whole_s or bool(short))
    if short:
        needs = f"{costs.memory[costs.whole] / 1e6:.3g} MB"
        why = f"the whole model needs {needs} and does not fit on device {short[0]}; {traffic}"
    elif not divided:
        why = _undivided(costs)
    elif worth:
        why = (
            f"a round takes {human_s(round_s)} instead of the {human_s(whole_s)} of plain federated training: the "
            f"devices' computing binds, not the bytes ({traffic})"
        )
    else:
        share = 100.0 * slowest.transfer_s / slowest.step_s if slowest.step_s else 0.0
        why = (
            f"plain federated training takes {human_s(whole_s)} a round, this plan {human_s(round_s)}: transfers are "
            f"{share:.0f} % of the slowest step ({traffic})"
        )
    return Plan(
        assignments=dict(assignments),
        worth=worth,
        why=why,
        train_s=max(one.compute_s for one in assignments.values()) if budgets is None else budgets.train_s,
        transfer_s=max(one.transfer_s for one in assignments.values()) if budgets is None else budgets.transfer_s,
        round_s=round_s,
        whole_s=whole_s,
        round_bits=round_bits,
        whole_bits=whole_bits,
    )


def _undivided(costs: Costs) -> str:
    """Why nothing is divided, told of the device that is slowest alone, if it had the cloud to itself."""
    alone_s = costs.compute_s[:, costs.whole]
    row = int(alone_s.argmax())
    alone = f"{human_s(alone_s[row])} a step alone"
    step_s = np.where(costs.allowed, costs.fixed_s(1) + costs.wire_s, np.inf)[row, : costs.whole]
    if not np.isfinite(step_s).any():
        return f"no cut is open; the slowest device takes {alone}"
    least = int(step_s.argmin())
    sends_s = costs.delay_s[row, least] + costs.wire_s[row, least]
    share = 100.0 * sends_s / step_s[least] if step_s[least] else 0.0
    helped = f"{human_s(step_s[least])} with the cloud's help, {share:.0f} % of it transfers"
    if step_s[least] < alone_s[row]:
        return f"nothing is divided; the slowest device takes {alone}, and would take {helped}"
    return f"no device is quicker with the cloud's help; the slowest takes {alone}, and would take {helped}"


def _half_bits(profile: ModelProfile, cut: int, costs: Costs) -> float:
    """Of what moves each way in every round: a device's units and their optimiser's state."""
    last, tail = profile.last, costs.job.tail
    ranges = [(0, cut)] if cut == last else [(0, cut), (last - tail, last)]
    parameters = sum(unit.parameters for start, stop in ranges for unit in profile.units[start:stop])
    state = sum(profile.state_bytes(start, stop) for start, stop in ranges)
    return 8.0 * (state + 4 * parameters * costs.job.state_copies)
