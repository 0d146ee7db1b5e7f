"""`LearnedPlan`: how few bytes compression leaves at a cut, learned from recorded runs. `CostReach`: from their steps.

    octaves at the floor ~ the allowed drop, the kind of tensor, channels, numbers, where in the model it lies, depth,
                           and which methods were used

by ridge regression over standardised terms: one row for each connection of each run that ended at its floor. What is
learned is by how much the rules of thumb were wrong, so few rows say little more than the rules do; how much weights
are drawn to 0 is chosen by leaving one row out. How many trials a set of methods takes is the mean of what it took.
Nothing here compresses.

Source: ridge regression: Hoerl, Kennard, "Ridge regression", Technometrics 1970.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import FringeError
from .actions import METHODS, Action, Candidate, checked_methods
from .automatic_reach import RuleReach
from .automatic_values import CutPlace, Kind
from .policy_learned import CostModel

__all__ = ["CostReach", "LearnedPlan", "PlanRow"]

Array = npt.NDArray[np.float64]
_RIDGES: Final = (1.0, 3.0, 10.0, 30.0, 100.0)
_KINDS: Final[tuple[Kind, ...]] = ("picture", "sequence", "vector", "other")


@dataclass(frozen=True)
class PlanRow:
    """What became of one connection.

    Attributes:
        kind, channels, values, four_octaves: of its place: see `CutPlace`; octaves that 4 bits alone save there.
        ruled_octaves: that `RuleReach` expects.
        share: of all compute, what comes before it.
        methods: that could be used there.
        depth: of the fringe.
        drop: that was allowed.
        octaves: by which its frames were smaller when the run ended at its floor.
        trials: iterations of the run, over its connections.
    """

    kind: Kind
    channels: int
    values: int
    four_octaves: float
    ruled_octaves: float
    share: float
    methods: tuple[str, ...]
    depth: int
    drop: float
    octaves: float
    trials: float

    @classmethod
    def of(
        cls,
        place: CutPlace,
        share: float,
        methods: Sequence[str],
        depth: int,
        drop: float,
        *,
        size_bytes: float | None = None,
        trials: float = 0.0,
    ) -> PlanRow:
        """Of a place, and what its frames had in the end; without `size_bytes` a question.

        Raises:
            FringeError: a drop below 0 or a size that is none.
        """
        size = place.size_bytes if size_bytes is None else size_bytes
        if not 0 < size < math.inf or not 0.0 <= drop < math.inf:
            raise FringeError(f"size_bytes = {size!r} and drop = {drop!r}: expected above 0, and 0 or more")
        # What a place does not allow was not used there, whatever the run had.
        used = tuple(method for method in METHODS if method in methods and place.allows(method))
        four = math.log2(place.size_bytes / place.four_bytes)
        ruled = math.log2(place.size_bytes / RuleReach().least_bytes(place, share, used, depth, drop))
        gone = math.log2(place.size_bytes / size)
        return cls(place.kind, place.channels, place.values, four, ruled, share, used, depth, drop, gone, trials)

    def terms(self) -> Array:
        """What the regression has of it."""
        bits, pruned, paired = (float(method in self.methods) for method in METHODS)
        size = math.log2(1 + self.values)
        return np.array(
            [
                *(float(self.kind == kind) for kind in _KINDS),
                bits, pruned, paired, pruned * paired,
                bits * self.four_octaves,
                paired * size, pruned * math.log2(1 + self.channels),
                self.share, paired * self.share,
                math.log2(1 + self.channels), size,
                float(self.depth), pruned * self.depth,
                math.log10(self.drop + 1e-3),
            ]
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """Plain values; `from_row` is its inverse."""
        return {**asdict(self), "methods": list(self.methods)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> PlanRow:
        """Inverse of `row`.

        Raises:
            FringeError: no such row.
        """
        try:
            found = cls(**{**row, "methods": tuple(checked_methods(row["methods"]) if row["methods"] else ())})
        except (KeyError, TypeError) as error:
            raise FringeError(f"a row of {row!r:.120}: {error}; expected what PlanRow.row gives") from error
        numbers = [getattr(found, one.name) for one in fields(found) if one.name not in ("kind", "methods")]
        if found.kind not in _KINDS or not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
            raise FringeError(
                f"a row of {row!r:.120}; expected what PlanRow.row gives, finite numbers and a known kind"
            )
        return found


def _ridge(Z: Array, y: Array, ridge: float) -> tuple[Array, float]:
    """Weights, and the standard deviation of what is wrong on rows that are left out, by the hat matrix."""
    gram = np.linalg.inv(Z.T @ Z + ridge * np.eye(Z.shape[1]))
    weights = gram @ Z.T @ y
    leverage = np.einsum("ij,jk,ik->i", Z, gram, Z) + 1.0 / len(y)  # the mean is a term that is learned, too
    wrong = (y - Z @ weights) / np.maximum(1.0 - leverage, 1e-6)
    return weights, math.sqrt(float(np.square(wrong).mean())) if len(y) > 1 else math.inf


@dataclass(frozen=True, eq=False)
class LearnedPlan:
    """See the module; make one with `fit`. It is a `Reach`.

    Attributes:
        weights, mean, deviation: of the terms; the last two bring a row to the scale it was learned on.
        base: mean of the octaves by which rules were wrong.
        spread: standard deviation of what it gets wrong on rows that it did not see, in octaves; inf of one row.
        taken: by methods joined with "+", how many trials they took.
        known: depths that were recorded.
        rows: how many.
    """

    weights: Array
    mean: Array
    deviation: Array
    base: float
    spread: float
    taken: Mapping[str, float]
    known: tuple[int, ...]
    rows: int

    @classmethod
    def fit(cls, rows: Iterable[PlanRow], *, ridge: float | None = None) -> LearnedPlan:
        """Learn.

        Args:
            rows: of runs that ended at their floor, of one model or of several.
            ridge: how much weights are drawn to 0, above 0; None: whatever is wrong least on rows that are left out.

        Raises:
            FringeError: no rows, or a ridge that is not above 0.
        """
        known = list(rows)
        if not known or not (ridge is None or ridge > 0):
            raise FringeError(f"{len(known)} rows and ridge = {ridge}: expected one or more, and above 0")
        X = np.stack([row.terms() for row in known])
        y = np.array([row.octaves - row.ruled_octaves for row in known])
        mean, deviation = X.mean(axis=0), X.std(axis=0)
        deviation = np.where(deviation > 1e-9, deviation, np.inf)  # a term that never moved says nothing
        Z, base = (X - mean) / deviation, float(y.mean())
        tried = [_ridge(Z, y - base, one) for one in (_RIDGES if ridge is None else (ridge,))]
        weights, spread = min(tried, key=lambda one: one[1])
        by_set: dict[str, list[float]] = {}
        for row in known:
            by_set.setdefault("+".join(row.methods), []).append(row.trials)
        taken = {name: fmean(each) for name, each in sorted(by_set.items())}
        return cls(weights, mean, deviation, base, spread, taken, tuple(sorted({row.depth for row in known})), len(y))

    @property
    def depths(self) -> tuple[int, ...]:
        """See `Reach`."""
        return self.known

    def octaves(self, row: PlanRow) -> float:
        """By how much smaller its frames can be expected to become; 0 where no method may be used."""
        if not row.methods:
            return 0.0
        return max(
            0.0, row.ruled_octaves + self.base + float((row.terms() - self.mean) / self.deviation @ self.weights)
        )

    def least_bytes(self, place: CutPlace, share: float, methods: Sequence[str], depth: int, drop: float) -> float:
        """See `Reach`."""
        row = PlanRow.of(place, share, methods, depth, drop)
        return float(place.size_bytes / 2.0 ** self.octaves(row))

    def trials(self, methods: Sequence[str]) -> float:
        """See `Reach`; of a set that was never recorded, more than of any that was."""
        name = "+".join(method for method in METHODS if method in methods)
        return self.taken.get(name, 1.0 + max(self.taken.values())) if name else 0.0

    def state(self) -> dict[str, Any]:
        """Plain values and arrays; `from_state` is its inverse."""
        return {
            **{name: getattr(self, name).copy() for name in ("weights", "mean", "deviation")},
            "base": self.base, "spread": self.spread, "taken": dict(self.taken), "known": list(self.known),
            "rows": self.rows,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LearnedPlan:
        """Inverse of `state`.

        Raises:
            FringeError: no such state.
        """
        size = len(PlanRow("vector", 1, 1, 0.0, 0.0, 0.0, (), 1, 0.0, 0.0, 0.0).terms())
        try:
            arrays = [np.asarray(state[name], dtype=np.float64) for name in ("weights", "mean", "deviation")]
            taken = {str(name): float(value) for name, value in state["taken"].items()}
            known = tuple(int(depth) for depth in state["known"])
            found = cls(
                arrays[0], arrays[1], arrays[2],
                float(state["base"]), float(state["spread"]), taken, known, int(state["rows"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FringeError(f"a plan of {state!r:.120}: {error}; expected what LearnedPlan.state gives") from error
        finite = np.isfinite(found.weights).all() and np.isfinite(found.mean).all() and math.isfinite(found.base)
        if {array.shape for array in arrays} != {(size,)} or not finite or not (found.deviation > 0).all() or not taken:
            raise FringeError(f"a plan of arrays {[one.shape for one in arrays]}; expected {size} finite numbers each")
        return found


@dataclass(frozen=True, eq=False)
class CostReach:
    """What a `CostModel` of steps says of whole runs: steps are taken while they can be expected to stay in the drop.

    Attributes:
        model: of what steps cost in the metric.
        step_octaves: of one step.
        most_octaves: farther than this nobody looks.
    """

    model: CostModel
    step_octaves: float = 0.5
    most_octaves: float = 8.0

    @property
    def depths(self) -> tuple[int, ...]:
        """See `Reach`."""
        return ()

    def least_bytes(self, place: CutPlace, share: float, methods: Sequence[str], depth: int, drop: float) -> float:
        """See `Reach`; share and depth make no difference."""
        del share, depth
        size, lost = float(place.size_bytes), 0.0
        floor = place.size_bytes / 2.0**self.most_octaves
        usable = [one for one in methods if place.allows(one) and self.model.seen.get(one, 0)]
        while usable:
            smaller = size / 2.0**self.step_octaves
            costs = {one: self._cost(one, size, smaller, place) for one in usable}
            cheapest = min(costs, key=lambda one: (max(0.0, costs[one]), METHODS.index(one)))
            limit = place.four_bytes / 2 if cheapest == "quantisation" else floor
            if cheapest == "quantisation" and smaller < limit:
                usable.remove(cheapest)
                continue
            lost += max(0.0, costs[cheapest])
            if lost > drop or smaller < floor:
                break
            size = smaller
        return size

    def _cost(self, method: str, before: float, after: float, place: CutPlace) -> float:
        sizes = max(2, round(before)), max(1, round(after))
        action = Action(method, 0, 0, self.step_octaves)
        fraction = sizes[1] / place.size_bytes
        return self.model.lost(Candidate(action, *sizes, 0.0, 0.0, 32, place.channels, fraction, False))

    def trials(self, methods: Sequence[str]) -> float:
        """See `Reach`; more methods take more."""
        return 5.0 * len(methods)
