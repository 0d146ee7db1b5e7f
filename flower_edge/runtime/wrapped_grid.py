"""`WrappedGrid`: a Grid around a Grid, and how a chain of them is walked, told of rounds and checkpointed.

A subclass overrides what it changes and nothing else. No proxy knows which others are in its chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ..errors import ResumeError
from ..rounds import Round
from .generators import kept_generators

__all__ = ["WrappedGrid", "announce", "chain", "find", "grid_state", "load_grid_state", "undisturbed"]

SomeGrid = TypeVar("SomeGrid", bound=Grid)


class WrappedGrid(Grid):
    """Passes everything on to `inner`."""

    def __init__(self, inner: Grid) -> None:
        self.inner = inner

    def set_run(self, run: Any) -> None:
        """Set the run information."""
        self.inner.set_run(run)

    @property
    def run(self) -> Any:
        """Run information."""
        return self.inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message; `Message(content, dst_node_id, message_type)` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes that can be asked."""
        return self.inner.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        """Flower's information on those nodes."""
        wanted = set(self.get_node_ids())
        return [node for node in self.inner.get_nodes() if node.node_id in wanted]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting."""
        return self.inner.push_messages(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived, each given once."""
        return self.inner.pull_messages(list(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies."""
        return self.inner.send_and_receive(list(messages), timeout=timeout)

    def announced(self, round: Round) -> None:
        """Told before the messages of a round are configured."""


def chain(grid: Grid) -> Iterator[Grid]:
    """The grids from the outermost in."""
    yield grid
    while isinstance(grid, WrappedGrid):
        grid = grid.inner
        yield grid


def find(grid: Grid, kind: type[SomeGrid]) -> SomeGrid | None:
    """The outermost grid of a kind in the chain, if there is one."""
    return next((link for link in chain(grid) if isinstance(link, kind)), None)


def announce(grid: Grid, round: Round) -> None:
    """Tell every proxy in the chain which round begins. Grids that are not ours are left alone."""
    for link in chain(grid):
        if isinstance(link, WrappedGrid):
            link.announced(round)


@contextmanager
def undisturbed(grid: Grid) -> Iterator[None]:
    """For a whole exchange of messages: the caller's global generators are afterwards where they were.

    Does something only where clients run in threads of this process. One that still runs when the exchange ends (after
    a deadline or a quorum) goes on drawing.
    """
    if any(getattr(link, "shares_generators", False) for link in chain(grid)):
        with kept_generators():
            yield
    else:
        yield


def _stateful(grid: Grid, below: int) -> dict[str, Any]:
    """The grids of a chain that have a state, counted from the innermost out; the others make no difference."""
    links = list(reversed(list(chain(grid))))[below:]
    stateful = [link for link in links if hasattr(link, "state_dict") and hasattr(link, "load_state_dict")]
    return {f"{place}:{type(link).__name__}": link for place, link in enumerate(stateful)}


def grid_state(grid: Grid, *, below: int = 0) -> dict[str, Any]:
    """State of every grid in the chain that has some, for a checkpoint; the innermost `below` are left out."""
    return {name: link.state_dict() for name, link in _stateful(grid, below).items()}


def load_grid_state(grid: Grid, state: Mapping[str, Any], *, below: int = 0) -> None:
    """Inverse of `grid_state`, for a run that goes on where another was stopped.

    Raises:
        ResumeError: the chain is not the one the state was taken from.
    """
    own = _stateful(grid, below)
    if set(own) != set(state):
        raise ResumeError(
            f"the checkpoint was made on {_words(state)}, this run is on {_words(own)}; "
            "build the grid as the first run did"
        )
    for name, link in own.items():
        # Where a stopped run can have left something outside, the grid clears it away.
        load = getattr(link, "resume_from", link.load_state_dict)
        load(state[name])


def _words(names: Iterable[str]) -> str:
    outermost_first = sorted(names, key=lambda name: int(name.partition(":")[0]), reverse=True)
    return " around ".join(name.partition(":")[2] for name in outermost_first) or "a grid without a state"
