"""`Link`: one agent's way to another, over which packets of its node leave one after the other.

A thread of its own. It dials when there is something to deliver, keeps the connection while both are neighbours,
notices when it ends, and goes on where it was cut. Where the other agent cannot be reached for a while, what waits is
handed to somebody else: the link to the relay.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Final, Protocol

from ...errors import TransportError, TransportRefused
from ...peers.round_table import Card
from ...transport.transport import Connection
from .exchange import Answers, Chunks, Delivered, Outgoing, deliver
from .headers import SignedHeader
from .posts import Post
from .settings import AgentLimits

__all__ = ["DONE", "LATER", "Job", "Link", "LinkOwner"]

log = getLogger("flwr.edge")

#: Answers after which a receiver needs a letter no more, and those after which one tries again.
DONE: Final = frozenset(["ok", "have", "superseded"])
LATER: Final = frozenset(["not-yet", "no-room", "busy", "other-run", "not-here-yet", "closing", "bad-digest", "failed"])
_FIRST_PAUSE_S: Final = 0.05
_MOST_TRIES: Final = 5
#: The longest that one try to reach a neighbour takes.
_MOST_DIAL_S: Final = 20.0


@dataclass
class Job:
    """A packet for one receiver."""

    post: Post
    dst: int
    tries: int = 0

    @property
    def key(self) -> tuple[int, int, int]:
        """In which order jobs leave."""
        return self.post.round, self.post.sequence, self.dst


class LinkOwner(Protocol):
    """Whom a link asks and tells; called from its thread, without its lock."""

    limits: AgentLimits

    def dial(self, card: Card, timeout_s: float) -> Connection:
        """A connection to that agent, proved to be it."""

    def sign(self, job: Job) -> SignedHeader:
        """The header of a job's letter."""

    def rate_bps(self, dst: int) -> float | None:
        """The most to send to a node now."""

    def direct_s(self) -> float:
        """For how long to try to reach somebody."""

    def ended(self, job: Job, told: Delivered, *, relay: bool) -> None:
        """An attempt was answered."""

    def failed(self, job: Job, code: str) -> None:
        """An attempt was not answered, or the connection was refused."""

    def gave_up(self, job: Job) -> None:
        """The other agent will never take it."""

    def lost(self, name: str, error: TransportError) -> None:
        """A connection has ended that neither end closed."""


class Link:
    """See above.

    Args:
        name: of the neighbour, or `relay`.
        owner: see `LinkOwner`.
        card: the other agent, as known now; None: it is no neighbour any more.
        instead: takes jobs that cannot be delivered here, and says whether it does; it is asked after `direct_s`.
        relay: whether the other agent relays.
    """

    def __init__(
        self,
        name: str,
        owner: LinkOwner,
        card: Callable[[], Card | None],
        instead: Callable[[list[Job]], bool],
        *,
        relay: bool = False,
    ) -> None:
        self.name, self.relay = name, relay
        self._owner, self._card, self._instead = owner, card, instead
        self._changed = threading.Condition()
        self._jobs: dict[tuple[int, int, int], Job] = {}
        self._connection: Connection | None = None
        self._answers: Answers | None = None
        self._connected_to: Card | None = None
        self._now: Job | None = None
        self._chunks = Chunks()
        self._closing = False
        self._kicked = False
        #: `idle`, `connected`, `lost` or `unreachable`.
        self.state = "idle"
        self.state_s = time.monotonic()
        self._cut_s: float | None = None
        self._dials = 1  # times `direct_s`, for the next try
        self._again_s = 0.0
        self._thread = threading.Thread(target=self._work, name=f"flower-edge link {name}", daemon=True)
        self._thread.start()

    # -- from other threads ------------------------------------------------------------------------------------------

    def put(self, job: Job, *, afresh: bool = False) -> None:
        """Deliver this; `afresh`: try directly whatever happened before."""
        with self._changed:
            self._jobs[job.key] = job
            if afresh:
                self._again_s = 0.0
            self._changed.notify_all()

    def drop(self, unwanted: Callable[[Job], bool]) -> None:
        """Give up jobs that have not begun."""
        with self._changed:
            for key in [key for key, job in self._jobs.items() if job is not self._now and unwanted(job)]:
                del self._jobs[key]
            self._changed.notify_all()

    def kick(self) -> None:
        """Something has changed: another rate, another card, another round."""
        with self._changed:
            if self._connection is not None and self._now is not None:
                self._connection.pace(self._owner.rate_bps(self._now.dst))
            self._kicked = True
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        with self._changed:
            return len(self._jobs)

    def told(self) -> dict[str, Any]:
        """For a status."""
        with self._changed:
            since_s = time.monotonic() - self.state_s
            return {"to": self.name, "state": self.state, "since_s": since_s, "waiting": len(self._jobs)}

    def close(self) -> None:
        """End it; what is not delivered is for the next start. `join` waits for it."""
        with self._changed:
            self._closing = True
            connection = self._connection
            self._changed.notify_all()
        if connection is not None:
            connection.close()

    def join(self, timeout_s: float) -> None:
        """Wait until its thread has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    # -- its own thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while (job := self._next()) is not None:
            before_s = time.monotonic()
            try:
                code, why = self._try(job)
            except TransportRefused as refused:
                self._disconnect("idle")
                self._owner.failed(job, refused.code)
                # Who is no neighbour yet may be one when the other agent has been told of the round.
                code, why = ("not-here-yet" if refused.code == "not-neighbour" else refused.code), str(refused)
            except TransportError as error:
                if self._closing:
                    break
                self._disconnect("lost")
                self._owner.failed(job, "lost")
                code, why = "", str(error)
            except Exception:
                log.exception("a packet for node %d could not be sent", job.dst)
                self._disconnect("idle")
                code, why = "error", "see the log"
            if code:
                self._cut_s = None
            if code == "":
                self._cut_s = self._cut_s or before_s
                if time.monotonic() - self._cut_s >= self._owner.direct_s() and self._hand_over(why):
                    pause_s = _FIRST_PAUSE_S
                    continue
            elif code in DONE:
                self._end(job)
                pause_s = _FIRST_PAUSE_S
                continue
            elif code not in LATER or (code == "bad-digest" and job.tries >= _MOST_TRIES):
                log.warning("the packet of round %d to node %d is given up: %s", job.post.round, job.dst, why)
                self._owner.gave_up(job)
                self._end(job)
                continue
            self._rest(pause_s)
            pause_s = min(self._owner.limits.retry_s, 2.0 * pause_s)
        self._disconnect("idle")

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closing:
                if self._connection is not None and self._card() != self._connected_to:
                    self._let_go("idle")
                if self._jobs:
                    self._now = self._jobs[min(self._jobs)]
                    self._kicked = False
                    return self._now
                self._now = None
                self._changed.wait()
            return None

    def _rest(self, pause_s: float) -> None:
        with self._changed:
            self._now = None
            if not self._kicked and not self._closing:
                self._changed.wait(pause_s)

    def _end(self, job: Job) -> None:
        with self._changed:
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]
            self._now = None

    def _hand_over(self, why: str) -> bool:
        with self._changed:
            jobs = [self._jobs[key] for key in sorted(self._jobs)]
        if not self._instead(jobs):
            return False
        log.info("%s cannot be reached (%s): %d packets take another way", self.name, why, len(jobs))
        with self._changed:
            for job in jobs:
                if self._jobs.get(job.key) is job:
                    del self._jobs[job.key]
            self._now, self._cut_s = None, None
            self._again_s = time.monotonic() + self._owner.limits.direct_again_s
            self._say("unreachable")
        return True

    def _try(self, job: Job) -> tuple[str, str]:
        if time.monotonic() < self._again_s and self._connection is None and self._instead([job]):
            return "have", "it took another way"
        job.tries += 1
        connection, answers = self._connect()
        rate = self._owner.rate_bps
        connection.pace(rate(job.dst))
        try:
            fd = os.open(job.post.path, os.O_RDONLY)
        except FileNotFoundError:
            return "have", "it was given up meanwhile"
        try:
            letter = Outgoing(self._owner.sign(job), fd, 0)
            told = deliver(
                connection, answers, letter, self._chunks, self._owner.limits, rate_bps=lambda: rate(job.dst)
            )  # fmt: skip
        except TransportRefused:
            raise
        except TransportError:
            self._chunks.cut()
            raise
        finally:
            os.close(fd)
        self._owner.ended(job, told, relay=self.relay)
        return told.code, told.why

    def _connect(self) -> tuple[Connection, Answers]:
        with self._changed:
            if self._connection is not None and self._answers is not None:
                if self._answers.error is None:
                    return self._connection, self._answers
                self._let_go("lost")
        card = self._card()
        if card is None:
            raise TransportRefused(f"{self.name} is no neighbour any more", "not-here-yet")
        try:
            connection = self._owner.dial(card, min(_MOST_DIAL_S, self._dials * self._owner.direct_s()))
        except TransportError:
            # A handshake takes several round trips: over a link of some hundred milliseconds longer than a neighbour is
            # waited for at first.
            self._dials *= 2
            raise
        self._dials = 1
        answers = Answers(connection, lambda error: self._lost(connection, error))
        with self._changed:
            self._connection, self._answers, self._connected_to = connection, answers, card
            self._say("connected")
            if self._closing:
                raise TransportError("this agent is stopping")
        return connection, answers

    def _lost(self, connection: Connection, error: TransportError) -> None:
        with self._changed:
            if connection is not self._connection or self._closing:
                return
            self._say("lost")
        self._owner.lost(self.name, error)

    def _disconnect(self, state: str) -> None:
        with self._changed:
            self._let_go(state)

    def _let_go(self, state: str) -> None:
        connection, self._connection, self._answers = self._connection, None, None
        self._connected_to = None
        self._say(state)
        if connection is not None:
            threading.Thread(target=connection.close, name="flower-edge closing", daemon=True).start()

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state, self.state_s = state, time.monotonic()
