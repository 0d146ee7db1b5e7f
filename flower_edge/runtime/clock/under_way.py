"""`UnderWay`: the messages of a virtual clock, from their sending to the moment their replies are taken.

They run on the real Grid as fast as it can; the timetable says when each reply is in. Nothing here lets time pass, and
nothing here decides whose reply is late: that is `VirtualClock`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from ...errors import ProtocolError
from ...ledger import Ledger
from ...wire import copy_content, payload_bits
from ..flower_private import clone_message, set_metadata
from .trips import Errand, Key, LastTrips, Timetable, Trip

__all__ = ["Arrival", "UnderWay"]


@dataclass(frozen=True)
class _Sent:
    """A message that was sent and has not really run yet; `copy` is what will travel."""

    number: int
    key: Key
    nth: int
    copy: Message
    sent_s: float
    down_bits: int

    @property
    def own_id(self) -> str:
        return f"virtual-{self.number}"


@dataclass(frozen=True)
class Arrival:
    """A reply and when it is in. Sorted by time, then in the order in which the messages were sent."""

    arrival_s: float
    number: int
    own_id: str
    reply: Message

    @property
    def place(self) -> tuple[float, int]:
        """Where it stands among others."""
        return self.arrival_s, self.number


class UnderWay:
    """Messages that were sent and not run yet, and replies that nobody has taken yet.

    Args:
        inner: the Grid that really runs the messages.
        timetable: when their replies are in.

    Attributes:
        count: messages so far.
        arrivals: replies that nobody has taken, by the id of their message.
        trips: the messages that ran last, in the order of their arrival.
        last: the last training message of each node.
        ledger: what travelled so far.
    """

    def __init__(self, inner: Grid, timetable: Timetable) -> None:
        self._inner, self._timetable = inner, timetable
        self._pending: list[_Sent] = []
        self.count = 0
        self.arrivals: dict[str, Arrival] = {}
        self.trips: tuple[Trip, ...] = ()
        self.last = LastTrips()
        self.ledger = Ledger()

    def __len__(self) -> int:
        return len(self._pending) + len(self.arrivals)

    def send(self, messages: Iterable[tuple[Message, Key]], now_s: float) -> list[str]:
        """Take in messages and the keys of their nodes, and give each its id.

        Raises:
            ConfigError: a node without a device or a link; then none of the messages is sent.
        """
        sent = []
        for number, (message, key) in enumerate(messages, start=self.count + 1):
            nth = self._timetable.count(key, message.metadata.dst_node_id)
            # It travels later than it was sent: its records must be those of now.
            copy = clone_message(message, copy_content(message.content))
            sent.append(_Sent(number, key, nth, copy, now_s, payload_bits(message.content)))
            set_metadata(message, message_id=sent[-1].own_id)
        self.count += len(sent)
        self._pending += sent
        return [one.own_id for one in sent]

    def run(self, timeout_s: float | None, claimed: Collection[str] = ()) -> tuple[list[Arrival], list[Arrival]]:
        """Run what was sent, all of it together, and work out when each reply is in.

        Args:
            timeout_s: how long to wait for the real Grid.
            claimed: ids of messages whose replies the caller takes at once.

        Returns:
            The claimed replies, and the others, which are under way now; both in the order of their arrival.

        Raises:
            ProtocolError: the Grid gave replies to messages that were not sent.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return [], []
        errands = self._errands(pending, timeout_s)
        trips = self._timetable.plan(errands)
        arrivals = sorted(
            (Arrival(trips[one.message_id].arrival_s, one.number, one.message_id, one.reply) for one in errands),
            key=lambda arrival: arrival.place,
        )
        self.trips = tuple(trips[arrival.own_id] for arrival in arrivals)
        for trip in self.trips:
            self.last.note(trip)
        answered = sum(not trip.failed for trip in self.trips)
        self.ledger += Ledger(
            down_bits=sum(sent.down_bits for sent in pending),
            up_bits=sum(trip.up_bits for trip in self.trips),
            down_messages=len(pending),
            up_messages=answered,
            failed_messages=len(pending) - answered,
        )
        taken = set(claimed)
        left = [arrival for arrival in arrivals if arrival.own_id not in taken]
        self.arrivals |= {arrival.own_id: arrival for arrival in left}
        return [arrival for arrival in arrivals if arrival.own_id in taken], left

    def _errands(self, pending: list[_Sent], timeout_s: float | None) -> list[Errand]:
        replies = {
            reply.metadata.reply_to_message_id: reply
            for reply in self._inner.send_and_receive([sent.copy for sent in pending], timeout=timeout_s)
        }
        errands = []
        for sent in pending:
            reply = replies.pop(sent.copy.metadata.message_id, None)
            if reply is not None:
                # Errors of a SuperLink carry its own id, and all ids are those of the copy that travelled.
                set_metadata(reply, src_node_id=sent.copy.metadata.dst_node_id, reply_to_message_id=sent.own_id)
                errands.append(
                    Errand(sent.number, sent.own_id, sent.key, sent.nth, sent.sent_s, sent.down_bits, sent.copy, reply)
                )
        if replies:
            raise ProtocolError(
                f"{type(self._inner).__name__} gave {len(replies)} replies to messages that were not sent; "
                "a grid inside VirtualClock must leave the ids of messages as they are"
            )
        return errands

    def take(self, message_ids: Iterable[str], now_s: float) -> list[Message]:
        """Replies that are in, each given once, in the order of their arrival."""
        asked = [self.arrivals[i] for i in dict.fromkeys(message_ids) if i in self.arrivals]
        taken = sorted((one for one in asked if one.arrival_s <= now_s), key=lambda arrival: arrival.place)
        for arrival in taken:
            del self.arrivals[arrival.own_id]
        return [arrival.reply for arrival in taken]

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs; messages that are under way are not part of it."""
        return {"count": self.count, "ledger": self.ledger.as_dict(), "last": self.last.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.count, self.ledger = state["count"], Ledger(**state["ledger"])
        self.last.load_state_dict(state["last"])
        self._pending, self.arrivals, self.trips = [], {}, ()
