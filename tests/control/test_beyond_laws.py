"""The controllers that go beyond [1] keep the laws of all controllers, and move no mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
from control.array_world import ArrayWorld, controls, random_topology, random_world
from laws.controller_laws import ControllerLaws, strongly_connected

from flower_edge.control.auto import Auto
from flower_edge.control.baselines import DynamicOpt, Equal
from flower_edge.control.controller import Controller
from flower_edge.control.doubly import DoublyStochastic, doubly_stochastic
from flower_edge.control.matcha import Matcha
from flower_edge.control.schedules import BaseKPlus1, OnePeerExponential
from flower_edge.control.true_time import Sparse, TimeOptimal
from flower_edge.errors import TopologyError
from flower_edge.topology.mixing import consensus_bias
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.topology import Topology


class Doubly(ControllerLaws):
    """All of them are doubly stochastic in every round."""

    rounds: ClassVar[int] = 24

    def worlds(self) -> Iterator[ArrayWorld]:
        yield random_world(1)
        yield random_world(2, Topology.complete(3))
        yield random_world(4, random_topology(4) if self.directed else None)

    def test_columns_sum_to_one_in_every_round(self) -> None:
        for world in self.worlds():
            for control in controls(self.make(), world, 14):
                columns = np.bincount(world.topology.sender, control.weights, world.topology.nodes)
                np.testing.assert_allclose(columns + control.self_weights, 1.0, atol=1e-9)


class TestSparse(Doubly):
    def make(self) -> Controller:
        return Sparse(2, every=15)


class TestTimeOptimal(Doubly):
    def make(self) -> Controller:
        return TimeOptimal(tries=40, every=20)


@pytest.mark.full
class TestTimeOptimalWithABound(Doubly):
    def make(self) -> Controller:
        return TimeOptimal(bound=0.8, tries=40, every=20)


class TestOnePeerExponential(Doubly):
    directed: ClassVar[bool] = False

    def make(self) -> Controller:
        return OnePeerExponential(trials=300)


class TestBaseKPlus1(Doubly):
    directed: ClassVar[bool] = False

    def make(self) -> Controller:
        return BaseKPlus1(2, trials=300)


class TestMatcha(Doubly):
    def make(self) -> Controller:
        return Matcha(neighbours=3)


class TestAuto(Doubly):
    """Its candidates meet the other networks above."""

    def worlds(self) -> Iterator[ArrayWorld]:
        yield random_world(1)

    def make(self) -> Controller:
        return Auto(tries=30, every=20)


class TestDoublyStochastic(Doubly):
    def make(self) -> Controller:
        return DoublyStochastic(Equal())


@pytest.mark.parametrize(
    "controller",
    [Sparse(3), TimeOptimal(tries=200), Matcha(), OnePeerExponential(trials=500), DoublyStochastic(Equal())],
    ids=lambda controller: type(controller).__name__,
)
def test_no_node_counts_for_more_than_another_in_the_consensus(controller: Controller) -> None:
    world = random_world(11, nodes=9)
    for control in controls(controller, world, 12):
        if strongly_connected(world.topology, control.in_use):
            assert consensus_bias(world.topology, control.weights, control.self_weights) <= 1e-6


def test_scaling_a_control_keeps_its_rows_and_uses_none_but_its_links() -> None:
    world = random_world(3)
    for before in controls(DynamicOpt(), world, 6):
        after = doubly_stochastic(world.topology, before)
        after.check(world.topology, world.budget_hz, tolerance=1e-12)
        assert (after.in_use <= before.in_use).all()
        used_hz = sum_rows(after.bandwidth_hz, world.topology.indptr)
        np.testing.assert_allclose(used_hz[used_hz > 0], world.budget_hz[used_hz > 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OnePeerExponential(own=1.0), "own = 1.0: expected a weight between 0 and 1"),
        (lambda: BaseKPlus1(0), "k = 0: expected 1 peer or more"),
        (lambda: Sparse(-1), "neighbours = -1: expected 0 or more"),
        (lambda: TimeOptimal(bound=1.0), "bound = 1.0: expected sigma2 between 0 and 1"),
        (lambda: Matcha(budget=0.0), "budget = 0.0: expected a share above 0"),
        (lambda: Auto(margin=1.0), "margin = 1.0: expected a part of 1"),
        (lambda: DoublyStochastic(DoublyStochastic(Equal())), "scaled twice"),
        (lambda: DoublyStochastic(DynamicOpt()), "is told the round it decides for"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_type(make, says) -> None:
    with pytest.raises(TopologyError, match=says):
        make()
