"""What hyperparameter reports are worth from a bad common start: digits, a 64-32-10 perceptron, ten uneven nodes.

Everybody starts with a learning rate ten times too small, or too large, or with the right one. Compared are nodes that
train with what they are told and report nothing, nodes that search around the proposal (three trials a round), and
nodes that report what they were sent to try (`explore`), which costs no training. All nodes keep a fifth of their
samples for validation, so that what they train on is the same. Equal rounds, and equal work: the steps of all trials.
Functions only; whoever measures the provision of models calls them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_edge.clients.tuning import proposed, report
from flower_edge.data.digits import load_digits
from flower_edge.data.partition import dirichlet
from flower_edge.models.numpy_mlp import NumpyMLP, evaluate, train
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layer, Layered, VersionGate
from flower_edge.strategies.tuned import Tuned
from flower_edge.tuning import LogScale, Value, local_search
from flower_edge.wire import arrays_of, record_of

__all__ = ["BAD_STARTS", "RIGHT", "TuningResult", "TuningRun", "hyper_gain_points", "run_tuning", "same_work"]

NODES: Final = 10
ROUNDS: Final = 20
STEPS: Final = 10
BATCH: Final = 32
TRIES: Final = 3
#: The share of nodes that are sent a neighbour of the proposal, where nodes explore.
EXPLORED: Final = 0.67
SIZES: Final = (64, 32, 10)
KINDS: Final = {"lr": LogScale(1e-4, 10.0)}
#: The learning rate that FedAvg does well with here, and starts that are ten times off.
RIGHT: Final = 0.4
BAD_STARTS: Final = {"low": RIGHT / 10.0, "high": RIGHT * 10.0}
#: Samples that the server holds out for its gate; nobody trains on them, gate or not.
HELD_OUT: Final = 200
_VALIDATION_SHARE: Final = 0.2

#: What nodes do: train with what they are told, search around it, or report what they were sent.
Way = Literal["fixed", "search", "explore"]


@dataclass(frozen=True)
class TuningRun:
    """One federation.

    Attributes:
        way: what nodes do.
        start: the learning rate that is proposed first.
        seed: of the data, the model and all draws.
        steps: of each training and of each trial.
        rounds: of the federation.
        gated: whether a merge that makes the model worse on the server's 200 samples is refused, in whatever way.
    """

    way: Way
    start: float
    seed: int
    steps: int = STEPS
    rounds: int = ROUNDS
    gated: bool = False


def same_work(run: TuningRun, way: Way) -> TuningRun:
    """A run of another way whose nodes make as many steps in as many rounds: a search shares them among its trials.

    >>> same_work(TuningRun("search", 0.04, seed=0), "fixed").steps
    30
    """
    here, there = (TRIES if each == "search" else 1 for each in (run.way, way))
    return TuningRun(way, run.start, run.seed, run.steps * here // there, run.rounds, run.gated)


@dataclass(frozen=True)
class TuningResult:
    """What a federation came to.

    Attributes:
        accuracy: per cent of the test set that the last model gets right.
        lr: the geometric mean of the learning rates that nodes were sent in the last round.
        steps: gradient steps made by all nodes, trials among them.
    """

    accuracy: float
    lr: float
    steps: int


def run_tuning(run: TuningRun) -> TuningResult:
    """Run one federation. It depends on nothing but `run`."""
    train_set, test = load_digits(seed=run.seed)
    flat, held = train_set.x.reshape(len(train_set), -1), (train_set.x[:HELD_OUT], train_set.y[:HELD_OUT])
    parts = dirichlet(train_set.y[HELD_OUT:], NODES, alpha=0.5, min_size=20, seed=run.seed).indices
    nodes = [_Node(run, node, flat[HELD_OUT:][part], train_set.y[HELD_OUT:][part]) for node, part in enumerate(parts)]
    app = ClientApp()

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        return nodes[int(context.node_config["partition-id"])].answer(message)

    random.seed(run.seed)
    layers: list[Layer[Any]] = []
    if run.way != "fixed":
        explore = EXPLORED if run.way == "explore" else 0.0
        layers.append(Tuned(KINDS, {"lr": run.start}, explore=explore, seed=run.seed))
    if run.gated:
        layers.append(VersionGate(lambda arrays: _loss(arrays, *held), higher_is_better=False))
    strategy = Layered(FedAvg(fraction_evaluate=0.0), *layers)
    model = NumpyMLP(SIZES, run.seed)
    with LocalGrid(app, NODES) as grid, np.errstate(all="ignore"):  # a learning rate may be far too large
        first, config = record_of(model.arrays()), ConfigRecord({"lr": run.start})
        model.load(arrays_of(strategy.start(grid, first, num_rounds=run.rounds, train_config=config).arrays))
        accuracy = evaluate(model, test.x.reshape(len(test), -1), test.y).accuracy
    lr = float(np.exp(np.mean([np.log(node.sent) for node in nodes])))
    return TuningResult(100.0 * accuracy, lr, sum(node.steps for node in nodes))


def _loss(arrays: ArrayRecord, x: NDArray[Any], y: NDArray[np.int64]) -> float:
    model = NumpyMLP(SIZES)
    model.load(arrays_of(arrays))
    return evaluate(model, x, y).loss


class _Node:
    """A terminal with its samples: it trains, searches or tries what it was sent."""

    def __init__(self, run: TuningRun, number: int, x: NDArray[Any], y: NDArray[np.int64]) -> None:
        self.run, self.number = run, number
        # Drawn once and not per round: what was trained on never scores.
        order = np.random.default_rng([run.seed, number]).permutation(len(y))
        held = max(1, round(_VALIDATION_SHARE * len(y)))
        self.checks, self.own = (x[order[:held]], y[order[:held]]), (x[order[held:]], y[order[held:]])
        self.sent, self.steps = run.start, 0

    def answer(self, message: Message) -> Message:
        """The model after training, and a report where this way of tuning has one."""
        config = message.content.config_records["config"]
        self.sent = float(config["lr"])  # type: ignore[arg-type]
        draws = np.random.default_rng([self.run.seed, int(config["server-round"]), self.number])  # type: ignore[arg-type]
        schedule = int(draws.integers(2**31))
        before = arrays_of(message.content.array_records["arrays"])
        models: dict[Value, NumpyMLP] = {}

        def trial(values: dict[str, Value]) -> float:
            model = models[values["lr"]] = self._loaded(before)
            lr = float(values["lr"])
            train(model, *self.own, steps=self.run.steps, batch_size=BATCH, lr=lr, seed=schedule)
            self.steps += self.run.steps
            return -evaluate(model, *self.checks).loss

        with np.errstate(all="ignore"):
            given = evaluate(self._loaded(before), *self.checks).loss
            if self.run.way == "search":
                found = local_search(proposed(message), KINDS, trial, draws, TRIES)
                values, score = dict(found.values), found.score
            else:
                values = {"lr": self.sent}
                score = trial(values)
        # The best trial's model is the reply: no other training follows.
        gain = -np.inf if score is None or not np.isfinite(score) else score + given
        arrays, examples = record_of(models[values["lr"]].arrays()), len(self.own[1])
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": examples})})
        if self.run.way != "fixed" and np.isfinite(gain):
            content = report(content, values, gain)
        return Message(content, reply_to=message)

    def _loaded(self, arrays: dict[str, NDArray[Any]]) -> NumpyMLP:
        model = NumpyMLP(SIZES)
        model.load(arrays)
        return model


def hyper_gain_points(
    start: float, seeds: Iterable[int], way: Way = "search", *, equal_work: bool = False, gated: bool = False
) -> float:
    """Mean points of test accuracy that reports gain over training with what was told first.

    Args:
        start: the learning rate everybody starts with.
        seeds: of the runs compared, pair by pair.
        way: how nodes come to a report.
        equal_work: against nodes that make as many steps a round as the search does in all its trials.
        gated: both with a gate at the server, without which a rate far too large loses the model in the first round.
    """
    gains = []
    for seed in seeds:
        run = TuningRun(way, start, seed, gated=gated)
        base = same_work(run, "fixed") if equal_work else replace(run, way="fixed")
        gains.append(run_tuning(run).accuracy - run_tuning(base).accuracy)
    return float(np.mean(gains))
