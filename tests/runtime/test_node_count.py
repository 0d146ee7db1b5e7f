"""`expected_nodes`: the number of all, from whoever comes first; what is told where that says nothing."""

from __future__ import annotations

import pytest
from flwr.clientapp import ClientApp

from flower_edge.clients import answer_properties
from flower_edge.errors import ConfigError, NotEnoughNodes
from flower_edge.runtime import LocalGrid, expected_nodes


def test_the_first_of_many_nodes_knows_how_many_there_will_be() -> None:
    with LocalGrid(answer_properties(ClientApp()), nodes=[{"partition-id": 0, "num-partitions": 40}]) as grid:
        assert expected_nodes(grid) == 40


@pytest.mark.parametrize("told", [{}, {"num-partitions": 0}, {"num-partitions": "12"}, {"num-partitions": 12.0}])
def test_a_number_that_is_none_is_told_with_what_to_type(told: dict[str, str | int | float]) -> None:
    words = rf"says num-partitions={told.get('num-partitions')!r}: .* flower-supernode --node-config"
    with (
        LocalGrid(answer_properties(ClientApp()), nodes=[{"partition-id": 0, **told}]) as grid,
        pytest.raises(ConfigError, match=words),
    ):
        expected_nodes(grid)


def test_a_node_that_answers_nothing_is_told_of_by_its_id_and_not_taken_for_one_without_a_number() -> None:
    words = r"node \d+ told nothing about itself: .*answer_properties"
    with LocalGrid(ClientApp(), nodes=3) as grid, pytest.raises(NotEnoughNodes, match=words):
        expected_nodes(grid)
