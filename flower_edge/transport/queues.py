"""What waits in a connection: messages to be sent, cut into pieces at a pace; and messages that have come.

Both are bounded, so a program that is too fast waits for the other end, and both can be ended from any thread, which
wakes whoever waits in them. They know neither sockets nor gRPC.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from ..errors import TransportError
from .pacing import Pace
from .pieces import ALIVE, BYE, PONG, piece
from .pulse import Pulse
from .transport import TransportTimeout

__all__ = ["Inbox", "Outbox"]

#: Messages that wait behind the one on its way, until `put` waits too.
_WAITING_MESSAGES: Final = 2
#: Messages received and not asked for; however short they are.
_UNREAD_MESSAGES: Final = 64
#: Answers to pings; a peer that asks more often than it listens gets fewer.
_WAITING_PONGS: Final = 8

Clock = Callable[[], float]


class Outbox:
    """Messages and small control pieces on their way out; `pieces` gives what to send next.

    Args:
        chunk_bytes: the longest piece.
        pulse: of the other end; whoever waits here gives up when it has stopped.
        alive_s: after so much time without a piece say ALIVE.
        clock: seconds, monotonic.
    """

    def __init__(self, chunk_bytes: int, pulse: Pulse, alive_s: float, *, clock: Clock = time.monotonic) -> None:
        self._chunk_bytes = chunk_bytes
        self._pulse = pulse
        self._alive_s = alive_s
        self._said_s = clock()
        self._clock = clock
        self._changed = threading.Condition()
        self._pace = Pace(clock=clock)
        # Whether nothing has waited to be sent since the last message: its successor has no time to make up for.
        self._rested = True
        self._control: deque[bytes] = deque()
        self._waiting: deque[bytes] = deque()
        self._current: bytes | None = None
        self._start = 0
        self._began_s = 0.0
        # The piece being paced; its last byte may have been handed out without the network having taken it.
        self._booked: bytes | None = None
        self._size = 0
        self._handed = False
        self._error: TransportError | None = None
        self._last = False
        self._answered = False
        self._dropped = False
        self._over = False
        self.sent_bits = 0
        self.sent_messages = 0
        self.sending_s = 0.0

    def put(self, payload: bytes, timeout_s: float) -> None:
        """Wait for room and queue a message.

        Raises:
            TransportError: no room in time, or ended.
        """
        with self._changed:
            self._wait(lambda: len(self._waiting) < _WAITING_MESSAGES, timeout_s, "the other end takes nothing")
            self._waiting.append(payload)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Wait until the network has taken everything, whatever happened afterwards; errors as `put`."""
        with self._changed:
            self._wait(self._all_left, timeout_s, "the other end takes nothing", also_ended=True)

    def control(self, data: bytes) -> None:
        """Queue a control piece; it overtakes messages."""
        with self._changed:
            if data[0] == PONG and len(self._control) >= _WAITING_PONGS:
                return
            self._control.append(data)
            self._changed.notify_all()

    def pace(self, bps: float | None) -> None:
        """Another rate, also for the piece that is waiting."""
        with self._changed:
            self._pace.change(bps)
            self._changed.notify_all()

    def finish(self, error: TransportError, *, answered: bool = False) -> None:
        """Take no more and say BYE after what is queued.

        `answered`: the other end has said its own; it wants nothing any more, and `pieces` ends with our BYE.
        """
        with self._changed:
            self._error = self._error or error
            if answered:
                self._answered = True
                # It has what it wanted, so the network has taken what was handed over.
                self._taken()
                self._dropped = self._dropped or bool(self._waiting) or self._current is not None
                self._waiting.clear()
                self._current = self._booked = None
            self._last = True
            self._changed.notify_all()

    def stop(self, error: TransportError) -> None:
        """End `pieces` now."""
        with self._changed:
            self._error = self._error or error
            self._over = True
            self._changed.notify_all()

    def pieces(self) -> Iterator[bytes]:
        """What to send, as it may leave, until both ends said BYE or `stop`.

        Asking for the next one means that the network has taken the last.
        """
        said_bye = False
        while True:
            with self._changed:
                self._taken()
                data = None
                while data is None:
                    if self._over or (said_bye and self._answered):
                        return
                    if self._control:
                        data = self._control.popleft()
                        break
                    wait_s = self._prepare()
                    if wait_s == 0.0:
                        data = self._leave()
                    elif self._last and self._empty() and not said_bye:
                        data, said_bye = bytes([BYE]), True
                    elif not said_bye and self._clock() - self._said_s >= self._alive_s:
                        data = bytes([ALIVE])
                    else:
                        silent_s = math.inf if said_bye else self._said_s + self._alive_s - self._clock()
                        wait_s = min(silent_s, math.inf if wait_s is None else wait_s)
                        self._changed.wait(None if wait_s == math.inf else max(0.0, wait_s))
                self._said_s = self._clock()
            yield data

    def _prepare(self) -> float | None:
        """Seconds until the next piece of a message may leave; None where there is none."""
        if self._current is None:
            if not self._waiting:
                self._rested = True
                return None
            self._current, self._start = self._waiting.popleft(), 0
            if self._rested:
                self._pace.begin()
                self._rested = False
            self._began_s = self._clock()
            self._changed.notify_all()
        if self._booked is None:
            size = self._pace.piece_bytes(self._chunk_bytes)
            self._booked = piece(self._current, self._start, size)
            self._pace.book(8 * len(self._booked))
            self._size = min(size, len(self._current) - self._start)
        return self._pace.wait_s()

    def _leave(self) -> bytes:
        assert self._current is not None
        assert self._booked is not None
        data, self._booked = self._booked, None
        self._start += self._size
        self.sent_bits += 8 * self._size
        self._handed = True
        if self._start >= len(self._current):
            self._current = None
        return data

    def _taken(self) -> None:
        """The network has taken what was handed over."""
        if self._handed:
            self._handed = False
            if self._current is None:
                self.sending_s += self._clock() - self._began_s
                self.sent_messages += 1
            self._changed.notify_all()

    def _all_left(self) -> bool:
        return self._empty() and not self._dropped

    def _empty(self) -> bool:
        return not self._waiting and self._current is None and not self._handed

    def _wait(self, ready: Callable[[], bool], timeout_s: float, why: str, *, also_ended: bool = False) -> None:
        until_s = self._clock() + timeout_s
        while self._error is None and not ready():
            left_s = until_s - self._clock()
            if left_s <= 0.0:
                raise TransportTimeout(f"nothing could be sent within {timeout_s:g} s: {why}")
            self._changed.wait(min(left_s, self._pulse.left_s()))
        if self._error is not None and not (also_ended and ready()):
            raise again(self._error)


class Inbox:
    """Messages that have come and nobody has asked for yet.

    Args:
        most_bytes: of all of them; one alone may always wait.
        pulse: of the other end; whoever waits here gives up when it has stopped.
        clock: seconds, monotonic.
    """

    def __init__(self, most_bytes: int, pulse: Pulse, *, clock: Clock = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._pulse = pulse
        self._clock = clock
        self._changed = threading.Condition()
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._error: TransportError | None = None
        self._dropping = False

    def put(self, message: bytes) -> None:
        """Wait for room and keep a message; dropped where nobody will ask for it."""
        with self._changed:
            while not self._dropping and self._messages and not self._room(len(message)):
                self._changed.wait()
            if not self._dropping:
                self._messages.append(message)
                self._bytes += len(message)
                self._changed.notify_all()

    def get(self, timeout_s: float) -> bytes:
        """The oldest message.

        Raises:
            TransportError: none in time; or none left, and it has ended.
        """
        with self._changed:
            until_s = self._clock() + timeout_s
            while not self._messages:
                if self._error is not None:
                    raise again(self._error)
                left_s = until_s - self._clock()
                if left_s <= 0.0:
                    raise TransportTimeout(f"no message came within {timeout_s:g} s")
                self._changed.wait(min(left_s, self._pulse.left_s()))
            message = self._messages.popleft()
            self._bytes -= len(message)
            self._changed.notify_all()
            return message

    def end(self, error: TransportError, *, drop: bool = False) -> None:
        """Nothing more will come, for this reason; with `drop` what has come is given up as well."""
        with self._changed:
            self._error = self._error or error
            if drop:
                self._dropping = True
                self._messages.clear()
                self._bytes = 0
            self._changed.notify_all()

    def _room(self, more_bytes: int) -> bool:
        return len(self._messages) < _UNREAD_MESSAGES and self._bytes + more_bytes <= self._most_bytes


def again(error: TransportError) -> TransportError:
    """The same error as a new object: one that is raised twice would collect both tracebacks.

    >>> again(TransportTimeout("nobody came"))
    TransportTimeout('nobody came')
    """
    code = getattr(error, "code", None)
    fresh = type(error).__new__(type(error), *error.args)
    fresh.args = error.args
    if code is not None:
        fresh.code = code  # type: ignore[attr-defined]
    return fresh
