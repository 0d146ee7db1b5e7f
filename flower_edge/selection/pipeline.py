"""`Pipeline`: eligibility, score, deadline, one after the other, down to the nodes that take part.

Coverage has narrowed the candidates before. Everything here is a function of what is handed in: a table, a state, the
number of the choice and a generator. Nothing here asks a node.

[4] ¶36 and ¶51: a model is handed to terminals that satisfy a preset standard of performance and load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..rules import Rule
from .candidates import Candidates, Positions
from .scores import RandomScore, Score

__all__ = ["Deadline", "Pipeline", "PipelineState"]


@dataclass(frozen=True)
class Deadline:
    """Leaves out who would not be back in time, as far as that is known.

    Args:
        seconds: from sending to reply.

    Raises:
        ConfigError: not above 0.

    >>> table = Candidates(np.arange(3), {"duration_s": np.array([2.0, np.nan, 9.0])})
    >>> Deadline(5.0).kept(table)
    array([ True,  True, False])
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ConfigError(f"Deadline({self.seconds}): expected more than 0 s")

    def kept(self, table: Candidates) -> NDArray[np.bool_]:
        """Who may be chosen, bool [nodes]: a node of unknown duration has the benefit of the doubt."""
        return ~(table.column("duration_s") > self.seconds)


class PipelineState(TypedDict):
    """The score's state, and what the last choice found.

    `counts`: candidates, eligible, late (left out by the deadline), asked (the `count` it was after), chosen.
    """

    score: Any
    counts: dict[str, int]


@dataclass(frozen=True)
class Pipeline:
    """Stages that choose who takes part.

    Args:
        count: how many replies are wanted: an int is a number of nodes, a float in (0, 1] a fraction of the candidates
            (at least one).
        eligible: a rule over the columns; who does not satisfy it, or of whom that is unknown, cannot be chosen.
        score: puts the eligible in an order.
        deadline: seconds; leaves out who is known to take longer.
        over_select: choose so many times `count`, to go on with the first `count` replies: 1.3 is usual.
        cap_per_group: column to number: at most so many of the chosen share a value of that column.

    Where fewer are eligible than asked for, all of them are chosen; where the deadline leaves nobody, the first in the
    score's order is: a late round is worth more than none. `counts` in the state tell both.

    Raises:
        ConfigError: a number out of its range.

    >>> table = Candidates(np.array([5, 6, 7]), {"battery": np.array([0.9, 0.1, 0.8])})
    >>> pipeline = Pipeline(2, eligible="battery >= 0.3")
    >>> chosen, reserve, state = pipeline.choose(table, pipeline.init(), 1, np.random.default_rng(0))
    >>> sorted(chosen.tolist()), reserve.tolist(), state["counts"]["eligible"]
    ([5, 7], [], 2)
    """

    count: int | float
    eligible: Rule | str | None = None
    score: Score = field(default_factory=RandomScore)
    deadline: Deadline | float | None = None
    over_select: float = 1.0
    cap_per_group: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (0 < self.count <= 1.0 if isinstance(self.count, float) else self.count >= 1):
            raise ConfigError(f"Pipeline({self.count!r}): expected a number of nodes, or a fraction such as 0.1")
        if not 1.0 <= self.over_select < math.inf:
            raise ConfigError(f"Pipeline(over_select={self.over_select}): expected 1 or more, for example 1.3")
        for column, most in self.cap_per_group.items():
            if most < 1:
                raise ConfigError(f"Pipeline(cap_per_group={{{column!r}: {most}}}): expected 1 or more")
        if isinstance(self.eligible, str):
            object.__setattr__(self, "eligible", Rule(self.eligible))
        if self.deadline is not None and not isinstance(self.deadline, Deadline):
            object.__setattr__(self, "deadline", Deadline(float(self.deadline)))

    @cached_property
    def needs(self) -> frozenset[str]:
        """Columns worth asking nodes for."""
        return self.rule_needs | self.score.needs | frozenset(self.cap_per_group)

    @cached_property
    def rule_needs(self) -> frozenset[str]:
        """Columns the eligibility rule reads."""
        return frozenset(self.eligible.names) if isinstance(self.eligible, Rule) else frozenset()

    def init(self) -> PipelineState:
        """Before the first choice."""
        return {"score": self.score.init(), "counts": {}}

    def wanted(self, candidates: int) -> int:
        """How many replies are wanted from so many candidates.

        >>> Pipeline(0.1).wanted(25), Pipeline(0.1).wanted(3), Pipeline(8).wanted(3)
        (2, 1, 8)
        """
        return max(1, int(self.count * candidates)) if isinstance(self.count, float) else self.count

    def choose(
        self, candidates: Candidates, state: PipelineState, round: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], PipelineState]:
        """Who takes part.

        Args:
            candidates: who is there, and what is known of them.
            state: as `init` or the last call gave it; it is not changed.
            round: the number of this choice, from 1.
            rng: draws of this choice; with one generator state the choice is the same.

        Returns:
            Ids of the chosen, the most wanted first; ids of those who would be next; the state.
        """
        asked = self.wanted(len(candidates))
        counts = {"candidates": len(candidates), "eligible": len(candidates), "late": 0, "asked": asked, "chosen": 0}
        table = candidates
        if isinstance(self.eligible, Rule) and len(table):
            mask = self.eligible.mask(table.columns, len(table))
            if not mask.all():
                table = table.take(np.flatnonzero(mask))
            counts["eligible"] = len(table)
        if not len(table):
            return table.nodes, table.nodes, {"score": state["score"], "counts": counts}

        places = math.ceil(asked * self.over_select - 1e-9)
        in_time = table
        if isinstance(self.deadline, Deadline):
            kept = self.deadline.kept(table)
            if kept.any() and not kept.all():
                in_time = table.take(np.flatnonzero(kept))
            counts["late"] = int(len(table) - kept.sum())
            places = places if kept.any() else 1
        order, score = self.score.rank(in_time, places, state["score"], round, rng)
        if self.cap_per_group:
            order, spare = self._capped(in_time, order, places)
        else:
            order, spare = order[:places], order[places:]
        counts["chosen"] = len(order)
        return in_time.nodes[order], in_time.nodes[spare], {"score": score, "counts": counts}

    def _capped(self, table: Candidates, order: Positions, places: int) -> tuple[Positions, Positions]:
        """In order, who still finds a place in each of its groups; unknown values are a group of their own each."""
        taken: dict[tuple[str, Any], int] = {}
        chosen: list[int] = []
        spare: list[int] = []
        for position in order.tolist():
            groups = [
                (column, value)
                for column in self.cap_per_group
                if column in table.columns and _is_known(value := table.columns[column][position])
            ]
            if len(chosen) < places and all(taken.get(group, 0) < self.cap_per_group[group[0]] for group in groups):
                chosen.append(position)
                for group in groups:
                    taken[group] = taken.get(group, 0) + 1
            else:
                spare.append(position)
        return np.array(chosen, np.int64), np.array(spare, np.int64)


def _is_known(value: Any) -> bool:
    return value is not None and value == value
