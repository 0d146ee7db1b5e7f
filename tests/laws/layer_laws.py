"""`LayerLaws`: what every layer owes the strategy above it and the checkpoint. Subclass, give `make`, get every law.

class TestMyLayer(LayerLaws):
    def make(self):
        return MyLayer(0.5)
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, same_model, toy_app

from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.store import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Layer, Layered, LayeredGrid

NODES = 5


class _Spying(WrappedGrid):
    """Keeps what passes, as it was when it passed."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.sent: list[RecordDict] = []

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        messages = list(messages)
        self.sent += [message.content for message in messages]
        return super().send_and_receive(messages, timeout=timeout)


def _strategy() -> FedAvg:
    return FedAvg(fraction_train=0.8, fraction_evaluate=0.4)


class LayerLaws(ABC):
    """Laws of a layer on the toy federation."""

    #: What its nodes run: a layer that has another half there brings its mod.
    app: ClassVar[Callable[[], ClientApp]] = staticmethod(toy_app)

    @abstractmethod
    def make(self) -> Layer[Any]:
        """The layer under test, configured the same way every time."""

    def run(self, layer: Layer[Any], rounds: int = 3) -> tuple[ArrayRecord, LayeredGrid]:
        random.seed(4)
        np.random.seed(4)
        kept: list[LayeredGrid] = []

        class Keeping(FedAvg):
            def configure_train(self, *arguments: Any) -> Any:
                kept.append(arguments[-1])
                return super().configure_train(*arguments)

        with LocalGrid(self.app(), NODES) as grid:
            strategy = Keeping(fraction_train=0.8, fraction_evaluate=0.4)
            result = Layered(strategy, layer).start(grid, initial_model(), num_rounds=rounds)
        return result.arrays, kept[0]

    def test_the_same_layer_gives_the_same_model_and_metrics_again(self) -> None:
        layer = self.make()
        first, one = self.run(layer)
        second, two = self.run(layer)
        assert same_model(first, second)
        assert one.metrics() == two.metrics()

    def test_the_layer_itself_is_not_changed_by_a_run(self) -> None:
        layer = self.make()
        before = copy.deepcopy(vars(layer))
        self.run(layer)
        assert vars(layer) == before

    def test_a_fresh_state_is_equal_every_time_and_not_shared(self) -> None:
        layer = self.make()
        assert repr(layer.dump(layer.init())) == repr(layer.dump(layer.init()))

    def test_its_state_survives_a_checkpoint_file(self) -> None:
        layer = self.make()
        _, session = self.run(layer)
        dumped = layer.dump(session.states[0])
        loaded = layer.load(tree_from_bytes(tree_to_bytes({"state": dumped}))["state"])
        assert repr(layer.dump(loaded)) == repr(dumped)
        assert layer.metrics(loaded) == layer.metrics(session.states[0])

    def test_its_metrics_are_plain_numbers(self) -> None:
        _, session = self.run(self.make())
        assert all(type(value) in (int, float) for value in session.metrics().values())

    def test_messages_that_share_one_content_are_not_changed_in_place(self) -> None:
        with LocalGrid(self.app(), NODES) as grid:
            session = LayeredGrid(grid, [self.make()])
            content = RecordDict({"arrays": initial_model(), "config": ConfigRecord({"server-round": 1})})
            nodes = list(session.get_node_ids())
            list(session.send_and_receive([Message(content, node, "train") for node in nodes]))
        assert same_model(content.array_records["arrays"], initial_model())
        assert dict(content.config_records["config"].items()) == {"server-round": 1}

    def test_it_narrows_to_nodes_that_are_there(self) -> None:
        with LocalGrid(toy_app(), NODES) as grid:
            there = list(grid.get_node_ids())
            shown = list(LayeredGrid(grid, [self.make()]).get_node_ids())
        assert set(shown) <= set(there)
        assert len(set(shown)) == len(shown)


class NeutralLayerLaws(LayerLaws):
    """Laws of a layer that promises to change nothing, on top of those of every layer."""

    def test_model_and_messages_are_those_of_the_strategy_alone(self) -> None:
        def sent(wrap: Any) -> tuple[ArrayRecord, list[str]]:
            random.seed(4)
            np.random.seed(4)
            with LocalGrid(toy_app(), NODES) as grid:
                spy = _Spying(grid)
                model = wrap(_strategy()).start(spy, initial_model(), num_rounds=3).arrays
            return model, [repr(content) for content in spy.sent]

        alone, layered = sent(lambda strategy: strategy), sent(lambda strategy: Layered(strategy, self.make()))
        assert same_model(alone[0], layered[0])
        assert alone[1] == layered[1]
