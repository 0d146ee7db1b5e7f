"""`Replies`: answers to who asked over one channel. Whoever does not take them loses the channel, and so knows it.

The thread that answers serves others, too: it waits for one that does not read once, not with each answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from logging import getLogger
from typing import Final

from ...errors import TransportError, TransportRefused
from ...transport.transport import Connection, TransportTimeout
from .messages import Answer, Failed, Output, pack_answer

__all__ = ["Replies"]

log = getLogger("flwr.edge")

_REPLY_S: Final = 5.0


class Replies:
    """Call it with an answer; it never raises. Threads may call it.

    Args:
        machine: whose answers, for errors.
        connection: to who asked.
        left_s: how long answers may still take; below 0: no longer.
    """

    def __init__(self, machine: str, connection: Connection, left_s: Callable[[], float]) -> None:
        self._machine, self._connection, self._left_s = machine, connection, left_s
        self._gone = threading.Event()

    def __call__(self, answer: Answer) -> None:
        if self._gone.is_set():
            return
        try:
            self._send(answer)
        except TransportRefused as error:
            if error.code == "too-large" and isinstance(answer, Output):
                self(Failed(answer.request, answer.version, "failed", self._machine, f"its answer: {error}"))
        except TransportTimeout as error:
            # It would wait for this answer without end: answers come once.
            self._gone.set()
            log.warning("stage %s: %s takes no answers: %s", self._machine, self._connection.peer.address, error)
            threading.Thread(target=self._connection.close, name="end of who does not read", daemon=True).start()
        except TransportError:  # who is gone knows by himself that there was no answer
            self._gone.set()

    def _send(self, answer: Answer) -> None:
        self._connection.send(pack_answer(answer), timeout_s=min(_REPLY_S, max(0.0, self._left_s())))
