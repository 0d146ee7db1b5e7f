"""For tests of `Compressed`: the toy federation behind `codec_mod`, a layer that shows its states, a Grid to meddle."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from toy import initial_model, toy_app

from flower_edge.clients.codec import codec_mod
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.codec_messages import blob_in
from flower_edge.runtime.exchange import Trained, evaluate_once, train_once
from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.strategies import Layer, Layered, LayeredGrid
from flower_edge.strategies.compression import Compressed

NODES = 5
Hook = Callable[[list[Message]], list[Message]]


def coded_app(inner: Callable[[], ClientApp] = toy_app) -> ClientApp:
    """An app whose functions see models while codes travel."""
    within, app = inner(), ClientApp(mods=[codec_mod])
    app.train()(lambda message, context: within(message, context))
    app.evaluate()(lambda message, context: within(message, context))
    return app


class Tap(WrappedGrid):
    """A Grid in which a test may see, change or drop what passes; `sent` and `came` keep the last batches."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.down: Hook = lambda messages: messages
        self.up: Hook = lambda replies: replies
        self.sent: list[Message] = []
        self.came: list[Message] = []

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        """Through both hooks."""
        sent = self.down(list(messages))
        # The layer gives replies another content: what is kept is as it travelled.
        self.sent = [clone_message(message) for message in sent]
        came = self.up(list(self.inner.send_and_receive(sent, timeout=timeout)))
        self.came = [clone_message(reply) for reply in came]
        return came

    def blobs(self) -> list[bytes]:
        """Of the messages sent last."""
        return blobs(self.sent)


def blobs(messages: list[Message]) -> list[bytes]:
    """The blob of each message that has one."""
    found = [blob_in(message.content, sender="a test") for message in messages if message.has_content()]
    return [entry[1] for entry in found if entry is not None]


class Bench:
    """A session of one layer, one exchange at a time.

    Attributes:
        local: its nodes, 1000, 1001, ….
        tap: between layer and nodes.
        grid: the layer's.
        model: of the strategy, after the exchanges so far.
    """

    def __init__(
        self, layer: Layer[Any], local: LocalGrid, model: ArrayRecord, strategy: Strategy | None = None
    ) -> None:
        self.local, self.tap = local, Tap(local)
        self.grid = LayeredGrid(self.tap, [layer])
        self.strategy = strategy or FedAvg(min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1)
        self.model, self.number = model, 0
        self.events: list[Event] = []

    @property
    def state(self) -> Any:
        """Of the layer."""
        return self.grid.states[0]

    def train(self) -> Trained:
        """A training exchange and its merge."""
        self.number += 1
        done = train_once(
            self.strategy, self.grid, Round(self.number), self.number, self.model, ConfigRecord(), timeout_s=None
        )
        if done.arrays is not None:
            self.model = done.arrays
        self.events += self.grid.events()
        return done

    def evaluate(self) -> None:
        """An evaluation exchange."""
        round = Round(self.number, kind="evaluate")
        evaluate_once(self.strategy, self.grid, round, self.number, self.model, ConfigRecord(), timeout_s=None)
        self.events += self.grid.events()

    def memory(self, node: int) -> Any:
        """What a node remembers for its codec."""
        return NodeState(self.local.context_of(node), "codec").load()

    def forget(self, node: int) -> None:
        """A SuperNode was restarted."""
        NodeState(self.local.context_of(node), "codec").delete()


@contextmanager
def bench(
    layer: Compressed,
    *,
    nodes: int = NODES,
    app: Callable[[], ClientApp] = coded_app,
    model: Callable[[], ArrayRecord] = initial_model,
    strategy: Strategy | None = None,
) -> Iterator[Bench]:
    """A seeded session on nodes of its own."""
    random.seed(5)
    np.random.seed(5)
    with LocalGrid(app(), nodes) as local:
        yield Bench(layer, local, model(), strategy)


def run(
    *layers: Layer[Any],
    strategy: Callable[[], Strategy] = FedAvg,
    app: Callable[[], ClientApp] = coded_app,
    model: Callable[[], ArrayRecord] = initial_model,
    nodes: int = NODES,
    rounds: int = 3,
    **options: Any,
) -> Result:
    """A seeded run; without layers, of the strategy alone."""
    random.seed(5)
    np.random.seed(5)
    with LocalGrid(app(), nodes) as grid:
        wrapped = Layered(strategy(), *layers) if layers else strategy()
        return wrapped.start(grid, model(), num_rounds=rounds, **options)


def distance(one: ArrayRecord, other: ArrayRecord) -> float:
    """Largest difference between two models."""
    return max(float(np.abs(one[name].numpy().astype(float) - other[name].numpy()).max(initial=0)) for name in one)
