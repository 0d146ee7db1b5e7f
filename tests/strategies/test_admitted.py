"""`Admitted` where nothing is wrong: it changes nothing, on any strategy and at each tier."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg, Strategy
from laws.layer_laws import NeutralLayerLaws
from toy import flower_strategies, initial_model, same_model, toy_app

from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layer, Layered
from flower_edge.strategies.filtering.admitted import Admitted


class Keeping(Admitted):
    """Keeps its states, for the tests to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def inbound(self, *arguments: Any) -> Any:
        replies, state = super().inbound(*arguments)
        self.kept.append(state)
        return replies, state


class TestLawsOfAdmitted(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return Admitted(most_examples=1000, seed=3)


@pytest.mark.parametrize("name", flower_strategies())
def test_every_flower_strategy_is_bit_for_bit_itself(name: str) -> None:
    make, app, start = flower_strategies()[name]

    def model(wrap: Any) -> ArrayRecord:
        random.seed(4)
        np.random.seed(4)
        with LocalGrid(app(), 6) as grid:
            found: ArrayRecord = wrap(make()).start(grid, start(), num_rounds=3).arrays
            return found

    gate = Keeping()
    assert same_model(model(lambda strategy: strategy), model(lambda strategy: Layered(strategy, gate)))
    assert gate.kept[-1].counts == {}


def test_behind_a_proxy_of_the_grid_nothing_changes() -> None:
    gate = Keeping()

    def model(chosen: Strategy, wrap: Any) -> ArrayRecord:
        random.seed(4)
        np.random.seed(4)
        with LocalGrid(toy_app(), 6) as grid:
            found: ArrayRecord = chosen.start(wrap(grid), initial_model(), num_rounds=3).arrays
            return found

    proxied = model(Layered(FedAvg(), gate), lambda grid: GridProxy(grid, poll_s=0.05, ask_properties=False))
    assert same_model(proxied, model(FedAvg(), lambda grid: grid))
    assert gate.kept[-1].counts == {}
