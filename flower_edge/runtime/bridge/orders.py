"""Who asks an edge over its bridge, each served in a thread; the orders wait here for the one thread that does them.

The same order asked twice is one job. Of orders that wait the newest counts: a centre that sends another one has given
the one before up. Nothing here knows what an order is about.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import getLogger
from typing import Final

from ...errors import ProtocolError, TransportError
from .channel import Channel, Listener
from .messages import Answer, Ask, Status, digest_of

__all__ = ["Job", "Orders"]

log = getLogger("flwr.edge")

#: Programs that are connected at the same time, whoever they are.
_CONNECTIONS: Final = 64
#: From a connection to its question.
_ASK_S: Final = 10.0


@dataclass
class Job:
    """A message that waits for its answer.

    Attributes:
        ask, body: what came.
        digest: by which the same order is known.
        latest_s: on the monotonic clock; then nobody waits any more.
        answer, content: what became of it.
        done: whether that is there.
    """

    ask: Ask
    body: bytes
    digest: str
    latest_s: float
    answer: Answer | None = None
    content: bytes = b""
    done: threading.Event = field(default_factory=threading.Event)

    def end(self, answer: Answer, content: bytes = b"") -> None:
        """Let those who wait have it."""
        self.answer, self.content = answer, content
        self.done.set()


class Orders:
    """The orders of one edge.

    Args:
        status: says how things are, to whoever asks that.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self._lock = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._waiting: Job | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether no more are taken."""
        return self._ended

    def listen(self, listener: Listener) -> None:
        """Serve whoever connects, until the listener is closed."""
        threading.Thread(target=self._accept, args=(listener,), name="bridge", daemon=True).start()

    def next(self, wait_s: float) -> Job | None:
        """The order to be done next; `None` if none came within so many seconds."""
        with self._lock:
            if self._waiting is None and not self._ended:
                self._lock.wait(wait_s)
            job, self._waiting = self._waiting, None
            return job

    def finished(self, job: Job) -> None:
        """It has been ended: the same asked again is another job."""
        with self._lock:
            self._jobs.pop(job.digest, None)

    def stop(self) -> None:
        """Take no more orders; who waits in `next` need not."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def end_all(self, reason: str) -> None:
        """Take no more, and tell those who wait why."""
        self.stop()
        with self._lock:
            for job in self._jobs.values():
                if not job.done.is_set():
                    job.end(Answer(ok=False, reason=reason))

    # -- who asks ----------------------------------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> None:
        free = threading.BoundedSemaphore(_CONNECTIONS)
        while (prove := listener.accept()) is not None:
            free.acquire()
            threading.Thread(target=self._serve, args=(prove, free), name="bridge-asked", daemon=True).start()

    def _serve(self, prove: Callable[[], Channel], free: threading.BoundedSemaphore) -> None:
        try:
            with prove() as channel:
                self._talk(channel)
        except (TransportError, ProtocolError) as error:
            log.debug("edge: %s", error)
        finally:
            free.release()

    def _talk(self, channel: Channel) -> None:
        ask = Ask.from_bytes(channel.receive(latest_s=time.monotonic() + _ASK_S))
        latest_s = time.monotonic() + ask.within_s
        if ask.what == "status":
            channel.send(self._status().to_bytes(), latest_s=latest_s)
            return
        body = channel.receive(latest_s=latest_s)
        if channel.gone:
            # This process was stopped meanwhile, or is late by far: nobody would take what comes of it.
            raise TransportError("whoever asked has gone; what was asked is not begun")
        job = self._queued(ask, body, latest_s)
        if not job.done.wait(max(0.0, latest_s - time.monotonic())) or job.answer is None:
            return
        channel.send(job.answer.to_bytes(), latest_s=latest_s)
        if job.answer.ok:
            channel.send(job.content, latest_s=latest_s)

    def _queued(self, ask: Ask, body: bytes, latest_s: float) -> Job:
        """The job of this order: the one there is already, if somebody asks the same again."""
        digest = digest_of(ask, body)
        with self._lock:
            job = self._jobs.get(digest)
            if job is not None:
                job.latest_s = max(job.latest_s, latest_s)
                return job
            job = Job(ask, body, digest, latest_s)
            if self._ended:
                job.end(Answer(ok=False, reason="the edge has ended; ask again"))
                return job
            if (older := self._waiting) is not None:
                older.end(Answer(ok=False, reason="another order came before this one was begun"))
                self._jobs.pop(older.digest, None)
            self._jobs[digest] = self._waiting = job
            self._lock.notify_all()
            return job
