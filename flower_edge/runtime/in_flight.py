"""`InFlight`: messages on their way, whose answers are still waited for, and how many of them there were.

A message may have two ids, its own and that of its second copy: the first answer to either is its answer, the other one
is late. So is what comes to a message that was given up: it is asked for all the same, so that it is counted and leaves
the Grid, and no later round is handed it. Nothing here sends, waits or reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView
from dataclasses import dataclass, replace
from typing import Final

from flwr.app import Error, Message

from .error_codes import MESSAGE_UNAVAILABLE, NO_REPLY
from .flower_private import set_metadata

__all__ = ["REMEMBERED", "Counts", "InFlight", "OpenMessage"]

#: How many messages that were given up are still asked for in later rounds.
REMEMBERED: Final = 1000


@dataclass(frozen=True)
class Counts:
    """Messages of a run so far; questions for properties are not among them.

    Attributes:
        sent: messages handed to the proxy.
        answered, errors: messages by their first reply that was handed over, with content or with an error.
        silent: messages given up without any reply (`sent` = answered + errors + silent + still waited for).
        resent: second copies sent to silent nodes.
        late: replies nobody waited for any more, answers to the other copy included; dropped. The last 1000 messages
            given up are asked for (four rounds' worth, where that is more); replies to older ones are not counted.
    """

    sent: int = 0
    answered: int = 0
    errors: int = 0
    silent: int = 0
    resent: int = 0
    late: int = 0


@dataclass
class OpenMessage:
    """A message with an answer to come.

    Attributes:
        message: what was sent.
        own_id: by which whoever sent it asks for its answer.
        ids: by which the Grid may answer it: its own, then that of its second copy.
        pushed_s: when it was sent, by its sender's clock.
        counted: whether it is among the counts.
        resent: whether a second copy was sent, or none is to be.
    """

    message: Message
    own_id: str
    ids: list[str]
    pushed_s: float
    counted: bool
    resent: bool = False

    @property
    def node_id(self) -> int:
        """Of the node that was asked."""
        return self.message.metadata.dst_node_id


class InFlight:
    """What was sent and is not answered yet, and what was given up.

    Attributes:
        counts: of all messages so far.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._open: dict[str, OpenMessage] = {}
        self._own_id: dict[str, str] = {}
        self._given_up: dict[str, bool] = {}  # id -> whether its answer is counted as late; the oldest first
        self._largest_batch = 0
        self._refused: dict[str, tuple[Message, bool]] = {}
        self._refusals = 0

    @property
    def waiting(self) -> KeysView[str]:
        """Own ids of the messages whose answers are waited for."""
        return self._open.keys()

    @property
    def given_up(self) -> list[str]:
        """Ids of messages nobody waits for, which may still be answered; the oldest first."""
        return list(self._given_up)

    # -- on the way out --------------------------------------------------------------------------------------------

    def sent(self, messages: list[Message], taken: list[str | None], now_s: float, *, counted: bool) -> list[str]:
        """Messages were sent together; their own ids, in their order.

        Args:
            messages: what was sent.
            taken: for each the id by which the Grid answers it, `None` for one that it did not take: that one has an
                id, too, and its reply, an error, is there at once.
            now_s: the time.
            counted: whether they are among the counts.
        """
        self._largest_batch = max(self._largest_batch, len(messages))
        own_ids = []
        for message, message_id in zip(messages, taken, strict=True):
            self._add(sent=counted)
            if message_id is None:
                own_ids.append(self._refuse(message, counted))
            else:
                self._own_id[message_id] = message_id
                self._open[message_id] = OpenMessage(message, message_id, [message_id], now_s, counted)
                own_ids.append(message_id)
        return own_ids

    def _refuse(self, message: Message, counted: bool) -> str:
        reply = Message(Error(MESSAGE_UNAVAILABLE, "the grid did not take the message"), reply_to=message)
        self._refusals += 1
        own_id = f"refused-{self._refusals}"
        set_metadata(message, message_id=own_id)
        set_metadata(reply, reply_to_message_id=own_id)
        self._refused[own_id] = reply, counted
        return own_id

    def silent(self, own_ids: Iterable[str], now_s: float, for_s: float) -> list[OpenMessage]:
        """Those of them without an answer for so long of which there is one copy only."""
        found = (self._open[own_id] for own_id in own_ids if own_id in self._open)
        return [entry for entry in found if not entry.resent and now_s - entry.pushed_s >= for_s]

    def copied(self, entry: OpenMessage, copy_id: str) -> None:
        """A second copy is on its way."""
        entry.ids.append(copy_id)
        self._own_id[copy_id] = entry.own_id
        self._add(resent=True)

    # -- on the way back -------------------------------------------------------------------------------------------

    def refusals(self, own_ids: Iterable[str]) -> list[Message]:
        """Replies to those of them that the Grid did not take, each given once."""
        found = [self._refused.pop(own_id) for own_id in own_ids if own_id in self._refused]
        for reply, counted in found:
            self._count(reply, counted)
        return [reply for reply, _ in found]

    def ids_of(self, own_ids: Iterable[str]) -> list[str]:
        """By which ids the Grid may answer them.

        Own ids before those of the copies: where both answers are there, the first message's is taken.
        """
        return [message_id for own_id in own_ids if own_id in self._open for message_id in self._open[own_id].ids]

    def answered(self, reply: Message) -> OpenMessage | None:
        """The message whose answer this is; `None`, and the reply is counted as late, where nobody waits for it."""
        message_id = reply.metadata.reply_to_message_id
        own_id = self._own_id.pop(message_id, None)
        if own_id is None:
            self.late(reply)
            return None
        entry = self._open.pop(own_id)
        self._abandon(entry, except_for=message_id)
        self._count(reply, entry.counted)
        return entry

    def goes_on(self, entry: OpenMessage, message_id: str) -> None:
        """Another part of its answer is to come, by this id: the message was counted, and is not sent once more."""
        entry.ids, entry.counted, entry.resent = [message_id], False, True
        self._open[entry.own_id], self._own_id[message_id] = entry, entry.own_id

    def give_up(self, own_ids: Iterable[str]) -> list[OpenMessage]:
        """Wait for them no longer; those that were waited for until now."""
        left = [self._open.pop(own_id) for own_id in list(own_ids) if own_id in self._open]
        for entry in left:
            self._abandon(entry)
            self._add(silent=entry.counted)
        return left

    def late(self, reply: Message) -> None:
        """A reply has come to a message that was given up."""
        counted = self._given_up.pop(reply.metadata.reply_to_message_id, False)
        if not (reply.has_error() and reply.error.code in NO_REPLY):
            self._add(late=counted)

    def _abandon(self, entry: OpenMessage, *, except_for: str = "") -> None:
        for message_id in entry.ids:
            self._own_id.pop(message_id, None)
            if message_id != except_for:
                self._given_up[message_id] = entry.counted
        # A node that never answers must not make every later look for replies longer.
        while len(self._given_up) > max(REMEMBERED, 4 * self._largest_batch):
            del self._given_up[next(iter(self._given_up))]

    def _count(self, reply: Message, counted: bool) -> None:
        if reply.has_error():
            self._add(errors=counted)
        else:
            self._add(answered=counted)

    def _add(self, **more: bool) -> None:
        self.counts = replace(self.counts, **{name: getattr(self.counts, name) + one for name, one in more.items()})
