"""A proxy that overrides nothing changes nothing; chains are walked, told of rounds and checkpointed."""

from __future__ import annotations

import random

import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from local_grid_apps import ask, counting_app, numbers
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ResumeError
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.narrowed_grid import NarrowedGrid, Patience, minimum_nodes
from flower_edge.runtime.wrapped_grid import WrappedGrid, announce, chain, find, grid_state, load_grid_state

FIRST = LocalGrid.FIRST_NODE_ID


class Noting(WrappedGrid):
    """Remembers the rounds it was told of, and is part of checkpoints."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.rounds: list[str] = []

    def announced(self, round: Round) -> None:
        self.rounds.append(str(round))

    def state_dict(self) -> dict[str, list[str]]:
        return {"rounds": list(self.rounds)}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        self.rounds = list(state["rounds"])


def test_a_proxy_that_overrides_nothing_changes_nothing() -> None:
    def train(wrap: bool) -> ArrayRecord:
        random.seed(1)
        with LocalGrid(toy_app, 3) as local:
            grid = WrappedGrid(WrappedGrid(local)) if wrap else local
            return FedAvg(fraction_evaluate=0.0).start(grid, initial_model(), num_rounds=2).arrays

    assert same_model(train(True), train(False))


def test_every_method_reaches_the_grid_inside() -> None:
    with LocalGrid(counting_app, 2) as local:
        grid = WrappedGrid(local)
        assert grid.run is local.run
        assert list(grid.get_node_ids()) == list(local.get_node_ids())
        assert [node.node_id for node in grid.get_nodes()] == [FIRST, FIRST + 1]
        message = grid.create_message(RecordDict(), "query", FIRST, "g", ttl=9.0)
        assert (message.metadata.group_id, message.metadata.ttl) == ("g", 9.0)
        (reply,) = grid.pull_messages(grid.push_messages([message]))
        assert not reply.has_error()
        marker = type(local.run).create_empty(5)
        grid.set_run(marker)
        assert local.run is marker


def test_rounds_are_announced_to_every_proxy_and_not_to_flowers_grids() -> None:
    with LocalGrid(counting_app, 1) as local:
        inner = Noting(local)
        outer = Noting(WrappedGrid(inner))
        announce(outer, Round(2, cell="a"))
        assert inner.rounds == outer.rounds == ["round 2, cell a, train"]
        assert [type(link).__name__ for link in chain(outer)] == ["Noting", "WrappedGrid", "Noting", "LocalGrid"]
        assert find(outer, Noting) is outer
        assert find(outer, LocalGrid) is local
        assert find(outer, NarrowedGrid) is None


def test_the_state_of_a_chain_is_that_of_every_link_and_goes_back_to_the_same_links() -> None:
    with LocalGrid(counting_app, 1) as local:
        grid = Noting(Noting(local))
        announce(grid, Round(1))
        ask(local)
        saved = grid_state(grid)
    with LocalGrid(counting_app, 1) as local:
        again = Noting(Noting(local))
        load_grid_state(again, saved)
        assert again.rounds == ["round 1, train"]
        assert numbers(ask(local), "count") == [2]


def test_the_state_of_another_chain_is_refused_by_both_names_either_way() -> None:
    with LocalGrid(counting_app, 1) as local:
        with pytest.raises(ResumeError, match="made on Noting around LocalGrid, this run is on LocalGrid;"):
            load_grid_state(WrappedGrid(local), grid_state(Noting(local)))
        with pytest.raises(ResumeError, match="made on LocalGrid, this run is on Noting around LocalGrid;"):
            load_grid_state(Noting(local), grid_state(local))


def test_the_innermost_grids_can_be_left_to_somebody_else() -> None:
    with LocalGrid(counting_app, 1) as local:
        grid = Noting(local)
        announce(grid, Round(1))
        saved = grid_state(grid, below=1)
        assert list(saved) == ["0:Noting"]
        again = Noting(local)
        load_grid_state(again, saved, below=1)
        assert again.rounds == ["round 1, train"]


def test_a_narrowed_grid_shows_its_selection_in_its_own_order_and_only_nodes_that_are_there() -> None:
    with LocalGrid(counting_app, 3) as local:
        grid = NarrowedGrid(local, [FIRST + 2, 4242, FIRST])
        assert list(grid.get_node_ids()) == [FIRST + 2, FIRST]
        assert sorted(node.node_id for node in grid.get_nodes()) == [FIRST, FIRST + 2]
        local.disconnect(FIRST)
        assert list(grid.get_node_ids()) == [FIRST + 2]
        grid.nodes = [FIRST + 1]
        assert list(grid.get_node_ids()) == [FIRST + 1]


def test_patience_without_a_deadline_waits_for_ever_as_flower_does() -> None:
    now_s = 0.0
    patience = Patience(None, clock=lambda: now_s)
    patience.asked(0)
    now_s = 1e9
    patience.asked(0)


def test_the_minimum_of_a_strategy_is_read_through_its_wrappers() -> None:
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedXgbCyclic

    wrapped = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(min_train_nodes=3, min_evaluate_nodes=2, min_available_nodes=1, fraction_evaluate=0.0), 0.1, 1.0, 2
    )
    assert minimum_nodes(wrapped) == 3
    assert minimum_nodes(wrapped, "evaluate") == 0
    assert minimum_nodes(FedXgbCyclic(min_available_nodes=4), "evaluate") == 4


def test_messages_through_a_narrowed_grid_reach_their_nodes() -> None:
    with LocalGrid(counting_app, 2) as local:
        grid = NarrowedGrid(local, [FIRST + 1])
        replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
        assert numbers(list(replies), "place") == [1]
