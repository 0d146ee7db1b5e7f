"""`ServerForm`: nodes send gradients to the server, which sends their mean back with the next request for one.

    server -> node    the aggregate of the step before (a whole model to who has not the one before)
    node              updates its own copy, computes a gradient there, encodes it
    node -> server    the gradient, and the digest of its model
    server            decodes, averages, encodes the mean for the way back, and updates its own copy by what was encoded

So no model travels after the first, and all are equal bit for bit: a node with another digest is sent the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from flower_edge.codecs.codec import State
from flower_edge.codecs.sparse import Sparse, Update
from flower_edge.codecs.teacher import Told
from flower_edge.errors import CodecError, ProtocolError, WireError
from flower_edge.runtime.gradient_messages import (
    GRADIENT_RECORD,
    PACKET_RECORD,
    SERVER,
    TOLD_RECORD,
    Order,
    Sealed,
    record_with,
)
from flower_edge.runtime.gradient_replica import Replica
from flower_edge.runtime.gradient_setup import Setup, Vector, WeightedSum
from flower_edge.runtime.gradient_told import told_bytes
from flower_edge.wire import arrays_of, record_of

from .form import Exchanges, Form, bits_of, packet_of, report_of
from .members import Member

__all__ = ["ServerForm"]


class ServerForm(Form):
    """The parameter-server form; arguments as of `Form`."""

    def __init__(self, setup: Setup, rate: Callable[[int], Any], arrays_key: str) -> None:
        super().__init__(setup, rate, arrays_key)
        self._replica: Replica | None = None
        #: The aggregate that made the replica's version, as it travels, and the rate it was applied with.
        self._last: tuple[bytes, float] | None = None
        self._down: State | None = None
        self._decoders: dict[int, State] = {}
        self._teacher: State | None = None
        self._told = Told()

    def begin_from(self, arrays: ArrayRecord) -> None:
        """All begin from this model; codecs remember what they did."""
        codebook = None if self._replica is None else self._replica.extra.get("codebook")
        self._replica = Replica.of(arrays_of(arrays), self.setup)
        if codebook is not None:
            self._replica.extra["codebook"] = codebook
        self._last = self._down = None
        for member in self.members.known.values():
            member.version = -1

    def model(self) -> ArrayRecord:
        """The server's own copy."""
        return record_of(self._own.model())

    @property
    def _own(self) -> Replica:
        if self._replica is None:
            raise ProtocolError("aggregate_train before configure_train: GradientExchange knows no model yet")
        return self._replica

    def metrics(self) -> Mapping[str, float]:
        """What the codec's teacher tells of itself."""
        teacher = self._own.coder().teacher()
        return {} if teacher is None or self._teacher is None else teacher.metrics(self._teacher)

    def round(self, grid: Grid, steps: int, config: Mapping[str, ConfigRecord]) -> Exchanges:
        """One exchange per step."""
        for k in range(steps):
            asked = self.members.present(grid)
            replies = yield self._requests(asked, config), k == steps - 1
            self._take(grid, asked, replies)

    # -- down --------------------------------------------------------------------------------------------------------

    def _requests(self, asked: Mapping[int, int], config: Mapping[str, ConfigRecord]) -> list[Message]:
        replica, count = self._own, self.figures.count
        told = self._public()
        model: dict[str, Any] = {}
        messages: list[Message] = []
        for number, node in asked.items():
            member, records = self.members.known[number], dict[str, Any]()
            whole, setup, rate = False, "", 0.0
            if self._last is not None and member.version == replica.version - 1:
                packet, rate = self._last
                records[PACKET_RECORD] = record_with(packet)
                count(down_bits=8 * len(packet))
            elif member.version != replica.version:
                model = model or self.whole(replica)
                whole, records, setup = True, dict(model), replica.setup.text()
                count(whole_models=1, down_bits=bits_of(model))
            if told:
                records[TOLD_RECORD] = record_with(told)
                count(down_bits=8 * len(told))
            count(down_dense_bits=8 * replica.x.nbytes)
            order = Order(
                step=self.step,
                version=replica.version,
                index=number,
                whole=whole,
                fresh=member.fresh,
                heard=member.heard,
                rate=rate,
                setup=setup,
            )
            messages.append(self.message(node, order, config, **records))
            if member.fresh:
                self._decoders.pop(number, None)
            member.version = -1  # until it confirms
        return messages

    def _public(self) -> bytes:
        """What the codec's teacher makes public for this step."""
        replica = self._own
        teacher = replica.coder().teacher()
        if teacher is None:
            return b""
        state = teacher.init(replica.trained.layout) if self._teacher is None else self._teacher
        self._told, self._teacher = teacher.tell(state, self.step)
        if self._told.codebook is not None:
            replica.extra["codebook"] = self._told.codebook
        return told_bytes(self._told)

    # -- up ----------------------------------------------------------------------------------------------------------

    def _take(self, grid: Grid, asked: Mapping[int, int], replies: Sequence[Message]) -> None:
        replica, step = self._own, self.step
        total = WeightedSum(replica.trained.layout.size, replica.trained.dtype)
        updates: dict[int, Update] = {}
        refused: list[str] = []
        coder, digest = replica.coder(), replica.digest()
        answers = self.by_number(asked, replies)
        self.figures.count(steps=1, unheard=len(asked) - len(answers))
        for number, reply in answers.items():
            try:
                report = report_of(reply, step, number) if GRADIENT_RECORD in reply.content else None
                if report is not None and report.lost:
                    self.let_go(grid, number, "lost", f"has not this model ({report.lost}) and gets it", report.fresh)
                    continue
                data = packet_of(reply)
                self.figures.count(up_bits=8 * len(data), up_dense_bits=8 * replica.x.nbytes)
                sealed = Sealed.from_bytes(data, step=step, sender=number)
                if (sealed.version, sealed.digest) != (replica.version, digest):
                    self.let_go(grid, number, "other-model", "has another model than the server and gets it")
                    continue
                state = self._decoders.get(number)
                at = replica.moment(step, number, self._told.leader, replica.extra.get("codebook"))
                update, after = coder.decode(sealed.payload, coder.start() if state is None else state, at)
            except (CodecError, ProtocolError, WireError) as error:
                self.let_go(grid, number, "refused", f"sent what is not used: {error}")
                refused.append(str(error))
                continue
            self._decoders[number] = after
            total.add(update, sealed.weight)
            updates[number] = update
            self.members.known[number] = Member(replica.version, heard=step + 1, fresh=False)
            self.figures.note(reply)
        if len(refused) == len(answers):
            raise ProtocolError(f"no reply of the {len(refused)} could be used; the first: {refused[0]}")
        teacher = coder.teacher()
        if teacher is not None:
            assert self._teacher is not None
            self._teacher = teacher.learn(self._teacher, step, updates)
        self.step += 1
        if (mean := total.mean()) is not None:
            self._update(mean)

    def _update(self, mean: Vector) -> None:
        """Encode the mean for the way down, and apply what nodes will decode."""
        replica = self._own
        coder, rate = replica.down_coder(), self.rate(replica.version)
        version = replica.version + 1
        at = replica.moment(version, SERVER)
        payload, self._down = coder.encode(mean, coder.start() if self._down is None else self._down, at)
        state = replica.extra.get("down")
        update, replica.extra["down"] = coder.decode(payload, coder.start() if state is None else state, at)
        self._last = Sealed(version, SERVER, payload).to_bytes(), rate
        replica.apply(update.dense() if isinstance(update, Sparse) else update, rate)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, between two rounds."""
        return {
            **super().state_dict(),
            "replica": None if self._replica is None else self._replica.tree(),
            "last": None if self._last is None else list(self._last),
            "down": self._down,
            "decoders": {str(number): state for number, state in self._decoders.items()},
            "teacher": self._teacher,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        super().load_state_dict(state)
        self._replica = None if state["replica"] is None else Replica.from_tree(state["replica"], setup=self.setup)
        self._last = None if state["last"] is None else (state["last"][0], state["last"][1])
        self._down, self._teacher = state["down"], state["teacher"]
        self._decoders = {int(number): decoder for number, decoder in state["decoders"].items()}
