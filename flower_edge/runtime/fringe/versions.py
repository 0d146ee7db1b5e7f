"""`Held`: one version on one machine; `Versions`: those it holds, which one is served, and what is under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ...errors import FringeError
from ...fringe.wire import Wire
from .measures import Window

if TYPE_CHECKING:
    from ...fringe.pipeline_torch import Part
    from .onward import Onward

__all__ = ["Held", "Versions"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Held:
    """One version on one machine.

    Attributes:
        number: of the version, at this deployment.
        part: what this machine runs.
        takes: frames that come: of requests at the entry, else of the connection before.
        gives: frames that go on; None at the last machine.
        onward: to the machine behind; None at the last.
        digest: SHA-256 of the part as it was built here.
        compute: seconds that this machine spends on a batch of it: reading its frame, computing, writing the next.
    """

    number: int
    part: Part
    takes: Wire
    gives: Wire | None
    onward: Onward | None
    digest: str
    compute: Window = field(default_factory=Window)

    @cached_property
    def step(self) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
        """What it computes, see `Part.serving`."""
        return self.part.serving()


class Versions:
    """The versions of one machine.

    Args:
        most: held at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, Held] = {}
        self._under_way: dict[int, int] = {}
        self._current: int | None = None
        self._closed = False
        self._changed = threading.Condition()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of those held."""
        with self._changed:
            return tuple(sorted(self._held))

    @property
    def held(self) -> tuple[Held, ...]:
        """All of them, by number."""
        with self._changed:
            return tuple(self._held[number] for number in sorted(self._held))

    @property
    def current(self) -> int | None:
        """The one that the entry gives to requests."""
        return self._current

    @property
    def serving(self) -> Held | None:
        """That one itself: between two looks, at its number and at what is held, it could be dropped."""
        with self._changed:
            return None if self._current is None else self._held.get(self._current)

    @property
    def under_way(self) -> int:
        """Batches that have no answer yet."""
        with self._changed:
            return sum(self._under_way.values())

    def put(self, held: Held) -> None:
        """Hold one more.

        Raises:
            FringeError: there is no room, or one of that number.
        """
        with self._changed:
            if held.number in self._held:
                raise FringeError(f"version {held.number} is here already; give the new one another number")
            self.room()
            self._held[held.number] = held

    def room(self) -> None:
        """
        Raises:
            FringeError: there is none.
        """
        if len(self._held) >= self._most:
            raise FringeError(f"{self._most} versions are held; drop one, or raise ServingLimits(versions=...)")

    def get(self, number: int) -> Held | None:
        """One of them, if it is here."""
        with self._changed:
            return self._held.get(number)

    def flip(self, number: int) -> int | None:
        """From now on requests are of this version; the number of the one before.

        Raises:
            FringeError: it is not here.
        """
        with self._changed:
            if number not in self._held:
                raise FringeError(f"version {number} is not here; load it first: {sorted(self._held)} are")
            before, self._current = self._current, number
            return before

    def begin(self, held: Held | None = None) -> Held | None:
        """A batch of this version begins; without one, of the current. None: there is none."""
        with self._changed:
            held = held or (None if self._current is None else self._held.get(self._current))
            if held is not None:
                self._under_way[held.number] = self._under_way.get(held.number, 0) + 1
            return held

    def end(self, held: Held) -> None:
        """It has its answer."""
        with self._changed:
            self._under_way[held.number] -= 1
            if not self._under_way[held.number]:
                del self._under_way[held.number]
            self._changed.notify_all()

    def drained(self, number: int, timeout_s: float) -> bool:
        """Wait until no batch of a version is under way; whether that came about in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number not in self._under_way, timeout_s)
            return number not in self._under_way

    def close(self) -> None:
        """Nobody waits for anything to drain any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drop(self, number: int) -> None:
        """Forget one. What is not here is forgotten already.

        Raises:
            FringeError: it is served.
        """
        with self._changed:
            if number == self._current:
                raise FringeError(f"version {number} is served; flip to another one before it is dropped")
            self._held.pop(number, None)
