"""A whole federated run with codecs, over the library's own path: FedAvg, `Compressed`, `codec_mod`, `LocalGrid`.

Bytes are those of the blobs that travelled, with header and check sum, from the first round to the last; Flower's own
bytes around them are counted beside. Nothing here decides which codec is good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.clients.codec import codec_mod
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.leader import leads
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies.compression import Compressed
from flower_edge.strategies.flat_work import FlatWork
from flower_edge.strategies.layered import LayeredGrid
from flower_edge.strategies.loop import drive
from flower_edge.strategies.metered import Metered
from flower_edge.wire import arrays_of, record_of

from .encoding_task import NODES, Federation, accuracy, cosine, first_model, local_update, make_federation

__all__ = ["LAST", "Outcome", "Setting", "digits_app", "leader_lost", "run_app", "run_setting"]

#: Accuracy is the mean over so many rounds at the end.
LAST: Final = 5
#: Rounds between two readings before, for the curve.
_EVERY: Final = 10


@dataclass(frozen=True)
class Setting:
    """One run.

    Attributes:
        split, seed: of the data; the seed is also that of the first model and the batches.
        rounds: how many; the learning rate falls to zero over them.
        up: the codec of updates.
        down: that of the model's changes on the way down; `None` sends plain float32 models.
        first: that of the first model on the way down.
        lost: the message of the node whose turn it is to lead is lost, in every round.
    """

    split: str
    seed: int
    rounds: int
    up: VectorCodec = field(default_factory=Identity)
    down: Codec | None = None
    first: Codec | None = None
    lost: bool = False

    @property
    def dense(self) -> Setting:
        """The same run without encoding."""
        return Setting(self.split, self.seed, self.rounds)

    @property
    def name(self) -> str:
        """For progress."""
        down = "" if self.down is None else f", {self.down!r} down"
        return f"{self.split}, seed {self.seed}, {self.rounds} rounds: {self.up!r}{down}"


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        accuracy: on the test pictures, in percent, mean of the last rounds.
        curve: round and accuracy, now and then.
        messages: that went up.
        up_bytes, down_bytes: of all blobs (and of plain models, where those go down).
        up_wire_bytes, down_wire_bytes: with what Flower puts around them.
        plain_bytes: of the same models as float32, one way.
        told: what the layer measured in the last round.
    """

    accuracy: float
    curve: tuple[tuple[int, float], ...]
    messages: int
    up_bytes: float
    down_bytes: float
    up_wire_bytes: float
    down_wire_bytes: float
    plain_bytes: float
    told: Mapping[str, float]

    @property
    def up_ratio(self) -> float:
        """float32 over what went up."""
        return self.plain_bytes / self.up_bytes

    @property
    def down_ratio(self) -> float:
        """float32 over what went down."""
        return self.plain_bytes / self.down_bytes

    @property
    def roundtrip_ratio(self) -> float:
        """The same of both directions together."""
        return 2 * self.plain_bytes / (self.up_bytes + self.down_bytes)

    @property
    def wire_ratio(self) -> float:
        """float32 over what went up with Flower's own bytes."""
        return self.plain_bytes / self.up_wire_bytes

    @property
    def framing_bytes(self) -> float:
        """Flower's own bytes per message on the way up."""
        return (self.up_wire_bytes - self.up_bytes) / self.messages


def digits_app(federation: Federation, rounds: int) -> ClientApp:
    """The nodes: two epochs on their own pictures."""
    app = ClientApp(mods=[codec_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        round = int(str(message.content.config_records["config"]["server-round"])) - 1
        arrays = arrays_of(message.content.array_records["arrays"])
        update = local_update(federation, arrays, node, round, cosine(round, rounds))
        trained = record_of({name: array + update[name] for name, array in arrays.items()})
        metrics = MetricRecord({"num-examples": len(federation.y[node])})
        return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)

    return app


def run_setting(setting: Setting) -> Outcome:
    """Run it; the same setting gives the same outcome."""
    torch.set_num_threads(1)
    federation = make_federation(setting.split, setting.seed)
    app = digits_app(federation, setting.rounds)
    return run_app(setting, app, NODES, first_model(setting.seed), lambda arrays: accuracy(federation, arrays))


def run_app(
    setting: Setting,
    app: ClientApp,
    nodes: int,
    start: Mapping[str, npt.NDArray[Any]],
    judge: Callable[[Mapping[str, npt.NDArray[Any]]], float],
) -> Outcome:
    """Run any app in that setting.

    Args:
        nodes: how many take part, all in every round.
        start: the first model.
        judge: a model's accuracy, from 0 to 1.
    """
    curve: list[tuple[int, float]] = []

    def judged(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number and (number > setting.rounds - LAST or number % _EVERY == 0):
            curve.append((number, 100 * judge(arrays_of(arrays))))
        return MetricRecord({})

    layers = Compressed(setting.up, down=setting.down, first=setting.first), Metered(framing=True)
    script = leader_lost(nodes, setting.rounds) if setting.lost else ()
    with LocalGrid(app, nodes=nodes, seed=setting.seed, script=script) as grid:
        layered = LayeredGrid(grid, layers)
        strategy = FedAvg(fraction_evaluate=0.0)
        drive(FlatWork(strategy, None), layered, record_of(start), setting.rounds, 3600.0, ConfigRecord(), None, judged)
        told = layered.metrics()
    last = [value for number, value in curve if number > setting.rounds - LAST]
    messages = nodes * setting.rounds - (setting.rounds if setting.lost else 0)
    return Outcome(
        float(np.mean(last)),
        tuple(curve),
        messages,
        told["total_coded_up_bits"] / 8,
        told["total_coded_down_bits"] / 8,
        told["total_up_bits"] / 8,
        told["total_down_bits"] / 8,
        4.0 * sum(array.size for array in start.values()) * messages,
        told,
    )


def leader_lost(nodes: int, rounds: int) -> list[Fault]:
    """In each round the node whose turn it is to lead fails; a node gets one message per round."""
    turns = ((node, round) for round in range(1, rounds + 1) for node in range(nodes))
    return [Fault(node, "raise", at=round) for node, round in turns if leads(node, round, nodes)]
