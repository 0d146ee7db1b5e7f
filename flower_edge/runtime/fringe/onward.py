"""`Onward`: a stage's way to the next machine. It dials when there is something to send, and measures the link.

    goodput     a frame's bytes over the time until RECEIVED came back, less the way back and what the other end says it
                kept RECEIVED for; frames that queue behind one another count from the end of the one before
    probes      where frames say too little of goodput, one that carries nothing, see `Probing`
    delay       half a round trip, probed while nothing is under way

What was sent and has no answer when the channel breaks, or after `answer_s`, has failed, and the error names the next
machine. Nothing is sent twice: who asked decides whether to ask again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import INFO, WARNING, getLogger
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from ...errors import EdgeError, TransportError, TransportRefused
from ...fringe.links import LinkEstimate
from ...transport.transport import Connection, ConnectionClosed, TransportTimeout
from .jobs import Batch
from .measures import Window
from .messages import Failed, Output, Received, probe_frame, unpack_answer
from .probing import Probing
from .settings import ServingLimits

__all__ = ["Onward"]

log = getLogger("flwr.edge")

Array = npt.NDArray[Any]

_TICK_S: Final = 0.1
_GRACE_S: Final = 0.5
_CLOSE_S: Final = 2.5
#: Frames of late of whose seconds the median is told.
_TAKEN: Final = 32


@dataclass(eq=False)
class _Sent:
    """A frame under way."""

    batch: Batch
    began_s: float
    connection: Connection


class _Timed(NamedTuple):
    """A frame that has not been said to be there yet."""

    size_bytes: int
    began_s: float
    probe: bool
    connection: Connection | None = None


class Onward:
    """To one machine at one address.

    Args:
        machine: the next one's name, for errors.
        address: where it is dialled.
        dial: opens a channel to it.
        limits: time-outs.
        behind: how many machines are behind the next. Each gives those before it some time more, so that of a machine
            that hangs its neighbour says so first.
    """

    def __init__(
        self, machine: str, address: str, dial: Callable[[], Connection], limits: ServingLimits, behind: int = 0
    ) -> None:
        self.machine, self.address = machine, address
        self._answer_s = limits.answer_s + behind * max(_GRACE_S, limits.answer_s / 4)
        self._dial, self._limits = dial, limits
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._sent: dict[int, _Sent] = {}
        # Of these no RECEIVED has come yet; an answer may come before it.
        self._unmeasured: dict[int, _Timed] = {}
        self._connection: Connection | None = None
        self._threads: list[threading.Thread] = []
        self._down_until_s, self._why = 0.0, ""
        self._estimate = LinkEstimate()
        self._probing, self._probe_bytes = Probing(limits.probe_goodput_s), 0
        self._free_s = 0.0  # when the last frame that arrived had left
        self._taken = Window(_TAKEN)
        self._bytes = 0
        self._frames = 0
        self._closing = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name=f"stage to {machine}", daemon=True)
        self._ticker.start()

    def send(self, batch: Batch, tensors: Sequence[Array]) -> None:
        """Send a batch on, one of no tensors as a frame that carries nothing; whatever comes of it, it is told.

        Waits where the network is slow.
        """
        wire = batch.held.gives
        assert wire is not None
        number = next(self._numbers)
        try:
            began_s = time.perf_counter()
            of = {"version": batch.held.number, "request": number}
            frame = wire.encode(tensors, **of) if tensors else wire.empty(**of)
            batch.written_s = time.perf_counter() - began_s
            connection = self._connected()
        except Exception as error:  # also of a tensor that its wire cannot carry
            why = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {str(error)[:200]}"
            batch.failed("unreachable" if isinstance(error, TransportError) else "failed", self.machine, why)
            return
        with self._lock:
            sent = self._sent[number] = _Sent(batch, time.monotonic(), connection)
            if tensors:
                self._unmeasured[number] = _Timed(len(frame), sent.began_s, False, connection)
                self._frames += 1
                self._bytes += len(frame)
        try:
            connection.send(frame, timeout_s=self._limits.answer_s)
        except EdgeError as error:
            if isinstance(error, TransportRefused) and error.code == "too-large":  # no other frame is to blame for it
                self._fail(number, "failed", str(error))
                return
            self._broken(connection, error)
            self._fail(number, "lost", str(error))

    def again(self) -> None:
        """Dial at once when there is something to send next: the machine has just said that it is there."""
        with self._lock:
            self._down_until_s = 0.0

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        with self._lock:
            return not self._sent

    def measures(self) -> dict[str, Any]:
        """Plain values: the link as it is taken to be, frames and bytes."""
        with self._lock:
            return {
                "to": self.machine,
                "estimate": self._estimate.state(),
                "taken": self._taken.summary(),
                "frames": self._frames,
                "bytes": self._bytes,
                "probe_bytes": self._probe_bytes,
                "goodput_age_s": time.monotonic() - self._probing.told_s if self._probing.told_s else None,
                "under_way": len(self._sent),
            }

    def close(self) -> None:
        """Fail what is under way, and end its threads, as far as they end in time."""
        self._closing.set()
        self._fail_all("closing", "this stage is stopping")
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._fail_all("closing", "this stage is stopping")
        with self._lock:
            threads = [self._ticker, *self._threads]
        until_s = time.monotonic() + _CLOSE_S
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until_s - time.monotonic()))

    # -- the channel -------------------------------------------------------------------------------------------------

    def _connected(self) -> Connection:
        with self._lock:
            if self._connection is not None:
                return self._connection
            if self._closing.is_set() or time.monotonic() < self._down_until_s:
                raise TransportError(self._why or "this stage is stopping")
        try:
            connection = self._dial()
        except EdgeError as error:
            with self._lock:
                self._why = f"cannot be reached at {self.address}: {error}"
                self._down_until_s = time.monotonic() + self._limits.retry_s
            raise TransportError(self._why) from error
        reader = threading.Thread(target=self._read, args=(connection,), name=f"answers of {self.machine}", daemon=True)
        with self._lock:
            closing = self._closing.is_set()
            if not closing:
                self._connection = connection
                self._threads = [one for one in self._threads if one.is_alive()] + [reader]
        if closing:  # `close` came while it was dialled, and has not seen it
            connection.close()
            raise TransportError("this stage is stopping")
        with self._lock:
            if connection.round_trip_s is not None:
                self._estimate = self._estimate.probed(connection.round_trip_s)
            reader.start()
        return connection

    def _broken(self, connection: Connection, error: Exception) -> None:
        with self._lock:
            if self._connection is connection:
                self._connection = None
        level = INFO if isinstance(error, ConnectionClosed) else WARNING
        log.log(level, "stage: the channel to %s at %s: %s", self.machine, self.address, error)
        # In a thread: one whose other end is gone takes a while to close.
        end = threading.Thread(target=connection.close, name=f"end of {self.machine}", daemon=True)
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()] + [end]
            end.start()

    def _read(self, connection: Connection) -> None:
        why: Exception = TransportError("the channel has ended")
        while True:
            try:
                answer = unpack_answer(connection.receive(3600.0))
                came_s = time.monotonic()
                if isinstance(answer, Received) or (isinstance(answer, Output) and answer.held_s):
                    self._arrived(answer.request, came_s, answer.held_s)
                if isinstance(answer, Received):
                    continue
                with self._lock:
                    sent = self._sent.pop(answer.request, None)
                if sent is None:
                    continue  # it came too late: its request has failed already
                if isinstance(answer, Failed):
                    self._forget(answer.request)
                    sent.batch.failed(answer.code, answer.machine, answer.message)
                elif answer.version != sent.batch.held.number:
                    other = f"answered with version {answer.version} to one of {sent.batch.held.number}; deploy anew"
                    sent.batch.failed("failed", self.machine, other)
                else:
                    try:
                        sent.batch.output(answer)
                    except EdgeError as error:
                        sent.batch.failed("failed", self.machine, str(error))
            except TransportTimeout:
                continue
            except EdgeError as error:
                why = error
                break
        if self._closing.is_set():
            return
        self._broken(connection, why)
        self._fail_all("lost", f"was lost while requests were under way: {why}", connection)

    def _arrived(self, number: int, told_s: float, held_s: float = 0.0) -> None:
        came_s = told_s - held_s
        with self._lock:
            sent = self._unmeasured.pop(number, None)
            if sent is None or came_s < sent.began_s:
                return  # nobody has a frame before it was sent, whatever is said; it says nothing of the link
            delay_s = self._estimate.delay_s
            seconds = came_s - delay_s - max(sent.began_s, self._free_s)
            self._free_s = came_s - 2 * delay_s
            before, seconds = self._estimate, max(0.0, seconds)
            if not sent.probe:
                self._taken.add(seconds)
            self._estimate = before.sent(
                sent.size_bytes,
                seconds,
                tells=sent.probe or self._probing.tells(sent.size_bytes, seconds, before, came_s),
                silent_s=self._probing.arrived(sent.size_bytes, came_s),
                probe=sent.probe,
            )
            if sent.probe:
                self._probing.moved(before, self._estimate, came_s)

    # -- what fails --------------------------------------------------------------------------------------------------

    def _fail(self, number: int, code: str, message: str) -> None:
        with self._lock:
            sent = self._sent.pop(number, None)
            self._unmeasured.pop(number, None)
        if sent is not None:
            sent.batch.failed(code, self.machine, message)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._unmeasured.pop(number, None)

    def _fail_all(self, code: str, message: str, connection: Connection | None = None) -> None:
        # Of one channel, or of all: another may be open already.
        with self._lock:
            lost = [n for n, one in self._sent.items() if connection in (None, one.connection)]
            for number in [n for n, one in self._unmeasured.items() if connection in (None, one.connection)]:
                del self._unmeasured[number]
        for number in lost:
            self._fail(number, code, message)

    def _tick(self) -> None:
        probed_s = time.monotonic()
        while not self._closing.wait(_TICK_S):
            now_s = time.monotonic()
            with self._lock:
                late = [n for n, one in self._sent.items() if now_s - one.began_s > self._answer_s]
                # Of which nobody said that they are there, though they were answered long ago.
                for n in [n for n, one in self._unmeasured.items() if now_s - one.began_s > 2 * self._answer_s]:
                    del self._unmeasured[n]
                idle = not self._sent
                connection = self._connection
            for number in late:
                self._fail(number, "late", f"gave no answer within {self._answer_s:g} s")
            if idle and connection is not None and now_s - probed_s >= self._limits.probe_s:
                probed_s = now_s
                with suppress(EdgeError):
                    seconds = connection.ping(self._limits.probe_s)
                    with self._lock:
                        if not self._sent:  # else a frame was in its way
                            self._estimate = self._estimate.probed(seconds)
            if connection is not None:
                self._probe(connection)

    def _probe(self, connection: Connection) -> None:
        """Send a frame that measures goodput, if it is time."""
        with self._lock:
            now_s = time.monotonic()
            size_bytes = self._probing.due_bytes(now_s, self._estimate, alone=not self._unmeasured)
            if not size_bytes:
                return
            number = next(self._numbers)
            self._unmeasured[number] = _Timed(size_bytes, now_s, True, connection)
            self._probe_bytes += size_bytes
        with suppress(EdgeError):  # who reads notices that the channel broke
            connection.send(probe_frame(size_bytes, number), timeout_s=self._limits.probe_s)
