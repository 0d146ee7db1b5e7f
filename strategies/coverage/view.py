"""`View`: who is where and takes part at one time, and the difference between two of them in words.

Values. Nothing here looks at a clock or a Grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from flower_edge.coverage import Moves
from flower_edge.events import Event

__all__ = ["View", "first_event", "move_events"]

#: Cells named in the event that tells where everybody is at first.
MOST_NAMED = 20
#: What is worked out only when it is asked for.
_WORKED_OUT = ("present", "members", "everybody")


@dataclass(frozen=True, eq=False)
class View:
    """Who is where and takes part.

    Attributes:
        time_s: when.
        cells: names of the edges.
        attached: int64 [terminals], index into `cells`; -1 out of coverage or not on the Grid.
        taken: bool [terminals], whether it takes part where it is.
        ids: nodes on the Grid, in the Grid's order.
        rows: int64 [ids], their terminals.
    """

    time_s: float
    cells: tuple[str, ...]
    attached: npt.NDArray[np.int64]
    taken: npt.NDArray[np.bool_]
    ids: list[int]
    rows: npt.NDArray[np.int64]

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """bool [terminals], who is in coverage."""
        return self.attached >= 0

    @cached_property
    def members(self) -> dict[str, list[int]]:
        """Node ids of the members of every cell, each in the Grid's order."""
        cell = np.where(self.taken[self.rows], self.attached[self.rows], -1)
        order = np.argsort(cell, kind="stable")
        bounds = np.searchsorted(cell[order], np.arange(len(self.cells) + 1)).tolist()
        in_order = [self.ids[at] for at in order.tolist()]
        return {name: in_order[bounds[c] : bounds[c + 1]] for c, name in enumerate(self.cells)}

    @cached_property
    def everybody(self) -> list[int]:
        """Node ids of the members of all cells, in the Grid's order."""
        here = (self.taken & (self.attached >= 0))[self.rows]
        return [node for node, member in zip(self.ids, here.tolist(), strict=True) if member]

    def of(self, cell: str) -> list[int]:
        """Members of a cell; of all cells for the empty name. Not to be changed."""
        return self.members[cell] if cell else self.everybody

    def after(self, last: View | None) -> View:
        """This view, with what was worked out for the last one where nothing but the time is another."""
        if (
            last is None
            or last.ids is not self.ids
            or not np.array_equal(last.attached, self.attached)
            or not np.array_equal(last.taken, self.taken)
        ):
            return self
        view = replace(last, time_s=self.time_s)
        vars(view).update({name: vars(last)[name] for name in _WORKED_OUT if name in vars(last)})
        return view


def first_event(view: View) -> Event:
    """How many terminals each edge reaches as a run begins."""
    counts = np.bincount(view.attached[view.attached >= 0], minlength=len(view.cells)).tolist()
    told = ", ".join(f"{cell} {count}" for cell, count in list(zip(view.cells, counts, strict=True))[:MOST_NAMED])
    more = ", …" if len(view.cells) > MOST_NAMED else ""
    text = f"{sum(counts)} of {len(view.ids)} terminals are in coverage as the run begins: {told}{more}"
    return Event("found", text, time_s=view.time_s, values={"terminals": sum(counts)})


def move_events(moves: Moves, cells: tuple[str, ...], time_s: float, *, handover: bool) -> Iterator[Event]:
    """What moved, one event per terminal; without handover a change of the edge is leaving one and entering another."""
    left = list(zip(moves.left.tolist(), moves.out_of.tolist(), strict=True))
    entered = list(zip(moves.entered.tolist(), moves.into.tolist(), strict=True))
    changed = list(zip(moves.handed_over.tolist(), moves.source.tolist(), moves.target.tolist(), strict=True))
    if not handover:
        left = sorted(left + [(index, source) for index, source, _ in changed])
        entered = sorted(entered + [(index, target) for index, _, target in changed])
        changed = []
    for index, cell in left:
        yield Event("left", f"terminal {index} left {cells[cell]}", str(index), cells[cell], time_s=time_s)
    for index, one, other in changed:
        source, target = cells[one], cells[other]
        text = f"terminal {index} is handed over from {source} to {target}"
        yield Event("handed-over", text, str(index), target, time_s=time_s, values={"from": source, "to": target})
    for index, cell in entered:
        yield Event("entered", f"terminal {index} entered {cells[cell]}", str(index), cells[cell], time_s=time_s)
