"""Cells whose terminals move between edges while a cloud round goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from seeking_toy import goal, one_each, recorded, run, seeking_app, w
from toy import initial_model, same_model, toy_app

from flower_edge.errors import RoundFailed
from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import (
    Handover,
    Hierarchical,
    Layer,
    Layered,
    LayeredGrid,
    Retire,
    blocks,
)
from flower_edge.termination import Limits


class Wandering:
    """Terminal 0 is in the first cell in the first edge round and in the second afterwards; the others stay."""

    moving = True

    def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
        first = round.edge <= 1
        zero, *others = list(grid.get_node_ids())
        return {"a": [*([zero] if first else []), *others[:2]], "b": [*others[2:], *([] if first else [zero])]}


def test_a_terminal_that_moved_counts_once_where_it_was_accepted_last(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=Wandering(), edge_rounds=2)
    _, folder = recorded(tmp_path, strategy, nodes=5, rounds=1, seconds=[1.0] * 5)
    examples = {row.cell: row.number("num-examples") for row in folder.rows("train") if row.cell}
    assert examples == {"a": 20.0 + 30.0, "b": 40.0 + 50.0 + 10.0}


def test_without_a_clock_the_last_edge_round_counts_whichever_edge_ran_first(tmp_path: Path) -> None:
    class Back:
        """Terminal 0 is in the second cell in the first edge round and in the first one in the second."""

        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            zero, one, two = list(grid.get_node_ids())
            return {"a": [one], "b": [zero, two]} if round.edge <= 1 else {"a": [zero, one], "b": [two]}

    strategy = Hierarchical(one_each, cells=Back(), edge_rounds=2)
    _, folder = recorded(tmp_path, strategy, nodes=3, rounds=1)
    examples = {row.cell: row.number("num-examples") for row in folder.rows("train") if row.cell}
    assert examples == {"a": 10.0 + 20.0, "b": 30.0}


def test_an_edge_whose_terminals_all_moved_on_has_nothing_to_merge(tmp_path: Path) -> None:
    class Leaving:
        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            nodes = list(grid.get_node_ids())
            return {"a": nodes[:1] if round.edge <= 1 else [], "b": nodes[1:] if round.edge <= 1 else nodes}

    result, folder = recorded(
        tmp_path, Hierarchical(one_each, cells=Leaving(), edge_rounds=2), nodes=2, rounds=1, seconds=[1.0, 1.0]
    )
    texts = [str(row.values["text"]) for row in folder.rows("event")]
    assert any("all of them are counted at b" in text for text in texts)
    first = goal(1) / 3
    second = (1 * (first + (goal(0) - first) / 3) + 2 * (first + (goal(1) - first) / 3)) / 3
    np.testing.assert_allclose(w(result), second)


def test_a_round_in_which_everybody_is_away_lets_time_pass_and_keeps_the_model(tmp_path: Path) -> None:
    class OutFirst:
        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            return {"a": list(grid.get_node_ids()) if round.cloud > 1 else []}

    with pytest.raises(RoundFailed, match="idle_s= lets time pass"):
        run(Hierarchical(one_each, cells=OutFirst()), nodes=2, seconds=[1.0, 1.0])
    strategy = Hierarchical(one_each, cells=OutFirst(), idle_s=30.0)
    result, folder = recorded(tmp_path, strategy, nodes=2, rounds=2, seconds=[1.0, 1.0])
    np.testing.assert_allclose(w(result), (goal(0) + 2 * goal(1)) / 9)
    (idle,) = [row for row in folder.rows("event") if row.values["what"] == "idle"]
    assert (idle.round, idle.virtual_s) == (1, 30.0)


def test_cells_that_do_not_move_are_asked_once_per_cloud_round() -> None:
    asked = []

    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        asked.append(round.cloud)
        return {"a": list(grid.get_node_ids())}

    run(Hierarchical(one_each, cells=cells, edge_rounds=3), rounds=2)
    assert asked == [1, 2]


def test_toy_models_are_the_same_with_and_without_a_moving_cell_that_never_moves() -> None:
    class Still:
        moving = True

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            return {"edge-0": list(grid.get_node_ids())}

    def model(cells: Any) -> ArrayRecord:
        with LocalGrid(toy_app(), 5) as grid:
            strategy = Hierarchical(lambda cell: FedAvg(fraction_train=0.6), cells=cells, edge_rounds=2, seed=3)
            found = strategy.start(grid, initial_model(), num_rounds=3, train_config=ConfigRecord()).arrays
        assert found is not None
        return found

    assert same_model(model(Still()), model(blocks(1)))


def test_a_returning_terminal_finds_what_was_known_of_it_after_a_resume(tmp_path: Path) -> None:
    class Changing:
        """Terminal 0 changes its cell every cloud round; told as `Coverage` tells it."""

        moving = True

        def __init__(self) -> None:
            self.at, self.told = 0, 0

        def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
            self.at = round.cloud
            zero, *others = list(grid.get_node_ids())
            cells = {"a": others[:2], "b": others[2:]}
            cells["a" if round.cloud % 2 else "b"].append(zero)
            return cells

        def handed_over(self) -> list[Handover]:
            moved = self.at > max(1, self.told)
            self.told = self.at
            source, target = ("b", "a") if self.at % 2 else ("a", "b")
            return [Handover("0", 1000, source, target, time_s=0.0)] if moved else []

        def state_dict(self) -> dict[str, int]:
            return {"told": self.told}

        def load_state_dict(self, state: Mapping[str, int]) -> None:
            self.told = state["told"]

    def strategy() -> Hierarchical:
        return Hierarchical(
            lambda cell: Layered(one_each(cell), Retire(Limits(rounds=2), for_rounds=1, at_least=1)),
            cells=Changing(),
            seed=1,
            idle_s=0.01,
        )

    whole, _ = run(strategy(), nodes=5, rounds=5)
    for cut in (1, 2, 3, 4):
        with RunFolder.create(f"cut-{cut}", config={}, seed=0, root=tmp_path) as folder:
            run(strategy(), nodes=5, rounds=cut, run=folder)
            rest, _ = run(strategy(), nodes=5, rounds=5, run=folder, resume=True)
        np.testing.assert_array_equal(w(rest), w(whole))


def test_what_comes_with_a_terminal_while_a_layer_asks_is_not_lost() -> None:
    class Knows(Layer[dict[str, int]]):
        """Takes its time when it narrows, and keeps what it is handed."""

        def init(self) -> dict[str, int]:
            return {"7": 1}

        def narrow(
            self, state: dict[str, int], round: Round, grid: Grid, nodes: list[int]
        ) -> tuple[list[int], dict[str, int]]:
            sessions[0].take_over(5, [("Knows", 3)])
            given.append(sessions[0].hand_over(7))
            return nodes, {**state, "asked": 1}

        def hand_over(self, state: dict[str, int], node_id: int) -> tuple[Any, dict[str, int]]:
            left = {key: value for key, value in state.items() if key != str(node_id)}
            return state.get(str(node_id)), left

        def take_over(self, state: dict[str, int], node_id: int, parcel: Any) -> dict[str, int]:
            return {**state, str(node_id): parcel}

    sessions: list[LayeredGrid] = []
    given: list[Any] = []
    with LocalGrid(seeking_app(), 2) as grid:
        sessions.append(LayeredGrid(grid, [Knows()]))
        list(sessions[0].get_node_ids())
    assert given == [[("Knows", 1)]]
    assert sessions[0].states == [{"asked": 1, "5": 3}]
