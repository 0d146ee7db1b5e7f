"""`Metered`: counts what really leaves and arrives. The last layer, next to the wire; it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from flwr.app import Message

from flower_edge.ledger import Ledger
from flower_edge.rounds import Round
from flower_edge.wire import payload_bits, wire_bits

from .layers import Layer, Stage

__all__ = ["Metered"]


class Metered(Layer[tuple[Ledger, Ledger]]):
    """Counts messages and bits, down and up, from the bytes of the records that travel.

    Args:
        framing: also count what Flower's serialisation adds (`wire_bits`); it builds the serialised form once more,
            which costs about as much as sending it.

    State: the ledger of this round, and that of all rounds before it.
    """

    stage: ClassVar[Stage] = Stage.COUNT

    def __init__(self, framing: bool = False) -> None:
        self.framing = framing

    def init(self) -> tuple[Ledger, Ledger]:
        """Nothing counted yet."""
        return Ledger(), Ledger()

    def outbound(
        self, state: tuple[Ledger, Ledger], round: Round, messages: list[Message]
    ) -> tuple[list[Message], tuple[Ledger, Ledger]]:
        """Count downwards; a training exchange begins a new round's ledger."""
        now, before = state
        if messages and round.kind == "train" and round.edge <= 1:
            now, before = Ledger(), before + now
        sent = Ledger(down_bits=sum(map(self._bits, messages)), down_messages=len(messages))
        return messages, (now + sent, before)

    def inbound(
        self, state: tuple[Ledger, Ledger], round: Round, replies: list[Message]
    ) -> tuple[list[Message], tuple[Ledger, Ledger]]:
        """Count upwards. An error carries no payload."""
        now, before = state
        good = [reply for reply in replies if not reply.has_error()]
        return replies, (now + Ledger(up_bits=sum(map(self._bits, good)), up_messages=len(good)), before)

    def metrics(self, state: tuple[Ledger, Ledger]) -> Mapping[str, float]:
        """This round's traffic, and that of the whole run so far. Failed is what brought an error, or nothing yet."""
        now, before = state
        total = now + before
        return {
            "down_bits": now.down_bits,
            "up_bits": now.up_bits,
            "down_messages": now.down_messages,
            "up_messages": now.up_messages,
            # What an earlier round sent may come in this one.
            "failed_messages": max(0, now.down_messages - now.up_messages),
            "total_down_bits": total.down_bits,
            "total_up_bits": total.up_bits,
        }

    def dump(self, state: tuple[Ledger, Ledger]) -> Any:
        """Both ledgers as plain numbers."""
        return [ledger.as_dict() for ledger in state]

    def load(self, saved: Any) -> tuple[Ledger, Ledger]:
        """Inverse of `dump`."""
        now, before = (replace(Ledger(), **values) for values in saved)
        return now, before

    def _bits(self, message: Message) -> int:
        return wire_bits(message) if self.framing else payload_bits(message.content)

    def __repr__(self) -> str:
        return f"Metered(framing={self.framing})"
