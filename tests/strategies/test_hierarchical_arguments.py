"""Arguments of `Hierarchical` that cannot be: refused in words that say what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg
from seeking_toy import START, one_each, run, seeking_app

from flower_edge.errors import ConfigError, RoundFailed
from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid
from flower_edge.strategies import (
    FedBuff,
    Hierarchical,
    LocalTier,
    blocks,
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edge": FedAvg}, "edge is a FedAvg; pass a factory"),
        ({"edge": 3}, "edge = 3: expected a factory"),
        ({"cells": 3}, "cells = 3: expected a cell function"),
        ({"cells": {"a": [1]}}, "expected a cell function"),
        ({"reachable": True}, "reachable = True: expected a function"),
        ({"asynchronous": 2}, "asynchronous = 2: expected FedBuff"),
        ({"asynchronous": FedBuff}, "expected FedBuff"),
        ({"lower": 1.5}, "lower = 1.5: expected LowerEdgeRounds"),
        ({"idle_s": "5"}, "idle_s = '5'"),
        ({"seed": "7"}, "seed = '7'"),
        ({"centre": FedAdam(), "asynchronous": FedBuff(1)}, "needs 2 edges and FedBuff"),
    ],
)
def test_an_argument_of_another_kind_is_refused_when_it_is_given(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Hierarchical(**{"edge": one_each, **options})


def test_cells_may_come_from_numpy_and_nonsense_is_named() -> None:
    def cells(grid: Grid, round: Round) -> Any:
        return {"a": np.array(list(grid.get_node_ids()))}

    assert run(Hierarchical(one_each, cells=cells, seed=np.int64(3)), rounds=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="returned a list; expected"):
        run(Hierarchical(one_each, cells=lambda grid, round: [1000]))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="listed twice in the cell"):
        run(Hierarchical(one_each, cells=lambda grid, round: {"a": [1000, 1000]}))
    with pytest.raises(ConfigError, match="is no Flower strategy; return a new one"):
        run(Hierarchical(lambda cell: None))  # type: ignore[arg-type, return-value]


def test_one_strategy_for_two_cells_is_refused() -> None:
    shared = one_each("")
    with pytest.raises(ConfigError, match="make a new one for every cell"):
        run(Hierarchical(lambda cell: shared, cells=blocks(2)))


def test_terminals_that_are_no_edges_are_told_apart_by_name() -> None:
    with LocalGrid(seeking_app(), 3) as grid, pytest.raises(RoundFailed, match=r"is no edge.*edge_app"):
        Hierarchical(tier=LocalTier(), edge_rounds=5).start(grid, START, num_rounds=1)
