"""Letters that travel through the server: with the reply to it, and with its next message to the neighbours.

`RelayMailbox` is the node's end, `RelayStore` the server's. It works wherever Flower works, and costs two hub trips per
letter; a direct link would carry it once. Both are counted, in bits, from the bytes that really travel. Nothing here
knows Flower's messages: whoever sends puts `outbox` into the reply and `letters` into the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import WireError
from .mailbox import MOST_BYTES, Letter, Mailbox
from .packet import Packet, read_header

__all__ = ["Delivery", "Posted", "RelayMailbox", "RelayStore", "RelayTraffic"]


@dataclass(frozen=True)
class Delivery:
    """A packet as a message brings it: its bytes, and the two times the server stamps it with; see `Letter`."""

    data: bytes
    processing_s: float | None = None
    link_s: float | None = None


@dataclass(frozen=True)
class Posted:
    """A packet as a reply takes it along: its bytes, whom it is for, and when its sender was ready."""

    data: bytes
    to: tuple[int, ...]
    processing_s: float | None = None


class RelayMailbox(Mailbox):
    """The mailbox of a node whose letters come with the message and leave with the reply.

    Args:
        node: index of the node.
        inbox: what the message brought, by sender; nothing by default.
        most_bytes: see `Mailbox`.

    >>> mailbox = RelayMailbox(0)
    >>> mailbox.post(Packet(1, 0, 0, "identity", b"abc"), to=[2, 1])
    >>> [(len(posted.data), posted.to) for posted in mailbox.outbox]
    [(47, (1, 2))]
    """

    via = "relay"

    def __init__(self, node: int, inbox: Mapping[int, Delivery] | None = None, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(node, most_bytes=most_bytes)
        self._inbox = dict(inbox or {})
        self._outbox: list[Posted] = []

    @property
    def outbox(self) -> tuple[Posted, ...]:
        """What was posted here, to be put into the reply."""
        return tuple(self._outbox)

    def forget(self, before_round: int) -> None:
        """Drop letters and unsent packets of earlier rounds. What has left with a reply is the server's."""
        self._outbox = [posted for posted in self._outbox if read_header(posted.data).round >= before_round]
        for sender, delivery in list(self._inbox.items()):
            try:
                old = read_header(delivery.data).round < before_round
            except WireError:
                old = True
            if old:
                del self._inbox[sender]

    def _send(self, packet: Packet, to: tuple[int, ...], processing_s: float | None) -> None:
        self._outbox.append(Posted(packet.to_bytes(), to, processing_s))

    def _fetch(self, round: int, sender: int) -> Letter | None:
        # Opened anew each time: a letter is as large as a model, and is asked for once.
        if sender not in self._inbox:
            return None
        try:
            letter = self._open(sender, self._inbox[sender])
        except WireError as error:
            del self._inbox[sender]
            self._refuse(sender, error)
            return None
        return letter if letter.packet.round == round else None

    def _open(self, sender: int, delivery: Delivery) -> Letter:
        if len(delivery.data) > self.most_bytes:
            raise WireError(f"{len(delivery.data)} bytes, at most {self.most_bytes} are read")
        packet = Packet.from_bytes(delivery.data)
        if packet.sender != sender:
            raise WireError(f"it says it is of node {packet.sender}; expected node {sender}'s own")
        return Letter(packet, delivery.processing_s, delivery.link_s, self.via)


@dataclass(frozen=True)
class RelayTraffic:
    """What relayed letters cost so far, in bits of whole packets.

    Attributes:
        up_bits, up_letters: from the senders to the server, each packet once.
        down_bits, down_letters: from the server to the receivers, once per receiver.
        peer_bits: what direct links would have carried for the same: every packet once per receiver.
    """

    up_bits: int = 0
    down_bits: int = 0
    peer_bits: int = 0
    up_letters: int = 0
    down_letters: int = 0


class RelayStore:
    """The server's end: packets by round and sender, until they are forgotten. One byte string serves all receivers.

    Args:
        most_bytes: packets longer than this are refused.

    >>> store = RelayStore()
    >>> store.put(0, [Posted(Packet(1, 0, 0, "identity", b"abc").to_bytes(), to=(1, 2))])
    >>> list(store.letters(1, round=1, senders=[0, 2])), list(store.letters(3, round=1, senders=[0, 2]))
    ([0], [])
    >>> store.traffic.up_bits, store.traffic.peer_bits
    (376, 376)
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        # (round, sender) -> receiver -> the sequence of the newest packet to it, and the packet
        self._kept: dict[tuple[int, int], dict[int, tuple[int, Posted]]] = {}
        self._traffic = RelayTraffic()

    @property
    def traffic(self) -> RelayTraffic:
        """Bits and letters so far, on both legs and as edges."""
        return self._traffic

    def put(self, sender: int, outbox: Iterable[Posted], *, round: int | None = None) -> None:
        """Keep what a node's reply brought. Its bytes count as sent up, whether they are good or not.

        Args:
            sender: index of the node that answered, as the server knows it: nobody posts for another.
            outbox: `RelayMailbox.outbox` of that node.
            round: where given, packets of any other round are refused: what is kept stays bounded.

        Raises:
            WireError: a packet that is damaged, too long, of another node or another round, or a time that cannot be;
                the good ones are kept.
        """
        bad: list[str] = []
        for posted in outbox:
            self._count(up_bits=8 * len(posted.data), up_letters=1)
            try:
                self._keep(sender, posted, round)
            except WireError as error:
                bad.append(str(error))
        if bad:
            raise WireError(f"node {sender} posted what is refused: {'; '.join(bad)}")

    def _keep(self, sender: int, posted: Posted, round: int | None) -> None:
        if len(posted.data) > self.most_bytes:
            raise WireError(f"packet of {len(posted.data)} bytes, at most {self.most_bytes} are kept")
        header = read_header(posted.data)
        if header.sender != sender:
            raise WireError(f"a packet that says it is of node {header.sender}; a node posts its own")
        if round is not None and header.round != round:
            raise WireError(f"a packet of round {header.round}, expected one of round {round}")
        if posted.processing_s is not None and not 0 <= posted.processing_s < float("inf"):
            raise WireError(f"processing_s = {posted.processing_s}, expected seconds, 0 or more")
        by_receiver = self._kept.setdefault((header.round, sender), {})
        for receiver in posted.to:
            if receiver not in by_receiver or by_receiver[receiver][0] <= header.sequence:
                by_receiver[receiver] = header.sequence, posted

    def letters(
        self,
        receiver: int,
        *,
        round: int,
        senders: Sequence[int],
        most_stale: int = 0,
        link_s: Mapping[int, float] | None = None,
    ) -> dict[int, Delivery]:
        """What goes to a node with its next message: the newest letter to it of each sender. Counted as sent.

        Args:
            receiver: index of the node.
            round: the round that is collected.
            senders: its neighbours.
            most_stale: how many rounds older a letter may be where a sender has none of that round.
            link_s: seconds on each sender's link, where a virtual clock or radio model knows; stamped on the letter.
        """
        found: dict[int, Delivery] = {}
        for sender in senders:
            posted = self._newest(receiver, sender, round, most_stale)
            if posted is None:
                continue
            found[sender] = Delivery(posted.data, posted.processing_s, (link_s or {}).get(sender))
            bits = 8 * len(posted.data)
            self._count(down_bits=bits, peer_bits=bits, down_letters=1)
        return found

    def _newest(self, receiver: int, sender: int, round: int, most_stale: int) -> Posted | None:
        for earlier in range(round, round - most_stale - 1, -1):
            by_receiver = self._kept.get((earlier, sender), {})
            if receiver in by_receiver:
                return by_receiver[receiver][1]
        return None

    def forget(self, before_round: int) -> None:
        """Drop packets of earlier rounds."""
        self._kept = {key: by_receiver for key, by_receiver in self._kept.items() if key[0] >= before_round}

    def _count(self, **amounts: int) -> None:
        now = {name: getattr(self._traffic, name) + amount for name, amount in amounts.items()}
        self._traffic = replace(self._traffic, **now)

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: packets that were not forgotten, each once, and counts."""
        kept = []
        for (_, sender), by_receiver in self._kept.items():
            posts = {id(posted): posted for _, posted in by_receiver.values()}
            for key, posted in posts.items():
                to = [receiver for receiver, (_, its) in by_receiver.items() if id(its) == key]
                kept.append({"sender": sender, "data": posted.data, "to": to, "processing_s": posted.processing_s})
        return {"traffic": asdict(self._traffic), "kept": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            WireError: a packet in it is damaged.
        """
        self._kept = {}
        for entry in state["kept"]:
            self._keep(entry["sender"], Posted(entry["data"], tuple(entry["to"]), entry["processing_s"]), None)
        self._traffic = RelayTraffic(**state["traffic"])
