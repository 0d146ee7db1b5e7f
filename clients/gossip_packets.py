"""What a worker's packets say and what it makes of its neighbours': codecs, and what they remember of each sender.

Where a codec tells changes (`Delta`), a worker holds a replica of each neighbour whose packets it mixes, and its own:
what the neighbours believe of it. Packets of one sender are decoded in order, each once; where one is missing the
worker says that it wants the whole model. Nothing here mixes, trains or sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any, Final

import numpy.typing as npt

from flower_edge.codecs.codec import Codec, label
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.moment import Moment
from flower_edge.errors import CodecError
from flower_edge.peers.mailbox import Letter, Mailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, RelayMailbox
from flower_edge.runtime.gossip_messages import Order

__all__ = ["Correspondence", "lossy", "mailboxes", "mixing"]

log = getLogger(__name__)

#: For how many rounds it is remembered what somebody has told who was not heard since.
LONGEST_AWAY: Final = 10

Arrays = dict[str, npt.NDArray[Any]]
Tree = dict[str, Any]


def lossy(codec: Codec) -> bool:
    """Whether neighbours may believe something else of a worker than it is; a codec that does not say is taken so."""
    return not getattr(codec, "exact", False)


def mixing(codec: Codec) -> float:
    """The part of a weight that a neighbour's model is mixed with, see `Delta`."""
    return float(codec.mixing) if isinstance(codec, Delta) else 1.0


def mailboxes(
    mailbox: Mailbox, order: Order, early: Mapping[int, Mapping[int, bytes]]
) -> Callable[[int], Mailbox | None]:
    """Where letters of rounds before the newest are: with the message where the server relays them."""
    if mailbox.via != RelayMailbox.via:
        return lambda number: mailbox
    opened = {
        number: RelayMailbox(order.index, {sender: Delivery(data) for sender, data in letters.items()})
        for number, letters in early.items()
    }
    return opened.get


class Correspondence:
    """A worker's codec in one round: its own packet, and its neighbours'.

    Args:
        order: the server's.
        codec: as the order says.
        saved: what `tree` returned in the round before; nothing for a worker that begins afresh.
        start: the model that it goes on from.

    Attributes:
        wants: senders whose changes it cannot follow.
        plain: whether its own packet tells the whole model.
    """

    def __init__(self, order: Order, codec: Codec, saved: Tree, start: Arrays) -> None:
        self.order, self.codec = order, codec
        self.wants: list[int] = []
        self.plain = False
        self._start = start
        self._begun: Tree | None = None
        self._peers: Tree = dict(saved.get("peers") or {})
        self._base: Tree | None = saved.get("base")
        self._last: Tree | None = saved.get("codec")
        self._own = self._last
        self._believed: Arrays | None = saved.get("believed")
        if isinstance(codec, Delta) and order.fresh and order.common:
            self._base, self._own = {"round": order.round, "arrays": start}, codec.begin(start)
        elif isinstance(codec, Delta) and self._own is not None and (order.plain or saved["round"] != order.known):
            self._own = codec.afresh(self._own)

    def believed(self, arrays: Arrays) -> Arrays:
        """What the neighbours believe that `arrays` are, which this worker posted last."""
        if not lossy(self.codec):
            return arrays
        if isinstance(self.codec, Delta) and self._last is not None:
            return self.codec.published(arrays, self._last)
        return arrays if self._believed is None else self._believed

    # -- neighbours' packets -----------------------------------------------------------------------------------------

    def read(
        self, sender: int, sent_in: int, mailbox: Mailbox, earlier: Callable[[int], Mailbox | None]
    ) -> tuple[Arrays, Letter] | None:
        """A neighbour's model as of a round, and the letter in which it came. None if it is missing, which is told."""
        known = self._peers.get(str(sender))
        letter = mailbox.collect(sent_in, [sender]).get(sender)
        if letter is None:
            return None
        state = self._unknown() if known is None else known["state"]
        for number in self._missed(known, sent_in):
            box = earlier(number)
            before = None if box is None else box.collect(number, [sender]).get(sender)
            if before is None:
                continue
            try:
                _, state = self._decode(before.packet, state)
            except CodecError as error:
                log.info("node %d cannot follow node %d in round %d: %s", self.order.index, sender, number, error)
        try:
            model, state = self._decode(letter.packet, state)
        except CodecError as error:
            log.warning("node %d does not mix what node %d posted: %s", self.order.index, sender, error)
            self._peers.pop(str(sender), None)
            if isinstance(self.codec, Delta):
                self.wants.append(sender)
            return None
        self._peers[str(sender)] = {"round": sent_in, "state": state}
        return model, letter

    def _unknown(self) -> Tree:
        """The decoder of somebody of whom nothing has come yet."""
        if self._base is None or not isinstance(self.codec, Delta):
            return self.codec.init(self._start)
        if self._begun is None:
            self._begun = self.codec.begin(self._base["arrays"])
        return self._begun

    def _missed(self, known: Tree | None, sent_in: int) -> range:
        """Rounds in which a neighbour may have told a change that this worker has not seen."""
        if not isinstance(self.codec, Delta):
            return range(0)
        oldest = max(0, self.order.keep_from - self.order.catch_up)
        return range(oldest if known is None else max(oldest, int(known["round"]) + 1), sent_in)

    def _decode(self, packet: Packet, state: Tree) -> tuple[Arrays, Tree]:
        if packet.codec != (expected := label(self.codec)):
            raise CodecError(f"a packet encoded by {packet.codec!r}, expected {expected!r}")
        return self.codec.decode(packet.payload, state, Moment(packet.round, packet.sender))

    # -- its own -----------------------------------------------------------------------------------------------------

    def write(self, trained: Arrays) -> Packet:
        """The packet that tells `trained`; once a round."""
        at, own = Moment(self.order.round, self.order.index), self._own
        before = self.codec.init(trained) if own is None else own
        payload, self._own = self.codec.encode(trained, before, at)
        if isinstance(self.codec, Delta):
            self.plain = before["replica"] is None
        elif lossy(self.codec):
            self._believed = self.codec.decode(payload, before, at)[0]
        return Packet(self.order.round, self.order.index, 0, label(self.codec), payload)

    def tree(self) -> Tree:
        """What is kept until the next round."""
        base, order = self._base, self.order
        # Nobody's first packet after that round is asked for any more.
        if base is not None and base["round"] < order.keep_from - order.catch_up:
            base = None
        peers = {name: known for name, known in self._peers.items() if known["round"] > order.round - LONGEST_AWAY}
        return {"codec": self._own, "peers": peers, "base": base, "believed": self._believed}
