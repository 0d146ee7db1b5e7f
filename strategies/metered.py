"""`Metered`: counts what really leaves and arrives. The last layer, next to the wire; it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from flwr.app import Message

from flower_edge.ledger import Ledger
from flower_edge.rounds import Round
from flower_edge.wire import payload_bits, wire_bits

from .layers import Layer, Stage

__all__ = ["Metered"]


class Counted(NamedTuple):
    """What has been counted.

    Attributes:
        now, before: of this round, and of all rounds before it.
        round: number of this one.
    """

    now: Ledger = Ledger()
    before: Ledger = Ledger()
    round: int = 0


class Metered(Layer[Counted]):
    """Counts messages and bits, down and up, from the bytes of the records that travel.

    Args:
        framing: also count what Flower's serialisation adds (`wire_bits`); it builds the serialised form once more,
            which costs about as much as sending it.

    State: see `Counted`.
    """

    stage: ClassVar[Stage] = Stage.COUNT

    def __init__(self, framing: bool = False) -> None:
        self.framing = framing

    def init(self) -> Counted:
        """Nothing counted yet."""
        return Counted()

    def outbound(self, state: Counted, round: Round, messages: list[Message]) -> tuple[list[Message], Counted]:
        """Count downwards; the first training exchange of a round begins a new ledger, for some rounds have many."""
        if messages and round.kind == "train" and round.edge <= 1 and round.cloud != state.round:
            state = Counted(Ledger(), state.before + state.now, round.cloud)
        sent = Ledger(down_bits=sum(map(self._bits, messages)), down_messages=len(messages))
        return messages, state._replace(now=state.now + sent)

    def inbound(self, state: Counted, round: Round, replies: list[Message]) -> tuple[list[Message], Counted]:
        """Count upwards. An error carries no payload."""
        good = [reply for reply in replies if not reply.has_error()]
        came = Ledger(up_bits=sum(map(self._bits, good)), up_messages=len(good))
        return replies, state._replace(now=state.now + came)

    def metrics(self, state: Counted) -> Mapping[str, float]:
        """This round's traffic, and that of the whole run so far. Failed is what brought an error, or nothing yet."""
        now, total = state.now, state.now + state.before
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

    def dump(self, state: Counted) -> Any:
        """As plain numbers."""
        return [state.now.as_dict(), state.before.as_dict(), state.round]

    def load(self, saved: Any) -> Counted:
        """Inverse of `dump`."""
        now, before, number = saved
        return Counted(replace(Ledger(), **now), replace(Ledger(), **before), int(number))

    def _bits(self, message: Message) -> int:
        return wire_bits(message) if self.framing else payload_bits(message.content)

    def __repr__(self) -> str:
        return f"Metered(framing={self.framing})"
