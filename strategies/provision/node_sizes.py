"""`NodeSizes`: which size every node has, and what is told of a change. Nothing here slices or sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flower_edge.events import Event
from flower_edge.submodels.sizes import Size

from .stepping import To, check_ladder, size_now, stepped

__all__ = ["NodeSizes"]

#: So many events are kept where nobody takes them, as in Flower's own loop.
_UNTOLD = 1000


class NodeSizes:
    """What every node is assigned, and what it was changed to, by its key.

    Args:
        sizes: the ladder, the largest first; empty where nobody steps.

    Raises:
        ConfigError: a ladder that does not go down.

    >>> nodes = NodeSizes([1.0, 0.5])
    >>> nodes.assign("7", Size(1.0))
    Size(rate=1.0, depth=0)
    >>> nodes.change("7", "smaller", "terminal asks: load 0.97", step=4)
    Size(rate=0.5, depth=0)
    >>> nodes.events()[-1].text
    '7 trains at rate 0.5 from step 4, before at rate 1 (terminal asks: load 0.97)'
    """

    def __init__(self, sizes: Sequence[float | Size] = ()) -> None:
        self.ladder = check_ladder(sizes)
        self._assigned: dict[str, Size] = {}
        self._wished: dict[str, Size] = {}
        self._untold: list[Event] = []

    def now(self) -> dict[str, Size]:
        """What every node has that was assigned something."""
        return {key: self.of(key, size) for key, size in self._assigned.items()}

    def of(self, key: str, assigned: Size) -> Size:
        """What a node has if this is what it is assigned."""
        return size_now(self._wished.get(key), assigned)

    def assign(self, key: str, assigned: Size) -> Size:
        """Note what a node is assigned in this round; returns what it has."""
        before = self.of(key, self._assigned[key]) if key in self._assigned else None
        self._assigned[key] = assigned
        now = self.of(key, assigned)
        if now != before:
            text = f"{key} trains at {now}" + ("" if before is None else f", before at {before}")
            self.tell(Event("sub-model", text, node=key, values={"rate": now.rate, "depth": now.depth}))
        return now

    def change(self, key: str, to: To, why: str, *, step: int | None = None) -> Size | None:
        """Change what a node has from now on, and tell it; `None` where it has what it had, or was assigned nothing.

        Args:
            key: the node's.
            to: `smaller` or `larger` on the ladder, or a size; never more than it is assigned.
            why: the reason.
            step: of its task, where that is in the middle of a round; `None` is the next round.
        """
        assigned = self._assigned.get(key)
        if assigned is None:
            return None
        before = self.of(key, assigned)
        after = before if isinstance(to, str) and not self.ladder else stepped(self.ladder, assigned, before, to)
        self._wished.pop(key, None)
        if after != assigned:
            self._wished[key] = after
        values: dict[str, int | float | str] = {"from": str(before), "to": str(after), "reason": why}
        values |= {"rate": after.rate, "depth": after.depth} | ({} if step is None else {"step": step})
        if after == before:
            rest = "" if self.ladder else "; for sizes to step through, SubModels(..., sizes=(1.0, 0.5, 0.25))"
            self.tell(Event("sub-model-kept", f"{key} keeps {after} ({why}){rest}", node=key, values=values))
            return None
        when = "from the next round" if step is None else f"from step {step}"
        text = f"{key} trains at {after} {when}, before at {before} ({why})"
        self.tell(Event("sub-model", text, node=key, values=values))
        return after

    def tell(self, event: Event) -> None:
        """Keep an event until somebody asks."""
        self._untold = [*self._untold, event][-_UNTOLD:]

    def events(self) -> list[Event]:
        """Those since the last call."""
        told, self._untold = self._untold, []
        return told

    def to_tree(self) -> dict[str, Any]:
        """As plain values, without the ladder."""
        return {"assigned": _plain(self._assigned), "wished": _plain(self._wished)}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Inverse of `to_tree`; the ladder stays."""
        self._assigned = {key: Size(*size) for key, size in tree["assigned"].items()}
        self._wished = {key: Size(*size) for key, size in tree["wished"].items()}


def _plain(sizes: Mapping[str, Size]) -> dict[str, Any]:
    return {key: [size.rate, size.depth] for key, size in sizes.items()}
