"""Exchanges of one round in a ring: orders become messages, replies become reports, packets are relayed on the way.

Says who answered as it should. Nothing here decides what an exchange is for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from flower_edge.errors import ProtocolError, WireError
from flower_edge.runtime.gradient_messages import INBOX_RECORD, PACKET_RECORD, Order, Report, bytes_in, record_with

from .form import bits_of, report_of

if TYPE_CHECKING:
    from .ring_form import RingForm

__all__ = ["Answers", "Exchange", "Talk"]

#: Report and reply of those that did as they were told, by number.
Answers = dict[int, tuple[Report, Message]]
#: One exchange of a round's generator.
Exchange = Generator[tuple[list[Message], bool], Sequence[Message], Answers]


@dataclass
class Talk:
    """With the nodes of a ring, in one round.

    Attributes:
        form: whose round it is.
        grid: where the nodes are.
        asked: node ids by number, of all that were there when the round began.
        config: goes along with every message.
        copy: makes the records of a whole model.
        mailbox: config of the nodes' mailboxes.
        out: numbers of those that have no place in this round any more.
        believed: numbers of those that said, and were believed, that the one before them posted nothing.
        relayed: packets of the last exchange, by sender, where the server relays them.
    """

    form: RingForm
    grid: Grid
    asked: Mapping[int, int]
    config: Mapping[str, ConfigRecord]
    copy: Callable[[], dict[str, Any]]
    mailbox: Mapping[str, bool | int | float | str]
    out: set[int] = field(default_factory=set)
    believed: set[int] = field(default_factory=set)
    relayed: dict[int, bytes] = field(default_factory=dict)

    def exchange(self, orders: Mapping[int, Order], *, last: bool = False) -> Exchange:
        """Send orders, and hear who did as it was told; who answered nothing useful is out."""
        form = self.form
        replies = yield self._messages(orders), last
        self.relayed = {}
        answers: Answers = {}
        came = form.by_number({n: self.asked[n] for n in orders}, replies)
        self.out |= set(orders) - set(came)
        form.figures.count(unheard=len(orders) - len(came))
        for n, reply in came.items():
            try:
                report = report_of(reply, form.step, n)
                if (packet := bytes_in(reply.content, PACKET_RECORD, sender=f"node {n}")) is not None:
                    self.relayed[n] = packet
            except (ProtocolError, WireError) as error:
                self.out.add(n)
                form.let_go(self.grid, n, "refused", f"told what is not used: {error}")
                continue
            if report.lost:
                form.let_go(self.grid, n, "lost", f"has not this model ({report.lost}) and gets it", report.fresh)
                if orders[n].whole:  # it was just sent it: it would be so again
                    self.out.add(n)
                continue
            if report.posted_bits:
                form.figures.count(peer_bits=report.posted_bits, peer_dense_bits=form.dense_bits)
            answers[n] = report, reply
        return answers

    def _messages(self, orders: Mapping[int, Order]) -> list[Message]:
        mailbox = json.dumps(dict(self.mailbox), separators=(",", ":"))
        model: dict[str, Any] = {}
        messages: list[Message] = []
        for n, order in orders.items():
            records: dict[str, Any] = {}
            if order.whole:
                model = model or self.copy()
                records = dict(model)
                self.form.figures.count(whole_models=1, model_bits=bits_of(model))
            if order.collect and order.before in self.relayed:
                records[INBOX_RECORD] = record_with(self.relayed[order.before])
            messages.append(self.form.message(self.asked[n], replace(order, mailbox=mailbox), self.config, **records))
        return messages
