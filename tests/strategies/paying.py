"""Runs of a small real federation that pays, and exchanges by hand, for the tests of rewards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from toy import DIMENSION, initial_model, toy_app

from flower_edge.events import Event
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.rounds import Round
from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layer, Layered, LayeredGrid
from flower_edge.strategies.rewards.rewarded import Rewarded, RewardedState
from flower_edge.wire import copy_content, record_of

POT = 1_000_000
_X = np.random.default_rng(9).normal(size=(60, DIMENSION)) + 0.3
_Y = _X @ np.arange(1.0, DIMENSION + 1) + 0.5


def evaluate(arrays: Mapping[str, np.ndarray]) -> EvalResult:
    """The toy's held-out data."""
    error = _X @ arrays["weight"].astype(float) + float(arrays["bias"][0]) - _Y
    return EvalResult(float(np.mean(error**2)), float(np.mean(np.abs(error) < 1.0)), len(_X))


def paying(**options: Any) -> Rewarded:
    """The layer, configured the same way every time."""
    return Rewarded(evaluate, **{"budget": Budget(POT), "seed": 3, **options})


class Telling(Rewarded):
    """Keeps what it has told, for the test."""

    def __init__(self, **options: Any) -> None:
        super().__init__(evaluate, **{"budget": Budget(POT), "seed": 3, **options})
        self.told: list[Event] = []

    def events(self, state: RewardedState) -> tuple[list[Event], RewardedState]:
        told, state = super().events(state)
        self.told += told
        return told, state


def rewarded(**options: Any) -> Telling:
    return Telling(**options)


class Replies(Layer[int]):
    """Nearer to the wire: changes a node's train replies, by its place among the replies of the first round."""

    def __init__(self, change: Callable[[int, Message], Iterable[Message]]) -> None:
        self.change = change

    def init(self) -> int:
        return 0

    def inbound(self, state: int, round: Round, replies: list[Message]) -> tuple[list[Message], int]:
        if round.kind != "train":
            return replies, state
        ordered = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        return [changed for k, reply in enumerate(ordered) for changed in self.change(k, reply)], state + 1


def fedavg(**options: Any) -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, **options)


def session_of(
    layer: Telling, *layers: Layer[Any], nodes: int = 4, rounds: int = 2
) -> tuple[LayeredGrid, list[Event], Result]:
    """A run; its layered Grid, the events that were told, and its result."""
    kept: list[LayeredGrid] = []

    class Keeping(FedAvg):
        def configure_train(self, *arguments: Any) -> Any:
            kept.append(arguments[-1])
            return super().configure_train(*arguments)

    random.seed(2)
    with LocalGrid(toy_app(), nodes) as grid:
        strategy = Layered(Keeping(fraction_evaluate=0.0), layer, *layers)
        result = strategy.start(grid, initial_model(), num_rounds=rounds)
    return kept[0], layer.told, result


def credits_of(told: Iterable[Event]) -> dict[str, int]:
    total: dict[str, int] = {}
    for event in told:
        if event.what == "rewarded":
            total[event.node] = total.get(event.node, 0) + int(event.values["micro"])
    return total


def with_arrays(reply: Message, **arrays: np.ndarray) -> Message:
    content = copy_content(reply.content)
    content["arrays"] = record_of(arrays)
    return clone_message(reply, content)


def with_metrics(reply: Message, **values: Any) -> Message:
    content = copy_content(reply.content)
    for name, value in values.items():
        content["metrics"][name.replace("_", "-")] = value  # type: ignore[index, call-overload]
    return clone_message(reply, content)


def exchange(
    grid: LayeredGrid,
    round: Round,
    model: ArrayRecord,
    change: Callable[[int, Message], Iterable[Message]] = lambda k, reply: [reply],
    through: Grid | None = None,
) -> list[Message]:
    """One exchange by hand, `through` another Grid than the one below the layers: replies, changed below them."""
    strategy = fedavg()
    grid.announced(round)
    messages = list(strategy.configure_train(round.cloud, model, ConfigRecord(), grid))

    def deliver(outgoing: list[Message]) -> list[Message]:
        replies = sorted(
            (through or grid.inner).send_and_receive(outgoing), key=lambda reply: reply.metadata.src_node_id
        )
        return [changed for k, reply in enumerate(replies) for changed in change(k, reply)]

    return grid.hop(messages, deliver)
