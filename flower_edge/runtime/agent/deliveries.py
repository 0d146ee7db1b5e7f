"""`Deliveries`: the packets of this node on their way to its neighbours, over a link each, or through the relay.

    mailbox -> post -> Posts -> Link per neighbour -> its agent            Link to the relay, where that fails

A packet is in a file until everybody has acknowledged it. Nothing here takes letters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any, Final

from ...errors import PeerError, TransportError
from ...peers.round_table import Card
from ...transport.signing import Signer
from ...transport.transport import Connection
from .counters import Counters, RoundFigures
from .dialling import LETTERS, Dialler
from .exchange import Delivered
from .headers import LetterHeader, SignedHeader
from .link import DONE, Job, Link
from .posts import Post, Posts
from .settings import AgentLimits
from .tables import Standing

__all__ = ["Deliveries"]

log = getLogger("flwr.edge")

_RELAY: Final = "relay"


class Deliveries:
    """See above; it is its links' `LinkOwner`.

    Args:
        folder: of the run; packets in it go on.
        standing: where neighbours are, and how fast to send to them.
        signer, dialler: this agent's.
        limits, counters, figures: what bounds it, and what is told.
        changed: of the run.
        durable: as of `LetterFiles`.
    """

    def __init__(
        self,
        folder: Path,
        standing: Standing,
        signer: Signer,
        dialler: Dialler,
        limits: AgentLimits,
        counters: Counters,
        figures: RoundFigures,
        changed: threading.Condition,
        *,
        durable: bool = False,
    ) -> None:
        self.limits = limits
        self._standing, self._signer, self._dialler = standing, signer, dialler
        self._counters, self._figures, self._changed = counters, figures, changed
        self._posts = Posts(folder, durable=durable)
        self._links: dict[str, Link] = {}
        self._closing = False
        for post in self._posts.posts.values():
            self._send(post)

    def post(self, round: int, sequence: int, to: list[int], processing_s: float | None, body: Iterable[bytes]) -> None:
        """Take a packet over; it is delivered from now on, also by the next agent of this folder.

        Raises:
            PeerError: it cannot be written, or is for nobody.
        """
        if self._standing.table.node is None:
            raise PeerError("this agent only relays, it has no node that posts; start one beside the SuperNode")
        if not to:
            raise PeerError("a packet for nobody; name its receivers")
        received = self._posts.receive(body)
        if received is None:
            raise PeerError("a packet of 0 bytes; post Packet.to_bytes()")
        with self._changed:
            post = self._posts.keep(round, sequence, to, processing_s, received)
        self._send(post)

    def flush(self, wait_s: float) -> int:
        """Wait until nothing is to be delivered, or for so long; how many deliveries are left."""
        until_s = time.monotonic() + wait_s
        with self._changed:
            while (left := self.pending()) and not self._closing and (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            return left

    def pending(self) -> int:
        """How many deliveries are left."""
        with self._changed:
            return sum(len(post.waiting) for post in self._posts.posts.values())

    def forget(self, before_round: int) -> None:
        """Give up packets of earlier rounds."""
        with self._changed:
            self._posts.forget(before_round)
            links = list(self._links.values())
        for link in links:
            link.drop(lambda job: job.post.round < before_round)

    def kick(self) -> None:
        """Another round, or another rate."""
        with self._changed:
            links = list(self._links.values())
        for link in links:
            link.kick()

    def told(self) -> list[dict[str, Any]]:
        """Its links, for a status."""
        with self._changed:
            links = list(self._links.values())
        return [link.told() for link in links]

    def links(self) -> list[Link]:
        """To be ended; none begins any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            return list(self._links.values())

    def relay_card(self) -> Card | None:
        """The agent that relays, if that is another one."""
        relay = self._standing.table.relay
        return None if relay is None or relay.key == self._signer.public else relay

    def node(self) -> int:
        """Index of this agent's node; any where it has none."""
        return self._standing.table.node or 0

    # -- what links ask and tell: `link.LinkOwner` --------------------------------------------------------------------

    def dial(self, card: Card, timeout_s: float) -> Connection:
        """A connection for letters."""
        return self._dialler.dial(card, self._standing.table.run, self.node(), LETTERS, timeout_s)

    def sign(self, job: Job) -> SignedHeader:
        """The header of a packet to one of its receivers."""
        post, table = job.post, self._standing.table
        header = LetterHeader(
            run=table.run, round=post.round, src=self.node(), dst=job.dst, sequence=post.sequence, size=post.size,
            digest=post.digest, processing_s=post.processing_s,
        )  # fmt: skip
        return SignedHeader.make(header, self._signer)

    def rate_bps(self, dst: int) -> float | None:
        """The most to send to a node now."""
        return self._standing.table.rates_bps.get(dst)

    def direct_s(self) -> float:
        """For how long reaching somebody is tried."""
        return self._standing.table.direct_s

    def ended(self, job: Job, told: Delivered, *, relay: bool) -> None:
        """An attempt was answered."""
        post = job.post
        # Counted before anybody who waits for the end is woken.
        self._counters.add(sent_letters=int(told.code == "ok"), sent_bits=8 * told.sent_bytes)
        if told.offset:
            self._counters.add(resumed=1)
        with self._changed:
            self._figures.delivered(post.round, job.dst, post.size, told, relay=relay, bps=self.rate_bps(job.dst))
            if told.code in DONE:
                self._posts.done(post, job.dst)
                self._changed.notify_all()

    def failed(self, job: Job, code: str) -> None:
        """An attempt was not answered."""
        with self._changed:
            self._figures.failed(job.post.round, job.dst, code)

    def gave_up(self, job: Job) -> None:
        """It is not delivered, by this agent or the next."""
        self._counters.add(given_up=1)
        with self._changed:
            self._posts.done(job.post, job.dst)
            self._changed.notify_all()

    def lost(self, name: str, error: TransportError) -> None:
        """A connection has ended."""
        self._counters.add(lost=1)
        log.info("the connection to %s was lost: %s", name, error)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _send(self, post: Post) -> None:
        for dst in post.waiting:
            self._link(dst).put(Job(post, dst))

    def _link(self, dst: int) -> Link:
        with self._changed:
            if (name := str(dst)) not in self._links:
                self._links[name] = Link(name, self, partial(self._card, dst), self._through_relay)
            return self._links[name]

    def _card(self, node: int) -> Card | None:
        card = self._standing.card(node)
        if card is None:
            with self._changed:
                waiting = [post.round for post in self._posts.posts.values() if node in post.waiting]
                return self._standing.last_card(node, min(waiting)) if waiting else None
        return card

    def _through_relay(self, jobs: list[Job]) -> bool:
        if self.relay_card() is None:
            return False
        with self._changed:
            if _RELAY not in self._links:
                self._links[_RELAY] = Link(_RELAY, self, self.relay_card, self._directly, relay=True)
            link = self._links[_RELAY]
        for job in jobs:
            link.put(Job(job.post, job.dst))
        return True

    def _directly(self, jobs: list[Job]) -> bool:
        """The relay cannot be reached either: try the neighbours again."""
        for job in jobs:
            self._link(job.dst).put(Job(job.post, job.dst), afresh=True)
        return True
