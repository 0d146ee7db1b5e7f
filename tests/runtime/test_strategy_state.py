"""The state of a strategy is a plain tree, complete after real rounds, and a stranger's is refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from toy import flower_strategies

from flower_edge.errors import ResumeError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.strategy_state import innermost, load_strategy_state, strategy_state
from flower_edge.store import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Layered

NODES = 6
CASES = flower_strategies(NODES)


def trained(name: str) -> Strategy:
    make, app, model = CASES[name]
    random.seed(2)
    np.random.seed(2)
    strategy = make()
    with LocalGrid(app(), NODES) as grid:
        strategy.start(grid, model(), num_rounds=2)
    return strategy


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_trained_strategys_state_goes_into_a_fresh_one_through_a_file(name: str) -> None:
    state = strategy_state(trained(name))
    fresh = CASES[name][0]()
    load_strategy_state(fresh, tree_from_bytes(tree_to_bytes(state)))
    assert tree_to_bytes(strategy_state(fresh)) == tree_to_bytes(state)


def test_momentum_is_in_it_and_functions_are_not() -> None:
    state = strategy_state(trained("FedAdam"))["own"]
    assert {"m_t", "v_t", "current_arrays"} <= set(state)
    assert any(np.any(array) for array in state["m_t"]["value"].values())
    assert not [name for name in state if name.endswith("_fn") or "selection_rule" in name]


def test_a_wrappers_state_holds_that_of_the_strategy_inside_whatever_the_depth() -> None:
    inner = FedAdam(eta=0.25)
    wrapped = flower.DifferentialPrivacyServerSideFixedClipping(inner, 0.1, 1.0, 2)
    assert innermost(Layered(wrapped)) is inner
    state = strategy_state(Layered(wrapped))
    assert state["own"]["strategy"]["inner"]["own"]["eta"] == {"value": 0.25}


class Remembering(FedAvg):
    """A strategy of somebody's own that says what its state is."""

    best = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]


def test_a_strategy_that_says_what_its_state_is_is_asked() -> None:
    strategy, fresh = Remembering(), Remembering()
    strategy.best = 0.75
    load_strategy_state(fresh, strategy_state(strategy))
    assert fresh.best == 0.75


def test_the_state_of_another_class_inside_the_same_wrapper_is_refused_by_both_names() -> None:
    def wrapped(inner: Strategy) -> Strategy:
        return flower.DifferentialPrivacyServerSideFixedClipping(inner, 0.1, 1.0, 2)

    with pytest.raises(ResumeError, match=r"made with FedAdam, this run uses FedAvg"):
        load_strategy_state(wrapped(FedAvg()), strategy_state(wrapped(FedAdam())))
