"""What controllers cost without learning: f against its optimum, regret, true time, links left, fairness.

Every controller meets the same worlds: set-ups of `flower_edge.topology.set_ups` with the seeds 0 to 7, 150 rounds, so
that all comparisons are paired. Nothing here trains, and no figure depends on how fast this machine is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flower_edge.control.controller import Control, Controller, Observation, Start, State
from flower_edge.control.ogd import Ogd
from flower_edge.control.simulate import simulate
from flower_edge.topology.mixing import column_sums, consensus_bias
from flower_edge.topology.set_ups import set_up
from flower_edge.topology.topology import Topology

from .harness.figures import mean_and_error, ratio_and_error
from .topology_control_candidates import (
    BAND_STEP,
    CANDIDATES,
    DOUBLY_STOCHASTIC,
    LITERAL,
    LITERAL_CAPS,
    ONE_PEER,
    WEIGHT_STEP,
)

__all__ = [
    "SEEDS",
    "Cost",
    "CostJob",
    "Tuning",
    "cost_figures",
    "cost_jobs",
    "run_cost",
    "tune_ogd",
]

SEEDS: Final = tuple(range(8))
ROUNDS: Final = 150
LAST: Final = 50
TUNED_ON_SEED: Final = 100
_STEPS: Final = (0.3, 1.0, 3.0)

#: Set-ups beside `nlos`, and what runs there.
_ELSEWHERE: Final = {
    "nlos-per-device": ("EQUAL", "OGD row", "DCENT", "closed form"),
    "macro": ("EQUAL", "OGD row", "DCENT", "closed form"),
}
_TUNED: Final = "OGD row, tuned"


@dataclass(frozen=True)
class Tuning:
    """Steps of OGD, as found on a seed that is not used otherwise.

    Attributes:
        weight_step, band_step: the best on the grid.
        regret_s: of all steps tried, by (weight step, band step).
    """

    weight_step: float
    band_step: float
    regret_s: tuple[tuple[float, float, float], ...]


def tune_ogd(rounds: int = ROUNDS) -> Tuning:
    """The steps x {.3, 1, 3} around .003 and .00001 with which OGD's regret is least in `nlos` on seed 100."""
    world = set_up("nlos", TUNED_ON_SEED)
    tried = [
        (w, b, simulate(Ogd("row", weight_step=w, band_step=b), world, rounds).regret_s)
        for w, b in itertools.product([WEIGHT_STEP * x for x in _STEPS], [BAND_STEP * x for x in _STEPS])
    ]
    weight_step, band_step, _ = min(tried, key=lambda row: row[2])
    return Tuning(weight_step, band_step, tuple(tried))


@dataclass(frozen=True)
class CostJob:
    """One controller in one world.

    Attributes:
        name: of `CANDIDATES`, or that of the tuned OGD.
        set_up, seed, rounds: the world, and how long.
        steps: of the tuned OGD.
    """

    name: str
    set_up: str
    seed: int
    rounds: int = ROUNDS
    steps: tuple[float, float] | None = None

    def controller(self) -> Controller:
        """A new one."""
        if self.steps is not None:
            return Ogd("row", weight_step=self.steps[0], band_step=self.steps[1])
        return CANDIDATES[self.name]()


@dataclass(frozen=True)
class Cost:
    """What came of it.

    Attributes:
        f_over_opt: f over its optimum, means over the last 50 rounds.
        f_s, regret_s: mean f; dynamic regret of all rounds.
        true_over_floor: mean true time of a round over the mean of the largest P.
        true_s: mean true time of a round.
        links: in use in the last round; `links_mean` over all of them.
        sigma2: largest second singular value of a round's weights, in the last 50 rounds.
        bias: max |N pi - 1| of the weights of the last 50 rounds together; infinite if they do not connect.
        column_error: the largest distance of a column sum of W from 1, in all rounds.
    """

    f_over_opt: float
    f_s: float
    regret_s: float
    true_over_floor: float
    true_s: float
    links: int
    links_mean: float
    sigma2: float
    bias: float
    column_error: float


class _Watched:
    """A controller whose controls are written down."""

    def __init__(self, inner: Controller) -> None:
        self._inner = inner
        self.controls: list[Control] = []

    # As an instance's it overrides the promise's class variable.
    @property
    def clairvoyant(self) -> bool:
        return self._inner.clairvoyant

    def init(self, start: Start) -> tuple[Control, State]:
        control, state = self._inner.init(start)
        self.controls = [] if self.clairvoyant else [control]
        return control, state

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        control, state = self._inner.step(state, observation)
        self.controls.append(control)
        return control, state


def run_cost(job: CostJob) -> Cost:
    """Run a controller in its world."""
    world, watched = set_up(job.set_up, job.seed), _Watched(job.controller())
    trace = simulate(watched, world, job.rounds, sigma2=True)  # type: ignore[arg-type]
    last, topology = min(LAST, job.rounds), world.topology
    # The first rounds are left out: whatever begins with EQUAL has agreed after one, and later weights would not show.
    sums = [column_sums(topology, control.weights, control.self_weights) for control in watched.controls]
    return Cost(
        f_over_opt=trace.f_over_opt(last),
        f_s=float(trace.f_s.mean()),
        regret_s=trace.regret_s,
        true_over_floor=trace.true_over_floor(),
        true_s=float(trace.true_s.mean()),
        links=int(trace.links[-1]),
        links_mean=float(trace.links.mean()),
        sigma2=float(trace.sigma2[-last:].max()),
        bias=joint_bias(topology, watched.controls[-last:]),
        column_error=float(np.abs(np.array(sums) - 1.0).max()),
    )


def joint_bias(topology: Topology, controls: Sequence[Control]) -> float:
    """max |N pi - 1| of W[T] ... W[1]: how unequally nodes count in the consensus of rounds whose weights change."""
    product: npt.NDArray[np.float64] = np.eye(topology.nodes)
    for control in controls:
        product = topology.matrix(control.weights, control.self_weights) @ product
    product /= product.sum(axis=1, keepdims=True)
    whole = Topology.complete(topology.nodes)
    return consensus_bias(whole, product[whole.receiver, whole.sender], np.diag(product).copy())


# -- all of them -----------------------------------------------------------------------------------------------------


def cost_jobs(tuning: Tuning, seeds: Sequence[int] = SEEDS, rounds: int = ROUNDS) -> list[CostJob]:
    """Every controller in `nlos`, and some elsewhere, with every seed; those that plan long first."""
    names = sorted(CANDIDATES, key=lambda name: name not in ("auto", "MATCHA", *ONE_PEER))
    jobs = [CostJob(name, "nlos", seed, rounds) for name in names for seed in seeds]
    steps = (tuning.weight_step, tuning.band_step)
    jobs += [CostJob(_TUNED, "nlos", seed, rounds, steps) for seed in seeds]
    return jobs + [CostJob(n, where, seed, rounds) for where, of in _ELSEWHERE.items() for n in of for seed in seeds]


def cost_figures(results: Mapping[CostJob, Cost], tuning: Tuning) -> dict[str, Any]:
    """The figures, each with its standard error over seeds, and what is behind them."""
    by: dict[str, dict[str, list[Cost]]] = {}
    for job, cost in results.items():  # in the order of the seeds
        by.setdefault(job.set_up, {}).setdefault(job.name, []).append(cost)
    nlos = by["nlos"]
    figures: dict[str, Any] = {}

    def tell(key: str, value_and_error: tuple[float, float]) -> None:
        figures[key], figures[f"{key}_se"] = value_and_error

    tell("dcent_f_over_opt_nlos", _mean(nlos["DCENT"], "f_over_opt"))
    # The stronger of the two baselines.
    baseline = min(("OGD row", _TUNED), key=lambda name: _mean(nlos[name], "regret_s")[0])
    regrets = [[cost.regret_s for cost in nlos[name]] for name in ("DCENT", baseline)]
    tell("dcent_regret_over_ogd_row", ratio_and_error(*regrets))
    links = [[nlos[name][k].links for name in LITERAL] for k in range(len(nlos["DCENT"]))]
    tell("literal_links_left", mean_and_error([float(np.mean(of_a_seed)) for of_a_seed in links]))
    tell("best_f_over_opt_nlos", _mean(nlos["closed form"], "f_over_opt"))
    tell("best_f_over_opt_per_device", _mean(by["nlos-per-device"]["closed form"], "f_over_opt"))
    peer = min(ONE_PEER, key=lambda name: _mean(nlos[name], "true_over_floor")[0])
    tell("best_true_time_over_floor", _mean(nlos[peer], "true_over_floor"))
    tell("best_true_time_over_floor_sigma80", _mean(nlos["sigma2 <= 0.8"], "true_over_floor"))
    fair = [cost for name in DOUBLY_STOCHASTIC for cost in nlos[name]]
    figures["consensus_bias"] = max(max(cost.bias, cost.column_error) for cost in fair)
    figures["costs"] = {
        "set_ups": {
            where: {name: _told(costs, by[where]["EQUAL"]) for name, costs in of.items()} for where, of in by.items()
        },
        "ogd_tuning": {
            "seed": TUNED_ON_SEED,
            "tried": [{"weight_step": w, "band_step": b, "regret_s": regret} for w, b, regret in tuning.regret_s],
            "best": {"weight_step": tuning.weight_step, "band_step": tuning.band_step},
            "held_against": baseline,
        },
        "one_peer": peer,
        "literal_links_by_cap": {
            f"{cap:g}": float(np.mean([cost.links for cost in nlos[name]]))
            for name, cap in zip(LITERAL, LITERAL_CAPS, strict=True)
        },
    }
    return figures


def _mean(costs: Sequence[Cost], name: str) -> tuple[float, float]:
    return mean_and_error([getattr(cost, name) for cost in costs])


def _told(costs: Sequence[Cost], equal: Sequence[Cost]) -> dict[str, float | None]:
    """Means over seeds; what is infinite is told as None, for JSON."""
    told: dict[str, float | None] = {}
    for name in Cost.__dataclass_fields__:
        value, error = _mean(costs, name)
        told[name] = value if np.isfinite(value) else None
        told[f"{name}_se"] = error if np.isfinite(error) else None
    told["regret_over_equal"] = float(np.mean([a.regret_s / b.regret_s for a, b in zip(costs, equal, strict=True)]))
    return told
