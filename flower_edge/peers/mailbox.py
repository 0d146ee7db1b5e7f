"""The `Mailbox` promise: how packets of neighbours arrive at a node. Which way they take changes no model.

A node opens its mailbox when a gossip message comes (`open_mailbox`, from plain values in that message), collects what
its neighbours posted in the round before, mixes, trains, and posts its own. Nodes are named by their index: the
`partition-id` of Flower's simulation, the row of a `Topology`. Nothing here mixes, decodes or decides who is asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from types import TracebackType
from typing import Self, SupportsIndex

from ..errors import PeerError, WireError
from .packet import Packet

__all__ = ["MOST_BYTES", "Letter", "Mailbox"]

log = getLogger(__name__)

#: The largest letter a mailbox looks at, in bytes, unless told otherwise: 1 GiB.
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Letter:
    """A packet that arrived, and what its mailbox learned on the way.

    Attributes:
        packet: what the neighbour posted.
        processing_s: P_j of [1] ¶41: seconds from the start of its round until the sender was ready to send; `None`
            where nobody told.
        link_s: C_ij of [1] ¶41: seconds the packet itself took; `None` where this mailbox cannot tell.
        via: how it came: `relay`, `shared-memory`, `direct`, `agent-relay` (directly, but through the edge server's
            agent), or the name of another mailbox.
    """

    packet: Packet
    processing_s: float | None = None
    link_s: float | None = None
    via: str = ""


class Mailbox(ABC):
    """One node's way to its neighbours. `tests/laws/mailbox_laws.py` says what every answer to this owes.

    Args:
        node: index of the node whose mailbox this is.
        most_bytes: letters longer than this are refused unread.

    Letters that are missing are simply absent: a neighbour may be slow, gone or out of reach. Those that are damaged,
    too long or not from who they should be are absent, too, and counted in `refused`: nothing that comes in raises.
    Usable as a context manager; `close` gives up what the mailbox holds open.

    Raises:
        PeerError: no such index, or no such length.
    """

    #: What `Letter.via` says.
    via: str = ""

    def __init__(self, node: int, *, most_bytes: int = MOST_BYTES) -> None:
        if not _is_index(node):
            raise PeerError(f"mailbox of node {node!r}: expected its index, its partition-id, from 0 on")
        if most_bytes < 1:
            raise PeerError(f"most_bytes = {most_bytes}: expected 1 or more")
        self.node = int(node)
        self.most_bytes = most_bytes
        self._refused = 0

    @property
    def refused(self) -> int:
        """Letters that came and were not what they should be; they are missing from what was collected."""
        return self._refused

    def post(self, packet: Packet, to: Sequence[int], *, processing_s: float | None = None) -> None:
        """Send one packet to neighbours; nobody else gets it. Of two posts of one round the later sequence counts.

        Args:
            packet: the node's own; its `sender` is this node.
            to: indices of the receivers, in any order; twice is once. Nobody is allowed.
            processing_s: seconds the node took until it was ready, told to the receivers as `Letter.processing_s`.

        Raises:
            PeerError: the packet of another node, one to this node itself, a receiver that is no index, a time below
                0 or not finite, or a packet that no mailbox of this kind would take.
        """
        if packet.sender != self.node:
            raise PeerError(f"node {self.node} posts a packet of node {packet.sender}; set sender={self.node}")
        if bad := [node for node in to if not _is_index(node) or node == self.node]:
            raise PeerError(f"node {self.node} posts to {bad[:6]}: expected indices of other nodes")
        receivers = sorted({int(node) for node in to})
        if processing_s is not None and not 0 <= processing_s < float("inf"):
            raise PeerError(f"processing_s = {processing_s}: expected seconds, 0 or more, or None")
        if len(packet.payload) > self.most_bytes - 128:
            raise PeerError(
                f"packet of {len(packet.payload)} bytes in a mailbox for letters of {self.most_bytes}; "
                "encode it shorter, or pass a larger most_bytes on both sides"
            )
        if receivers:
            self._send(packet, tuple(receivers), processing_s)

    def collect(self, round: int, senders: Sequence[int]) -> Mapping[int, Letter]:
        """The letters of that round to this node, by sender, in the order of `senders`; what is not there is absent.

        Asking again gives the same letters, until `forget`.
        """
        found: dict[int, Letter] = {}
        for sender in senders:
            letter = self._fetch(round, sender)
            if letter is not None:
                found[sender] = letter
        return found

    @abstractmethod
    def forget(self, before_round: int) -> None:
        """Give up what this node posted and received in earlier rounds. What it posted later can be collected."""

    def mixed(self, sender: int, took_s: float) -> None:  # noqa: B027
        """What it took to decode and mix a neighbour's letter, told by whoever did; for mailboxes that report it."""

    def close(self) -> None:  # noqa: B027
        """Give up what is held open here. What was posted can still be collected by others. Safe to call twice."""

    @abstractmethod
    def _send(self, packet: Packet, to: tuple[int, ...], processing_s: float | None) -> None:
        """Send a packet that has been checked to one receiver or more."""

    @abstractmethod
    def _fetch(self, round: int, sender: int) -> Letter | None:
        """The letter of that round from one sender, if it is there and good; see `_refuse`."""

    def _refuse(self, sender: int, error: WireError) -> None:
        """Count a letter that cannot be used, and say so."""
        self._refused += 1
        log.warning("node %d refuses a letter from node %d (%s): %s", self.node, sender, self.via, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_index(node: object) -> bool:
    """Whether this can be the index of a node: a whole number of 32 bit, Python's or NumPy's."""
    return isinstance(node, SupportsIndex) and not isinstance(node, bool) and 0 <= node.__index__() < 1 << 32
