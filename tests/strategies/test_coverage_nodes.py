"""Which node is which terminal: mistakes in the set-up are refused, and one odd node ends no run."""

from __future__ import annotations

import pytest
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, toy_app
from travellers import ONE, world

from flower_edge.clients import answer_properties
from flower_edge.coverage import ByFunction
from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime import Fault, GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Hierarchical, Layered
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered


def located() -> ByFunction:
    return world(["a", "b", "empty"], [{0.0: "a"}, {0.0: "a"}, {0.0: "b"}, {0.0: "b"}])


def test_more_nodes_than_are_located_are_refused() -> None:
    with LocalGrid(toy_app(), 5) as local, pytest.raises(ConfigError, match=r"node 1004 is terminal 4, .* 4 terminals"):
        Coverage(located(), round_s=1.0)(local, Round(1))


def test_two_nodes_that_are_one_terminal_are_refused_and_a_key_function_can_tell_them_apart() -> None:
    config = [{"partition-id": 0, "num-partitions": 4}] * 2
    with LocalGrid(toy_app(), config) as local:
        with pytest.raises(ConfigError, match="node 1001 is terminal 0, and so is node 1000"):
            Coverage(located(), round_s=1.0)(local, Round(1))
        assert Coverage(located(), round_s=1.0, key_of=lambda node: node - 1000)(local, Round(1))["a"] == [1000, 1001]


def test_a_grid_of_nodes_without_a_place_is_refused_with_the_fix() -> None:
    with LocalGrid(toy_app(), [{"name": "x"}]) as local, pytest.raises(ConfigError, match="key_of"):
        Coverage(located(), round_s=1.0)(local, Round(1))


def test_one_node_without_a_place_is_out_of_coverage_and_told_once_also_over_a_checkpoint() -> None:
    config = [{"partition-id": i, "num-partitions": 4} for i in range(3)] + [{"name": "an old client"}]
    with LocalGrid(toy_app(), config) as local:
        coverage = Coverage(located(), round_s=10.0)
        assert coverage(local, Round(1)) == {"a": [1000, 1001], "b": [1002], "empty": []}
        coverage(local, Round(2))
        assert (coverage.where(1003), coverage.key(1003)) == (None, "1003")
        coverage.detached(1003, "a", 1)  # a strategy without Covered asks it all the same
        assert coverage.work.to_come("a") == set()
        resumed = Coverage(located(), round_s=10.0)
        resumed.load_state_dict(tree_from_bytes(tree_to_bytes(coverage.state_dict())))
        resumed(local, Round(3))
        told = [event.text for event in resumed.events() if event.what == "unplaced"]
    assert len(told) == 1
    assert "node 1003 is out of coverage: it has no partition-id" in told[0]


def test_who_comes_later_and_is_no_terminal_or_one_that_is_there_ends_no_run_and_takes_a_place_that_is_free() -> None:
    keys = {1000: 0, 1001: 1, 1002: 1, 1003: 9}
    with LocalGrid(toy_app(), 4) as local:
        for late in (1002, 1003):
            local.disconnect(late)
        coverage = Coverage(located(), round_s=1.0, key_of=keys.__getitem__)
        coverage(local, Round(1))
        for late in (1002, 1003):
            local.connect(late)
        assert coverage(local, Round(2)) == {"a": [1000, 1001], "b": [], "empty": []}
        told = sorted(event.text for event in coverage.events() if event.what == "unplaced")
        assert ["is terminal 1, and so is node 1001" in told[0], "is terminal 9" in told[1]] == [True, True]
        local.disconnect(1001)  # started anew under another id, and the old one is gone at last
        assert coverage(local, Round(3))["a"] == [1000, 1002]
        assert not [event for event in coverage.events() if event.what == "unplaced"]


def test_a_client_that_did_not_tell_its_properties_is_left_out_and_the_others_train() -> None:
    app = answer_properties(toy_app())
    coverage = Coverage(located(), round_s=1.0)
    with LocalGrid(app, 4, script=[Fault(2, "raise", 1)]) as local:
        grid = GridProxy(local, expected_nodes=4, seed=1, poll_s=0.05)
        strategy = Hierarchical(
            edge=lambda cell: Layered(FedAvg(fraction_evaluate=0.0, **ONE), Covered(coverage)), cells=coverage, seed=3
        )
        result = strategy.start(grid, initial_model(), 1)
    assert result.arrays
    assert coverage.members() == [1000, 1001, 1003]
