"""A controller's and a client's ends of the channels to stages: `ControlChannel` asks one thing, `RequestChannel` many.

Both dial when they are first used and again after they broke. Nothing here knows versions or pipelines.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import EdgeError, FringeError, NotServed, ProtocolError, TransportError
from ...fringe.wire import Wire
from ...transport.transport import Connection, TransportTimeout
from .messages import Answer, Failed, Output, pack_tree, unpack_answer, unpack_tree

__all__ = ["ControlChannel", "RequestChannel", "Served"]

Array = npt.NDArray[Any]
Dial = Callable[[], Connection]


class Served(NamedTuple):
    """A request's answer: what came out [batch, ...], of which version, and after how long, seen by who asked."""

    output: Array
    version: int
    seconds_s: float


class ControlChannel:
    """To one stage.

    Args:
        machine: its name, for errors.
        dial: opens a channel.
        answer_s: how long an answer may take.
    """

    def __init__(self, machine: str, dial: Dial, answer_s: float) -> None:
        self.machine = machine
        self._dial, self._answer_s = dial, answer_s
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def ask(self, ask: str, **what: Any) -> dict[str, Any]:
        """What the stage says to it.

        Raises:
            TransportError: it cannot be reached, or broke off; what was asked may have been done.
            FringeError: it says that it cannot.
        """
        message = pack_tree({"ask": ask, **what})
        with self._lock:
            fresh = self._connection is None
            try:
                answer = self._exchange(message)
            except TransportTimeout:
                self._drop()
                raise
            except TransportError:
                self._drop()
                if fresh:
                    raise
                # The stage may have been started anew since: what it held is gone, so asking again does no harm.
                answer = self._exchange(message)
        if answer.get("error") is not None:
            raise FringeError(f"machine {self.machine!r}: {answer['error']}")
        said = answer.get("said")
        if not isinstance(said, dict):
            raise FringeError(f"machine {self.machine!r} says {said!r:.60} to {ask!r}; expected names and values")
        return said

    def close(self) -> None:
        """End it. Safe to call twice."""
        with self._lock:
            self._drop()

    def _exchange(self, message: bytes) -> dict[str, Any]:
        if self._connection is None:
            self._connection = self._dial()
        self._connection.send(message, timeout_s=self._answer_s)
        return unpack_tree(self._connection.receive(self._answer_s))

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Asked(NamedTuple):
    future: Future[Served]
    began_s: float
    connection: Connection
    samples: int


class RequestChannel:
    """To the entry, for any number of requests at once.

    Args:
        machine: the entry's name, for errors.
        dial: opens a channel.
    """

    def __init__(self, machine: str, dial: Dial) -> None:
        self._machine, self._dial = machine, dial
        self._lock = threading.Lock()
        self._dialling = threading.Lock()
        self._connection: Connection | None = None
        self._readers: list[threading.Thread] = []
        self._asked: dict[int, _Asked] = {}
        self._numbers = itertools.count(1)
        self._closed = False

    def ask(self, wire: Wire, x: Array | None) -> Future[Served]:
        """Send a request; its answer comes in the future, or a `NotServed`.

        None: one that carries nothing and is computed by nobody; it is answered with no samples.

        Raises:
            FringeError, CodecError: a tensor that the entry does not take.
        """
        number, began_s = next(self._numbers), time.monotonic()
        data = wire.empty(request=number) if x is None else wire.encode([x], request=number)
        future: Future[Served] = Future()
        # Nobody can take it back: who cancelled it would leave the thread that reads answers with one too many.
        future.set_running_or_notify_cancel()
        try:
            connection = self._connected()
            with self._lock:
                self._asked[number] = _Asked(future, began_s, connection, 0 if x is None else len(x))
            connection.send(data)
        except EdgeError as error:
            with self._lock:
                self._asked.pop(number, None)
            if not future.done():
                future.set_exception(NotServed(f"entry {self._machine!r}: {error}", "unreachable"))
        return future

    def close(self) -> None:
        """End it; requests under way fail. Safe to call twice."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
            readers = list(self._readers)
        if connection is not None:
            connection.close()
        for reader in readers:
            reader.join(10.0)

    def _connected(self) -> Connection:
        with self._dialling:
            with self._lock:
                if self._connection is not None:
                    return self._connection
                if self._closed:
                    raise TransportError("this deployment is closed")
            connection = self._dial()
            reader = threading.Thread(target=self._read, args=(connection,), name="answers", daemon=True)
            with self._lock:
                self._connection = connection
                self._readers = [one for one in self._readers if one.is_alive()] + [reader]
            reader.start()
            return connection

    def _read(self, connection: Connection) -> None:
        why: Exception = TransportError("the channel has ended")
        while True:
            try:
                answer = unpack_answer(connection.receive(3600.0))
            except TransportTimeout:
                continue
            except EdgeError as error:
                why = error
                break
            with self._lock:
                asked = self._asked.pop(answer.request, None)
            if asked is None:
                continue
            try:
                served = _served(answer, asked)
            except Exception as error:
                asked.future.set_exception(error)
            else:
                asked.future.set_result(served)
        with self._lock:
            if self._connection is connection:
                self._connection = None
            lost = [number for number, one in self._asked.items() if one.connection is connection]
            futures = [self._asked.pop(number).future for number in lost]
        for future in futures:
            future.set_exception(
                NotServed(f"entry {self._machine!r} was lost while requests were under way: {why}", "lost")
            )
        connection.close()


def _served(answer: Answer, asked: _Asked) -> Served:
    """
    Raises:
        NotServed: it says so, or is no answer to what was asked.
    """
    if isinstance(answer, Failed):
        raise answer.error()
    try:
        if not isinstance(answer, Output):
            raise ProtocolError("that it has arrived; expected what came out")
        # No body: nothing was asked, and nothing computed.
        output = answer.tensor() if answer.body or asked.samples else np.empty(0, np.float32)
        if len(output) != asked.samples:
            raise ProtocolError(f"{len(output)} samples to {asked.samples}; does the model keep its batch?")
    except ProtocolError as error:
        raise NotServed(f"an answer that cannot be: {error}", "failed") from error
    return Served(output, answer.version, time.monotonic() - asked.began_s)
