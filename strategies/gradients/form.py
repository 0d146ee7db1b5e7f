"""`Form`: one way in which gradients are exchanged; what the forms share. Nothing here averages or sends.

A round of a form is a generator: it yields the messages of one exchange after the other, each with whether it is the
last of the round, and is sent the replies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import NobodyContributed, ProtocolError
from flower_edge.events import Event
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.gradient_messages import (
    GRADIENT_RECORD,
    PACKET_RECORD,
    REPLICA_RECORD,
    Order,
    Report,
    bytes_in,
    record_with,
)
from flower_edge.runtime.gradient_replica import Replica
from flower_edge.runtime.gradient_setup import Setup
from flower_edge.store.tree import tree_to_bytes
from flower_edge.wire import error_reason, payload_bits, record_of

from .arguments import check_rate
from .figures import Figures
from .members import Members

__all__ = ["Exchanges", "Form", "bits_of", "packet_of", "report_of"]

log = getLogger("flwr.edge")

#: Messages, and whether they are the last of a round; replies come back.
Exchanges = Generator[tuple[list[Message], bool], Sequence[Message], None]


class Form(ABC):
    """State of an exchange between rounds, at the server.

    Args:
        setup: what nodes are told.
        rate: the learning rate of an update, by its number.
        arrays_key: name of the record in which a whole model travels.
    """

    def __init__(self, setup: Setup, rate: Callable[[int], Any], arrays_key: str) -> None:
        self.setup, self.arrays_key = setup, arrays_key
        self._rate = rate
        self.members = Members()
        self.figures = Figures(setup.weighted_by)
        #: Number of the next gradient; never used twice.
        self.step = 0
        #: What happened since they were taken.
        self.events: list[Event] = []

    @abstractmethod
    def begin_from(self, arrays: ArrayRecord) -> None:
        """All begin from this model."""

    @abstractmethod
    def round(self, grid: Grid, steps: int, config: Mapping[str, ConfigRecord]) -> Exchanges:
        """A round of so many steps; `config` goes along with every message."""

    @abstractmethod
    def model(self) -> ArrayRecord | None:
        """The model after the round; None where the server has none of that age."""

    def metrics(self) -> Mapping[str, float]:
        """What else there is to record."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Give up what is held open. Safe to call twice."""

    def rate(self, version: int) -> float:
        """The learning rate of the update that a model undergoes which has seen so many."""
        return check_rate(self._rate(version), version)

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        told, self.events = self.events, []
        return told

    def tell(self, grid: Grid, what: str, number: int, text: str) -> None:
        """Something worth telling happened to a node."""
        log.warning("\tstep %d: node %d %s", self.step, number, text)
        self.events.append(Event(what, f"node {number} {text}", node=str(number), time_s=now_s(grid)))

    def let_go(self, grid: Grid, number: int, what: str, text: str, fresh: bool = False) -> None:
        """A node's answer is not used, and it gets the model when it can."""
        member = self.members.known[number]
        member.version, member.fresh = -1, member.fresh or fresh
        self.figures.count(refused=1)
        self.tell(grid, what, number, text)

    def whole(self, replica: Replica) -> dict[str, Any]:
        """Records of a whole model, and of what lies beside it: nothing in the beginning."""
        records: dict[str, Any] = {self.arrays_key: record_of(replica.model())}
        beside = replica.beside()
        if beside["version"] or beside["extra"]:
            records[REPLICA_RECORD] = record_with(tree_to_bytes(beside))
        return records

    def message(self, node: int, order: Order, config: Mapping[str, ConfigRecord], **records: Any) -> Message:
        """For one node."""
        content = RecordDict({name: ConfigRecord({**record, **order.write()}) for name, record in config.items()})
        content.update(records)
        return Message(content, node, "train")

    def by_number(self, asked: Mapping[int, int], replies: Iterable[Message]) -> dict[int, Message]:
        """Good replies by number, in the order of the numbers: sums come out the same whoever answers first.

        Raises:
            NobodyContributed: none is good.
        """
        numbers = {node: number for number, node in asked.items()}
        found: dict[int, Message] = {}
        reasons: list[str] = []
        for reply in replies:
            number = numbers.get(reply.metadata.src_node_id)
            if reply.has_error():
                reasons.append(f"node {reply.metadata.src_node_id}: {error_reason(reply)}")
                log.warning("\tstep %d: %s", self.step, reasons[-1])
            elif number is not None and number not in found:
                found[number] = reply
        if not found:
            why = f"the first error is of {reasons[0]}" if reasons else "no reply came in time"
            raise NobodyContributed(
                f"step {self.step}: nothing usable came back from {len(asked)} nodes; {why}", frozenset(asked.values())
            )
        return dict(sorted(found.items()))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, between two rounds."""
        return {"step": self.step, "members": self.members.state_dict(), "figures": self.figures.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.step = int(state["step"])
        self.members = Members.from_state(state["members"])
        self.figures.load_state_dict(state["figures"])


def report_of(reply: Message, step: int, number: int) -> Report:
    """What a node tells of this exchange.

    Raises:
        ProtocolError: it tells nothing, or of another exchange.
    """
    sender = f"node {reply.metadata.src_node_id}"
    record = reply.content.config_records.get(GRADIENT_RECORD)
    if record is None:
        raise _without_mod(sender)
    report = Report.read(record, sender=sender)
    if (report.step, report.index) != (step, number):
        raise ProtocolError(
            f"{sender} told of step {report.step} as node {report.index}, expected step {step} and node {number}"
        )
    return report


def packet_of(reply: Message) -> bytes:
    """The packet in a reply.

    Raises:
        ProtocolError, WireError: there is none.
    """
    sender = f"node {reply.metadata.src_node_id}"
    data = bytes_in(reply.content, PACKET_RECORD, sender=sender)
    if data is None:
        raise _without_mod(sender)
    return data


def bits_of(records: Mapping[str, Any]) -> int:
    """Of a whole model's records."""
    return payload_bits(RecordDict(dict(records)))


def _without_mod(sender: str) -> ProtocolError:
    return ProtocolError(
        f"{sender} answered as if no gradients were exchanged; add the mod on the client: "
        "ClientApp(mods=[gradient_mod])"
    )
