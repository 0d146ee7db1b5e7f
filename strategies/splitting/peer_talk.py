"""What the server and devices say in one merge among devices: exchanges, and what is made of the answers.

Who does not answer in time, or garbles, is lost for the round; see peer_merge.py for what that means.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message

from flower_edge.errors import EdgeError, ModelMismatch, WireError
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Posted, RelayStore
from flower_edge.runtime.splitting.messages import HALF_RECORD, SplitOrder
from flower_edge.runtime.splitting.peers import (
    LETTER_RECORD,
    MEAN_RECORD,
    PEER_RECORD,
    PeerAnswer,
    PeerOrder,
    digest_of,
    mean_form,
    shard,
    together,
    unpacked,
)
from flower_edge.wire import arrays_of, cast_like, model_spec, packet_bytes, packet_record, record_of

from .copies import check_half
from .outcome import by_number, lose, report_of
from .plane import Exchanges, Task

__all__ = ["Arrays", "MakeMessage", "Ring", "Talk"]

log = getLogger("flwr.edge")

Arrays = Mapping[str, npt.NDArray[Any]]
MakeMessage = Callable[[Task, SplitOrder, Mapping[str, Any]], Message]
#: One exchange of a merge: good replies with their answers, by number.
Heard = Generator[tuple[list[Message], bool], Sequence[Message], dict[int, tuple[PeerAnswer, Message]]]


@dataclass
class Ring:
    """Who would merge at the end of a round, and what.

    Attributes:
        round: Flower's number of it.
        cut, tail: so many first and last units.
        names: of their arrays.
        weights: of everybody in the round, in the order in which FedAvg adds.
        trained: who has trained since the last merge before this round: FedAvg adds their models, whether lost or not.
    """

    round: int
    cut: int
    tail: int
    names: tuple[str, ...]
    weights: Mapping[int, int]
    trained: frozenset[int]


@dataclass
class Talk:
    """Exchanges of one merge.

    Attributes:
        ring: what is merged.
        tasks: of all that are there after training, by number, in the order in which FedAvg adds.
        message: makes messages for them.
        mailbox: config of the devices' mailboxes.
        figures: what is counted; see `PeerMerge.metrics`.
        mean: of the units, when all means are there.
        merged: the same in the model's dtypes.
        kept: digests of those that have kept it, by number.
    """

    ring: Ring
    tasks: Mapping[int, Task]
    message: MakeMessage
    mailbox: dict[str, bool | int | float | str]
    figures: dict[str, float]
    mean: Arrays = field(default_factory=dict)
    merged: Arrays = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)
    _store: RelayStore = field(default_factory=RelayStore)
    _means_bits: int = 0

    @property
    def _relays(self) -> bool:
        return self.mailbox["kind"] == "relay"

    def means(self) -> Generator[tuple[list[Message], bool], Sequence[Message], str]:
        """All three steps; why they ended before the last, or empty."""
        ring, tasks = self.ring, self.tasks
        total = sum(ring.weights[number] for number in tasks)
        numbers, post = tuple(tasks), 2 * ring.round
        if absent := ring.trained - set(tasks):
            return f"devices {sorted(absent)} are lost in this round, and have trained in others since the last merge"
        if len(tasks) < 2:
            return "one device is left"
        order = PeerOrder(
            act="post",
            ring=numbers,
            weights=tuple(ring.weights[number] / total for number in numbers),
            post=post,
            mailbox=self.mailbox,
        )
        heard = yield from self._exchange(dict.fromkeys(numbers, order))
        if len(heard) < len(numbers):
            return "not every device posted its shards"
        self._relay(heard, post)
        heard = yield from self._exchange(
            dict.fromkeys(numbers, order.model_copy(update={"act": "add", "post": post + 1})), collect=post
        )
        means = self._means(heard)
        if len(means) < len(numbers):
            return f"the means of {sorted(means)} are there, not of all of {list(numbers)}"
        self._relay(heard, post + 1)
        digests = tuple(digest_of(means[number]) for number in numbers)
        last = order.model_copy(update={"act": "gather", "post": post + 2, "digests": digests})
        own = self._own()
        self.mean = together((means[number] for number in numbers), own)
        self.merged = arrays_of(cast_like(record_of(self.mean), model_spec(record_of(own))))
        digest = digest_of(self.merged)
        # From here on nobody is lost: who does not answer well is sent the merged units.
        heard = yield from self._exchange(dict.fromkeys(numbers, last), collect=post + 1, final=True)
        self.kept = {number: answer.digest for number, (answer, _) in heard.items() if answer.digest == digest}
        return ""

    def give(self) -> Exchanges:
        """Everybody left sends what it held back."""
        left = {number: task for number, task in self.tasks.items() if not task.lost}
        replies = yield [self._message(number, PeerOrder(act="give"), {}) for number in left], True
        for number, reply in by_number(left, replies).items():
            task = left[number]
            spec = {name: (tuple(task.half[name].shape), str(task.half[name].dtype)) for name in self.ring.names}
            try:
                report_of(task, reply)
                held_back = _half(reply, spec, f"device {number}")
            except EdgeError as error:
                lose(task, str(error))
                continue
            task.new_half = {**(task.new_half or {}), **held_back}
        for task in self.tasks.values():
            if task.lost:
                task.report = None

    def _exchange(self, orders: Mapping[int, PeerOrder], *, collect: int = 0, final: bool = False) -> Heard:
        """Send orders; what those that answered well said. Others are lost, but in the final exchange."""
        messages = []
        for number, order in orders.items():
            letters = self._store.letters(number, round=collect, senders=[n for n in orders if n != number])
            records = {f"{LETTER_RECORD}{n}": packet_record(letter.data) for n, letter in letters.items()}
            messages.append(self._message(number, order, records))
        self._count_relayed()
        replies = yield messages, final
        asked = {number: self.tasks[number] for number in orders}
        if final:
            there = {task.node: number for number, task in asked.items()}
            good = [reply for reply in replies if not reply.has_error()]
            came = {there[node]: reply for reply in good if (node := reply.metadata.src_node_id) in there}
        else:
            came = by_number(asked, replies)
        heard: dict[int, tuple[PeerAnswer, Message]] = {}
        for number, reply in came.items():
            task, sender = asked[number], f"device {number}"
            try:
                report_of(task, reply)
                answer = PeerAnswer.read(reply.content.config_records.get(PEER_RECORD), sender=sender)
            except EdgeError as error:
                if final:
                    log.warning("\t%s", error)
                else:
                    lose(task, str(error))
                continue
            self.figures["peer_bits"] += answer.posted_bits
            if answer.missing:
                log.warning("\t%s misses packets of devices %s", sender, list(answer.missing))
            heard[number] = answer, reply
        return heard

    def _message(self, number: int, order: PeerOrder, records: Mapping[str, Any]) -> Message:
        task = self.tasks[number]
        return self.message(task, task.order.model_copy(update={"begin": False, "peers": order.text()}), records)

    def _relay(self, heard: Mapping[int, tuple[PeerAnswer, Message]], post: int) -> None:
        """Keep the packets that came in replies, where the server relays them."""
        if not self._relays:
            return
        for number, (_, reply) in heard.items():
            posted: list[Posted] = []
            others = tuple(n for n in heard if n != number)
            for name, to in ((MEAN_RECORD, others), *((f"{LETTER_RECORD}{n}", (n,)) for n in others)):
                if (data := _bytes(reply, name, number)) is not None:
                    posted.append(Posted(data, to))
            try:
                self._store.put(number, posted, round=post)
            except WireError as error:
                log.warning("\t%s", error)
        self._count_relayed()

    def _count_relayed(self) -> None:
        """Both legs; means are counted where they come in."""
        traffic = self._store.traffic
        self.figures["peer_server_bits"] = float(self._means_bits + traffic.up_bits + traffic.down_bits)

    def _means(self, heard: Mapping[int, tuple[PeerAnswer, Message]]) -> dict[int, Arrays]:
        """Everybody's, by number; what cannot be used is absent."""
        form, found = mean_form(self._own()), dict[int, Arrays]()
        numbers = list(self.tasks)
        for number, (answer, reply) in heard.items():
            data = None if answer.missing else _bytes(reply, MEAN_RECORD, number)
            if data is None:
                continue
            if not self._relays:
                self._means_bits += 8 * len(data)
            try:
                packet = Packet.from_bytes(data)
                mean = unpacked(packet.payload, shard(form, numbers.index(number), len(numbers)))
            except EdgeError as error:
                log.warning("\tthe mean of device %d is not used: %s", number, error)
                continue
            if all(np.isfinite(array).all() for array in mean.values()):
                found[number] = mean
        self._count_relayed()
        return found

    def _own(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays as every device has them; which device's does not matter."""
        half = next(iter(self.tasks.values())).half
        return {name: np.asarray(half[name]) for name in self.ring.names}


def _bytes(reply: Message, name: str, number: int) -> bytes | None:
    """Of a packet in a reply; None where there is none that is whole."""
    record = reply.content.array_records.get(name)
    if record is None:
        return None
    try:
        return packet_bytes(record, sender=f"device {number}")
    except WireError as error:
        log.warning("\t%s", error)
        return None


def _half(reply: Message, spec: Mapping[str, Any], sender: str) -> dict[str, npt.NDArray[Any]]:
    """What a device had held back.

    Raises:
        ModelMismatch: something else.
    """
    try:
        return check_half(reply.content.array_records.get(HALF_RECORD), None, dict(spec), sender=sender)[0]
    except EdgeError:
        raise
    except Exception as error:  # bytes that Flower cannot read as an array
        raise ModelMismatch(f"{sender} sent a half that cannot be read: {type(error).__name__}: {error}") from None
