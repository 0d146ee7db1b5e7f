"""Oort: who helps the model most per second, with enough exploration to find out.

Scores candidates by the utility of their data and their speed. It neither evaluates nor sends: losses, sizes and
durations are those that came back.

Letters:
    u      statistical utility |B| · √(mean loss²), when the node last answered
    t      seconds the node takes, T those that are preferred: a percentile of all known t
    R      the number of this choice, L of the choice that last took the node
    ε      share of the nodes that are explored

    score = (min(u, clip) − u_min) / (u_max − u_min) + √(0.1 · ln R / L),  times (T / t)^α where t > T

Source: Lai, Zhu, Madhyastha, Chowdhury, "Oort: Efficient federated learning via guided participant selection", OSDI
2021; where paper and code differ, the authors' code in FedScale (thirdparty/oort/oort.py and its defaults). Departures:
u is normalised over nodes that have answered, not with the sizes of those that have not; and where there are too few
unexplored nodes for ε, the places go to explored ones (`revisit`), where the code chooses fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .candidates import Candidates, Positions
from .drawing import draw_by_weight, known_or_mean

__all__ = ["Oort", "OortState", "statistical_utility"]

_NONE: Positions = np.empty(0, np.int64)


def statistical_utility(table: Candidates) -> NDArray[np.float64]:
    """|B| · √(mean loss²), float64 [nodes]; the mean loss stands in where nodes do not report its root mean square.

    NaN where there is no loss; a node that does not tell how many samples it has counts as one with the mean number.

    >>> statistical_utility(Candidates(np.arange(2), {"loss": np.array([2.0, np.nan]), "num_examples": np.ones(2)}))
    array([ 2., nan])
    """
    loss = np.abs(table.column("loss"))
    if "loss_rms" in table.columns:
        rms = table.column("loss_rms")
        loss = np.where(np.isnan(rms), loss, rms)
    return np.asarray(known_or_mean(table.column("num_examples")) * loss, np.float64)


class OortState(TypedDict):
    """What Oort carries from one choice to the next.

    `history` holds the mean utility of the nodes that were exploited and answered, one entry per choice, for two steps
    of the pacer.
    """

    choices: int
    epsilon: float
    percentile: float
    exploited: NDArray[np.uint64]
    history: list[float]


@dataclass(frozen=True)
class Oort:
    """Explore with probability ε; exploit the nodes with the best score.

    Args:
        epsilon, epsilon_decay, epsilon_floor: ε before the first choice, its factor per choice, and its least value.
        clip: quantile of the utilities above which they count as equal.
        percentile: of the durations; slower nodes are punished. The pacer moves it.
        penalty: α. 0 ignores durations.
        pacer_every, pacer_step: every so many choices the percentile moves by so much: up when the utility has become
            flat, down when it jumps.
        cut_off: nodes below this part of the last exploited one's score are not drawn.
        at_least: but so many times the places are drawn from at least.
        window: unexplored nodes that are drawn from, as a multiple of the places for them.
        blacklist_after: leave out nodes chosen more often than this, at most `blacklist_share` of all.
        revisit: who fills places for exploration when all nodes are explored: `score`, the best of the others, or
            `uniform`, others by lot.
        size_power: what |B| is raised to in u: 1 as published, 0 leaves sizes to the strategy's own weights.

    Over-commitment (1.3 in the source) is the pipeline's `over_select`. All values are the source's but for ε, which
    begins at 0.9 there (`Oort.published()`): with ten of a hundred nodes a round, most rounds then wait for a node that
    nobody has a reason to ask. What either costs is in docs/selection.md.

    Raises:
        ConfigError: a number out of its range; names it.
    """

    epsilon: float = 0.5
    epsilon_decay: float = 0.98
    epsilon_floor: float = 0.3
    clip: float = 0.9
    percentile: float = 30.0
    penalty: float = 2.0
    pacer_every: int = 20
    pacer_step: float = 5.0
    cut_off: float = 0.05
    at_least: float = 10.0
    window: float = 5.0
    blacklist_after: int | None = None
    blacklist_share: float = 0.3
    revisit: Literal["uniform", "score"] = "score"
    size_power: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "epsilon": (0.0, 1.0),
            "epsilon_decay": (0.0, 1.0),
            "epsilon_floor": (0.0, 1.0),
            "clip": (0.0, 1.0),
            "percentile": (0.0, 100.0),
            "penalty": (0.0, math.inf),
            "pacer_every": (1, math.inf),
            "pacer_step": (0.0, 100.0),
            "cut_off": (0.0, 1.0),
            "at_least": (1.0, math.inf),
            "window": (1.0, math.inf),
            "blacklist_share": (0.0, 1.0),
            "size_power": (0.0, math.inf),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"Oort({name}={getattr(self, name)}): expected a number from {low:g} to {high:g}")
        if self.revisit not in ("uniform", "score"):
            raise ConfigError(f"Oort(revisit={self.revisit!r}): expected 'uniform' or 'score'")

    @classmethod
    def published(cls, **changes: float) -> Self:
        """The source's values, but for what is given: ε 0.9 · 0.98 a choice down to 0.3, 30th percentile, α = 2."""
        return replace(cls(epsilon=0.9), **changes)  # type: ignore[arg-type]

    @property
    def needs(self) -> frozenset[str]:
        """How long nodes take and how much data they have, to explore the promising ones first."""
        return frozenset({"num_examples", "compute_s", "up_s"})

    def init(self) -> OortState:
        """Nothing chosen yet."""
        return {
            "choices": 0,
            "epsilon": self.epsilon,
            "percentile": self.percentile,
            "exploited": np.empty(0, np.uint64),
            "history": [],
        }

    def rank(
        self, table: Candidates, count: int, state: OortState, round: int, rng: np.random.Generator
    ) -> tuple[Positions, OortState]:
        """The exploited and explored of this choice, and behind them the others by score, then the unexplored."""
        picks, answered = _or_0(table.column("picks")), _or_0(table.column("last_round"))
        size = known_or_mean(table.column("num_examples"))
        utility = statistical_utility(table)
        if self.size_power != 1.0:
            utility = utility * size ** (self.size_power - 1.0)
        history = [*state["history"], self._exploited_utility(table, utility, answered, state)]
        # Asked and cut off, or failed: it has been explored, and counts as one of average utility.
        tried = np.maximum(answered, _or_0(table.column("last_asked")))
        utility = known_or_mean(utility)
        played = tried > 0
        choices, percentile = self._pace(state, history)
        epsilon = max(state["epsilon"] * self.epsilon_decay, self.epsilon_floor)

        slower = self._punishment(table.column("duration_s"), percentile)
        open_ = ~self._blacklisted(picks)
        known = np.flatnonzero(played & open_)
        score = self._scores(utility[known], tried[known], slower[known], round)
        explore = int(count * epsilon)
        exploited = known[self._draw(score, min(count - explore, len(known)), rng)]

        fresh = np.flatnonzero(~played & open_)
        wanted = min(count - len(exploited), len(fresh))
        reward = (size**self.size_power * slower)[fresh]
        explored = fresh[self._window(reward, wanted, rng)]

        taken = np.zeros(len(table), np.bool_)
        taken[exploited] = taken[explored] = True
        left = ~taken[known]
        by_score = known[left][np.argsort(-score[left], kind="stable")]
        unseen = fresh[~taken[fresh]]
        if self.revisit == "uniform" and len(by_score):
            again = min(count - len(exploited) - len(explored), len(by_score))
            by_lot = rng.permutation(by_score)[:again]
            taken[by_lot] = True
            by_score = np.concatenate([by_lot, by_score[~taken[by_score]]])
        order = np.concatenate([exploited, explored, by_score, rng.permutation(unseen)])
        after: OortState = {
            "choices": choices,
            "epsilon": epsilon,
            "percentile": percentile,
            "exploited": table.nodes[exploited],
            "history": history[-2 * self.pacer_every :],
        }
        return order, after

    def _exploited_utility(
        self, table: Candidates, utility: NDArray[np.float64], answered: NDArray[np.float64], state: OortState
    ) -> float:
        """Mean utility of those exploited last time that answered since; 0 where there are none."""
        if not len(state["exploited"]):
            return 0.0
        there = np.isin(table.nodes, state["exploited"]) & (answered >= state["choices"]) & ~np.isnan(utility)
        return float(utility[there].mean()) if there.any() else 0.0

    def _pace(self, state: OortState, history: list[float]) -> tuple[int, float]:
        """The number of this choice, and the percentile it goes by."""
        choices, percentile = state["choices"] + 1, state["percentile"]
        every = self.pacer_every
        if choices >= 2 * every and choices % every == 0:
            before, now = sum(history[-2 * every : -every]), sum(history[-every:])
            if abs(now - before) <= 0.1 * before:
                percentile = min(100.0, percentile + self.pacer_step)
            elif abs(now - before) >= 5.0 * before:
                percentile = max(self.pacer_step, percentile - self.pacer_step)
        return choices, percentile

    def _punishment(self, duration_s: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
        """(T / t)^α where t > T, else 1; an unknown t is not punished."""
        known = np.sort(duration_s[~np.isnan(duration_s)])
        if percentile >= 100.0 or not len(known):
            return np.ones(len(duration_s))
        preferred_s = known[min(int(len(known) * percentile / 100.0), len(known) - 1)]
        t = np.where(np.isnan(duration_s), preferred_s, duration_s)
        return np.where(t > preferred_s, (preferred_s / np.maximum(t, 1e-4)) ** self.penalty, 1.0)

    def _scores(
        self,
        utility: NDArray[np.float64],
        tried: NDArray[np.float64],
        slower: NDArray[np.float64],
        round: int,
    ) -> NDArray[np.float64]:
        if not len(utility):
            return utility
        ordered = np.sort(utility)
        top = ordered[min(int(len(ordered) * self.clip), len(ordered) - 1)]
        least = ordered[0] * 0.999
        span = max(ordered[-1] - least, 1e-4)
        uncertain = np.sqrt(0.1 * math.log(max(round, 1)) / tried)
        return np.asarray(((np.minimum(utility, top) - least) / span + uncertain) * slower, np.float64)

    def _draw(self, score: NDArray[np.float64], places: int, rng: np.random.Generator) -> Positions:
        """Positions of the exploited: drawn in proportion to the score among those near the cut-off."""
        if places < 1:
            return _NONE
        by_score = np.argsort(-score, kind="stable")
        edge = score[by_score[min(places, len(by_score) - 1)]] * self.cut_off
        enough = max(int((score >= edge).sum()), min(len(by_score), int(self.at_least * places) + 1), places)
        near = by_score[:enough]
        return near[draw_by_weight(score[near], rng)[:places]]

    def _window(self, reward: NDArray[np.float64], places: int, rng: np.random.Generator) -> Positions:
        """Positions of the explored: drawn in proportion to the reward among the most promising."""
        if places < 1:
            return _NONE
        # Shuffled first: where nothing is known all are alike, and their order must not decide.
        lot = rng.permutation(len(reward))
        near = lot[np.argsort(-reward[lot], kind="stable")[: int(self.window * places)]]
        return near[draw_by_weight(reward[near], rng)[:places]]

    def _blacklisted(self, picks: NDArray[np.float64]) -> NDArray[np.bool_]:
        out = np.zeros(len(picks), bool)
        if self.blacklist_after is not None:
            most = np.argsort(-picks, kind="stable")[: int(self.blacklist_share * len(picks))]
            out[most[picks[most] > self.blacklist_after]] = True
        return out


def _or_0(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where it is unknown."""
    return np.where(np.isnan(values), 0.0, values)
