"""What is learned under a controller: real ClientApps that gossip in this process, on a small task or on LeNet.

The virtual clock moves by the true time of each round in a modelled world; every packet is taken to weigh what LeNet
weighs, whatever is trained. Nothing here compares controllers, prints or writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from ..clients.gossip import gossip_mod
from ..control.controller import Controller
from ..data import Dataset, load_dataset, make_partition
from ..errors import ConfigError
from ..models import evaluate, get_arrays, make_model, set_arrays, train
from ..runtime.clock.round_clock import RoundClock
from ..runtime.generators import derive_seed
from ..runtime.local_grid import LocalGrid
from ..strategies.gossip.gossip import Gossip
from ..topology.set_ups import LENET_BITS
from ..topology.world import World
from ..wire import arrays_of, record_of, server_round_of

__all__ = ["TASKS", "Learned", "LearningTask", "learn", "seconds_to", "task_named"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LearningTask:
    """A data set, a model, and how a node trains in a round.

    Attributes:
        data, size: of `data.load_dataset`.
        model, options: of `models.make_model`.
        classes: that each node holds.
        steps, batch_size, lr, momentum: of local training in a round.
        decay: of the learning rate, per round: what a node learns alone pulls the models apart to the end.
        every: rounds between two readings of all nodes' accuracies.
    """

    data: str
    size: int
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 6
    steps: int = 4
    batch_size: int = 32
    lr: float = 0.05
    momentum: float = 0.0
    decay: float = 1.0
    every: int = 3


#: Tasks by name: one that takes seconds, and [1] ¶49's.
TASKS: Final = {
    "digits": LearningTask("digits", 8, "numpy-mlp", {"hidden": (48,)}),
    "mnist": LearningTask("mnist", 28, "lenet5", steps=10, lr=0.12, momentum=0.5, decay=0.99),
}


@dataclass(frozen=True, eq=False)
class Learned:
    """Accuracies on the common test data, as they were read; each node's own model, after training.

    Attributes:
        rounds: in which they were read, float64 [readings].
        virtual_s: time at the end of those rounds, float64 [readings].
        mean, worst: over the nodes, float64 [readings].
        watched: of node 0, float64 [readings].
    """

    rounds: Floats
    virtual_s: Floats
    mean: Floats
    worst: Floats
    watched: Floats


def learn(
    controller: Controller,
    world: World,
    rounds: int,
    *,
    seed: int,
    task: LearningTask = TASKS["digits"],
    path: str | None = None,
    payload_bits: float = LENET_BITS,
    **options: Any,
) -> Learned:
    """Train for `rounds` rounds of gossip; the same arguments give the same numbers.

    Args:
        controller: of weights and bandwidth.
        world: as many nodes as it has take part.
        seed: of data, partition, first model and batches.
        task: what is learned.
        path: where MNIST lies, for a task that needs it.
        payload_bits: what a packet is taken to weigh on its link.
        options: further ones of `Gossip`.

    Raises:
        ConfigError: the data, or the packages they need, are not there.
    """
    train_set, test_set = load_dataset(task.data, path=path, size=task.size, seed=seed)
    nodes = world.topology.nodes
    partition = make_partition("classes-per-node", train_set.labels, nodes, seed=seed, k=task.classes)
    own = [train_set.subset(mine) for mine in partition]
    app = _learners(task, own, test_set, seed)
    first = make_model(
        task.model, input_shape=train_set.input_shape, num_classes=train_set.num_classes, seed=seed, **task.options
    )
    strategy = Gossip(
        controller,
        world=world,
        payload_bits=payload_bits,
        evaluate_every=task.every,
        watch=0,
        seed=seed,
        **options,
    )
    with LocalGrid(app, nodes, seed=seed) as grid:
        result = strategy.start(RoundClock(grid), record_of(get_arrays(first)), rounds)
    took_s = {number: float(metrics["round_time_s"]) for number, metrics in result.train_metrics_clientapp.items()}  # type: ignore[arg-type]
    read = result.evaluate_metrics_clientapp
    at_s = np.cumsum([took_s[number] for number in sorted(took_s)])
    return Learned(
        np.array(sorted(read), np.float64),
        at_s[np.array(sorted(read), np.int64) - 1],
        *(
            np.array([read[number][name] for number in sorted(read)], np.float64)
            for name in ("accuracy", "accuracy_worst", "accuracy_watched")
        ),
    )


def seconds_to(learned: Learned, accuracy: float, *, worst: bool = False) -> tuple[float, float]:
    """Rounds and virtual seconds until the mean accuracy, or the worst node's, was first read to be as high; else NaN.

    >>> ten = np.array([10.0, 20.0])
    >>> seconds_to(Learned(ten, 2 * ten, ten / 20, ten / 25, ten), 0.9)
    (20.0, 40.0)
    """
    good = np.flatnonzero((learned.worst if worst else learned.mean) >= accuracy)
    return (float(learned.rounds[good[0]]), float(learned.virtual_s[good[0]])) if len(good) else (math.nan, math.nan)


def _learners(task: LearningTask, own: list[Dataset], test_set: Dataset, seed: int) -> ClientApp:
    """A ClientApp as anybody would write it, with the gossip mod."""
    app = ClientApp(mods=[gossip_mod])
    shape, classes = test_set.input_shape, test_set.num_classes
    # Nodes of a sequential grid take turns: one model serves all, and each sets its own arrays.
    model = make_model(task.model, input_shape=shape, num_classes=classes, seed=seed, **task.options)

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        node, number = int(context.node_config["partition-id"]), server_round_of(message) or 0
        set_arrays(model, arrays_of(message.content.array_records["arrays"]))
        done = train(
            model,
            own[node].x,
            own[node].y,
            steps=task.steps,
            batch_size=task.batch_size,
            lr=task.lr * task.decay**number,
            momentum=task.momentum,
            seed=derive_seed(seed, node, number),
        )
        metrics = MetricRecord({"num-examples": done.examples, "loss": done.loss})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate_here(message: Message, context: Context) -> Message:
        set_arrays(model, arrays_of(message.content.array_records["arrays"]))
        found = evaluate(model, test_set.x, test_set.y)
        metrics = MetricRecord({"num-examples": len(test_set), "accuracy": found.accuracy, "loss": found.loss})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def task_named(name: str) -> LearningTask:
    """A task by name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TASKS:
        raise ConfigError(f"task {name!r}: expected one of {', '.join(TASKS)}")
    return TASKS[name]
