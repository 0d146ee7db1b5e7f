"""`Lanes`: jobs that happen at the same time, run one at a time in the order of virtual time.

A discrete-event simulation without callbacks: every job is ordinary code in a greenlet of its own, and says when it
lets time pass (`sleep_until`, `wait_for`). Then whoever is due next goes on; nobody is interrupted anywhere else. The
program that spawns the first lane is a lane as well.

No messages and no Grid here, no threads, and no real time: the order depends on the times and on nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from ...errors import ConfigError, ProtocolError
from ..generators import blocks_open, set_aside

__all__ = ["Lane", "LaneCancelled", "Lanes"]

T = TypeVar("T")


class LaneCancelled(BaseException):
    """Raised inside a lane that is cancelled, where it lets time pass; let it through."""


class Lane(Generic[T]):
    """One job on its way. Made by `Lanes.spawn`.

    Attributes:
        number: how many-th lane, from 1; 0 is the main program.
        begun_s: virtual time at which it was spawned.
        ended_s: virtual time at which its job ended; `None` while it is open.
    """

    def __init__(self, lanes: Lanes, job: Callable[[], T] | None, number: int) -> None:
        self.number = number
        self.begun_s = lanes.now_s
        self.ended_s: float | None = None
        self._lanes, self._job = lanes, job
        self._greenlet: Any = None
        self._cancelled = False
        self._place = 0  # in the order in which lanes ended
        self._blocks = blocks_open()
        self._values: list[T] = []
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        until = "" if self.ended_s is None else f", ended at {self.ended_s:g} s"
        return f"<Lane {self.number}, begun at {self.begun_s:g} s{until}>"

    @property
    def ended(self) -> bool:
        """Whether there is a result, be it an exception."""
        return self.ended_s is not None

    def result(self) -> T:
        """What the job returned.

        Raises:
            Exception: what the job raised, with its traceback.
            ConfigError: the job has not ended yet.
            ProtocolError: it was cancelled.
        """
        if not self.ended:
            raise ConfigError(f"{self!r} has no result yet; call wait_for([lane]) first")
        if isinstance(self._error, LaneCancelled):
            raise ProtocolError(f"{self!r} was cancelled and has no result")
        if self._error is not None:
            raise self._error
        return self._values[0]


class Lanes:
    """Runs lanes in the order of virtual time.

    Args:
        now_s: the virtual time at which they begin.

    Attributes:
        now_s: the virtual time of the lane that runs, and so of all: it never runs backwards.

    >>> lanes, told = Lanes(), []
    >>> def job(name, pause_s):
    ...     for _ in range(2):
    ...         lanes.sleep_until(lanes.now_s + pause_s)
    ...         told.append((name, lanes.now_s))
    >>> _ = lanes.wait_for([lanes.spawn(lambda: job("a", 3.0)), lanes.spawn(lambda: job("b", 2.0))])
    >>> told
    [('b', 2.0), ('a', 3.0), ('b', 4.0), ('a', 6.0)]
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self._getcurrent: Callable[[], Any]
        self._main: Lane[None] = Lane(self, None, 0)
        self._running: Lane[Any] = self._main
        self._open: dict[Lane[Any], None] = {}  # without the main one, in the order of spawning
        self._spawned = self._ended = self._turns = 0
        self._queue: list[tuple[float, int, Lane[Any]]] = []
        self._due: dict[Lane[Any], tuple[float, int]] = {}  # which entry of the queue counts
        self._waits: dict[Lane[Any], tuple[list[Lane[Any]], int]] = {}

    @property
    def current(self) -> Lane[Any]:
        """The lane that runs.

        Raises:
            ConfigError: asked from a thread other than that of the lanes.
        """
        self.check_caller()
        return self._running

    def check_caller(self) -> None:
        """Refuse whoever is not in the lane that runs.

        Raises:
            ConfigError: called from a thread other than that of the lanes.
        """
        if self._open and self._getcurrent() is not self._running._greenlet:
            raise ConfigError(
                f"thread {threading.current_thread().name!r} is not in the lane that runs: all lanes of a clock live "
                "in the thread that spawned the first; send messages and let time pass from there"
            )

    @property
    def open(self) -> tuple[Lane[Any], ...]:
        """Lanes that have not ended, in the order of spawning; the main program is not among them."""
        return tuple(self._open)

    # -- letting time pass -------------------------------------------------------------------------------------------

    def spawn(self, job: Callable[[], T]) -> Lane[T]:
        """A lane that begins now, as soon as the caller lets time pass. It sees the caller's context variables."""
        # Only whoever spawns lanes needs it.
        from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

        self._getcurrent = getcurrent
        caller = self.current
        if not self._open:
            self._main._greenlet, self._main._blocks = getcurrent(), blocks_open()
        self._spawned += 1
        lane = Lane(self, job, self._spawned)
        # Control comes back to the main program wherever a lane sleeps or ends: it is the one that picks the next.
        lane._greenlet = greenlet(lambda: self._run(lane), parent=self._main._greenlet)
        lane._greenlet.gr_context = copy_context()
        self._open[lane] = None
        lane._cancelled = caller._cancelled
        self._queue_up(lane, self.now_s)
        return lane

    def sleep_until(self, time_s: float) -> None:
        """Let time pass until `time_s`, or let the others of the present time run where that is over already.

        Lanes with an earlier time run first; among equal times, whoever went to sleep or was spawned first.
        """
        lane = self.current
        self._check_cancelled(lane)
        self._queue_up(lane, time_s)
        self._give_way(lane)

    def wait_for(self, lanes: Iterable[Lane[T]], count: int | None = None) -> list[Lane[T]]:
        """Sleep until `count` of these lanes have ended (default: all), and return those that have.

        Does not let time pass where enough have ended already.

        Returns:
            In the order in which they ended; more than `count` where others ended at the same time or before.

        Raises:
            ConfigError: more lanes are waited for than there are, or lanes of another clock, or the caller itself;
                or lanes that wait for each other.
        """
        awaited = list(dict.fromkeys(lanes))
        needed = len(awaited) if count is None else count
        caller = self.current
        if not 0 <= needed <= len(awaited):
            raise ConfigError(f"wait_for({len(awaited)} lanes, count={count}): expected 0 to {len(awaited)}")
        for lane in awaited:
            if lane is caller or lane._lanes is not self:
                whose = "itself" if lane is caller else "a lane of another clock"
                raise ConfigError(f"{caller!r} cannot wait for {whose}; give it lanes that this clock has spawned")
        if sum(lane.ended for lane in awaited) < needed:
            self._check_cancelled(caller)
            self._waits[caller] = awaited, needed
            self._give_way(caller)
        return sorted((lane for lane in awaited if lane.ended), key=lambda lane: lane._place)

    def hasten(self, lane: Lane[Any], time_s: float) -> None:
        """Wake a sleeping lane at `time_s`, where that is earlier than the time it sleeps until."""
        if lane in self._due and time_s < self._due[lane][0]:
            self._queue_up(lane, time_s)

    def cancel(self, lanes: Sequence[Lane[Any]] | None = None) -> None:
        """End lanes that are still open (default: all but the caller) by raising `LaneCancelled` inside them.

        Their `finally` blocks run now. A lane that has not begun never will.
        """
        caller = self.current
        for lane in self.open if lanes is None else lanes:
            if lane.ended or lane is caller:
                continue
            lane._cancelled = True
            asleep = self._due.pop(lane, None) is not None or self._waits.pop(lane, None) is not None
            if not lane._greenlet:
                lane._error = LaneCancelled()
                self._end(lane)
            elif asleep:
                # It comes back here, and not to the main program.
                lane._greenlet.parent = self._getcurrent()
                self._enter(lane, lambda greenlet: greenlet.throw(LaneCancelled))
            # Any other is itself cancelling, further up: it raises where it next lets time pass.

    # -- whose turn it is --------------------------------------------------------------------------------------------

    def _check_cancelled(self, lane: Lane[Any]) -> None:
        if lane._cancelled:
            raise LaneCancelled

    def _queue_up(self, lane: Lane[Any], time_s: float) -> None:
        self._turns += 1
        entry = max(time_s, self.now_s), self._turns
        self._due[lane] = entry
        heappush(self._queue, (*entry, lane))

    def _next(self) -> Lane[Any] | None:
        """The lane that is due first; from now on it is its time."""
        while self._queue:
            time_s, turn, lane = heappop(self._queue)
            if self._due.get(lane) == (time_s, turn):
                del self._due[lane]
                self.now_s = time_s
                return lane
        return None

    def _give_way(self, lane: Lane[Any]) -> None:
        """Return when it is this lane's turn."""
        if lane is not self._main:
            # Generators that the lane has seeded for itself are none of the others' business.
            with set_aside(lane._blocks):
                self._main._greenlet.switch()
        elif self._open:
            with set_aside(lane._blocks):
                self._run_until_due()
        else:
            self._run_until_due()

    def _run_until_due(self) -> None:
        """The main program's part of `_give_way`: let lanes run until it is its own turn."""
        try:
            while (due := self._next()) is not self._main:
                if due is None:
                    names = ", ".join(f"{waiting!r}" for waiting in self._waits if waiting is not self._main)
                    raise ConfigError(f"lanes wait for each other, and nobody else is left: {names or 'the main one'}")
                self._enter(due, lambda greenlet: greenlet.switch())
        except BaseException:
            self._due.pop(self._main, None)
            self._waits.pop(self._main, None)
            raise

    def _enter(self, lane: Lane[Any], how: Callable[[Any], Any]) -> None:
        before, self._running = self._running, lane
        try:
            how(lane._greenlet)
        finally:
            self._running = before

    def _run(self, lane: Lane[T]) -> None:
        try:
            assert lane._job is not None
            lane._values.append(lane._job())
        except (Exception, LaneCancelled) as error:
            lane._error = error
        except BaseException as error:
            # Ctrl-C is nobody's result: it ends the main program's wait.
            lane._error = error
            raise
        finally:
            self._end(lane)

    def _end(self, lane: Lane[Any]) -> None:
        self._ended += 1
        lane.ended_s, lane._place = self.now_s, self._ended
        lane._job = lane._greenlet = None
        self._open.pop(lane, None)
        self._due.pop(lane, None)
        for waiting, (awaited, needed) in list(self._waits.items()):
            if lane in awaited and sum(one.ended for one in awaited) >= needed:
                del self._waits[waiting]
                self._queue_up(waiting, self.now_s)
