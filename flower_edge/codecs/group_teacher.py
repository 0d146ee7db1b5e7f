"""`GroupTeacher`: the teacher of a codec that has only some of a model's arrays. It shows it those, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .layout import Layout
from .sparse import Update
from .teacher import Teacher, Told

if TYPE_CHECKING:
    from .grouped import Grouped

__all__ = ["GroupTeacher"]

State = dict[str, Any]


@dataclass(frozen=True)
class GroupTeacher:
    """Between whoever runs the rounds, who knows whole vectors, and the teacher of one codec among several.

    Attributes:
        inner: the teacher.
        owner: the codec that puts arrays into groups.
        codec: which of the owner's codecs it teaches.
    """

    inner: Teacher
    owner: Grouped
    codec: int

    def init(self, layout: Layout) -> State:
        """The inner state, and the model's names and shapes."""
        within = layout.select(self.owner.group_of(self.codec, layout).arrays)
        shapes = [list(shape) for shape in layout.shapes]
        return {"names": list(layout.names), "shapes": shapes, "inner": self.inner.init(within)}

    def learn(self, state: State, round: int, updates: Mapping[int, Update]) -> State:
        """The codec's part of each update."""
        layout = _layout(state)
        group = self.owner.group_of(self.codec, layout)
        parts = {node: group.narrowed(update, layout) for node, update in updates.items()}
        return {**state, "inner": self.inner.learn(state["inner"], round, parts)}

    def tell(self, state: State, round: int) -> tuple[Told, State]:
        """What the inner one tells, its places those of the whole vector."""
        told, inner = self.inner.tell(state["inner"], round)
        if told.leader is not None:
            layout = _layout(state)
            told = replace(told, leader=np.sort(self.owner.group_of(self.codec, layout).places(told.leader, layout)))
        return told, {**state, "inner": inner}

    def metrics(self, state: State) -> Mapping[str, float]:
        """Those of the inner one."""
        return self.inner.metrics(state["inner"])


def _layout(state: State) -> Layout:
    return Layout(tuple(state["names"]), tuple(tuple(shape) for shape in state["shapes"]))
