"""`ControllerLaws`: what every controller owes the nodes it steers. Subclass, give `make`, get every law.

class TestMyController(ControllerLaws):
    def make(self):
        return MyController(0.5)

A controller that needs every link to have its counterpart says `directed = False`; one under which the network is not
meant to be connected (nobody talks to anybody) says `connects = False`; one that takes longer than `tau` rounds to
use all its links raises `tau`; one whose node may leave band unused says `spends_all = False`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from control.array_world import (
    ArrayWorld,
    controls,
    equal_control,
    observation,
    random_topology,
    random_world,
    start,
    with_silent,
)
from scipy.sparse.csgraph import connected_components

from flower_edge.control.controller import Control, Controller, Observation
from flower_edge.store import tree_from_bytes, tree_to_bytes
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.topology import Topology


def same(left: Control, right: Control) -> bool:
    """Bit for bit."""
    return all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("weights", "self_weights", "bandwidth_hz")
    )


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it comes back from a checkpoint."""
    back = tree_from_bytes(tree_to_bytes(state))
    assert isinstance(back, dict)
    return back


def strongly_connected(topology: Topology, in_use: np.ndarray) -> bool:
    """Checked without the package's own code."""
    graph = topology.matrix(in_use.astype(float))
    graph.eliminate_zeros()
    count, _ = connected_components(graph, directed=True, connection="strong")
    return bool(count == 1)


def frozen(value: Any) -> Any:
    """A value to compare before and after: arrays become bytes."""
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tobytes())
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: frozen(getattr(value, field.name)) for field in fields(value)}
    return copy.deepcopy(value) if not isinstance(value, Topology) else repr(value)


class ControllerLaws(ABC):
    """Laws of a controller on small random networks."""

    #: Whether links without a counterpart are allowed.
    directed: ClassVar[bool] = True
    #: Whether every node is to hear of every other within `tau` rounds.
    connects: ClassVar[bool] = True
    tau: ClassVar[int] = 10
    #: Rounds of the longest runs; less where a round is dear, and no less than 24.
    rounds: ClassVar[int] = 40
    #: Whether a node that hears anybody shares out its whole budget.
    spends_all: ClassVar[bool] = True

    @abstractmethod
    def make(self) -> Controller:
        """A new controller."""

    def worlds(self) -> Iterator[ArrayWorld]:
        """Complete networks, sparse ones, and directed ones where the controller can do them."""
        yield random_world(1)
        yield random_world(2, Topology.complete(3))
        yield random_world(3, _symmetric(3))
        if self.directed:
            yield random_world(4, random_topology(4))

    @property
    def _some(self) -> int:
        return self.rounds * 3 // 8

    # -- what may be carried out -------------------------------------------------------------------------------------

    def _check(self, world: ArrayWorld, control: Control) -> None:
        topology = world.topology
        control.check(topology, world.budget_hz, tolerance=1e-12)
        used_hz = sum_rows(control.bandwidth_hz, topology.indptr)
        hears = sum_rows(control.in_use.astype(float), topology.indptr) > 0
        if self.spends_all:
            np.testing.assert_allclose(used_hz[hears], world.budget_hz[hears], rtol=1e-12)
        assert (used_hz[~hears] == 0.0).all()
        np.testing.assert_allclose(control.self_weights[~hears], 1.0, atol=1e-12)
        assert ((control.bandwidth_hz > 0.0) == control.in_use).all()

    def test_rows_sum_to_one_budgets_are_shared_out_and_links_have_weight_and_band_or_neither(self) -> None:
        for world in self.worlds():
            for control in controls(self.make(), world, self.rounds):
                self._check(world, control)

    def test_every_node_hears_of_every_other_within_tau_rounds(self) -> None:
        if not self.connects:
            pytest.skip("this controller does not mean to connect")
        for world in self.worlds():
            used = [control.in_use for control in controls(self.make(), world, self.rounds)]
            for last in range(self.tau, self.rounds + 1):
                assert strongly_connected(world.topology, np.any(used[last - self.tau : last], axis=0))

    def test_a_node_without_neighbours_listens_to_itself(self) -> None:
        linked = _symmetric(6)
        lonely = Topology(linked.nodes + 1, linked.receiver, linked.sender, _places(linked.nodes + 1))
        for topology in (lonely, Topology(1, [], [], _places(1))):
            world = random_world(5, topology)
            for control in controls(self.make(), world, 5):
                self._check(world, control)
                assert control.self_weights[-1] == 1.0

    def test_two_nodes_are_enough(self) -> None:
        world = random_world(6, Topology.complete(2, _places(2)))
        for control in controls(self.make(), world, 10):
            self._check(world, control)

    # -- values ------------------------------------------------------------------------------------------------------

    def test_it_is_a_value_that_says_what_it_is(self) -> None:
        controller = self.make()
        before = copy.deepcopy(vars(controller))
        list(controls(controller, random_world(1), 5))
        assert vars(controller) == before
        assert repr(controller).startswith(type(controller).__name__ + "(")
        assert type(type(controller).clairvoyant) is bool

    def test_the_same_measurements_give_the_same_control(self) -> None:
        for world in self.worlds():
            once, again = (list(controls(self.make(), world, self._some)) for _ in range(2))
            assert all(same(left, right) for left, right in zip(once, again, strict=True))

    def test_a_step_changes_neither_its_state_nor_what_it_is_shown(self) -> None:
        for world in self.worlds():
            controller, begin = self.make(), start(world)
            before = frozen(begin)
            first, state = controller.init(begin)
            assert frozen(begin) == before
            for round in range(1, 6):
                seen, control = observation(world, round), frozen(first)
                shown, kept = frozen(seen), frozen(state)
                _, after = controller.step(state, seen)
                assert frozen(state) == kept
                assert frozen(seen) == shown
                assert frozen(first) == control
                state = after

    def test_its_state_survives_a_checkpoint_file_between_any_two_rounds(self) -> None:
        for world in self.worlds():
            plain = controls(self.make(), world, self._some)
            saved = controls(self.make(), world, self._some, keep=through_a_file)
            assert all(same(left, right) for left, right in zip(plain, saved, strict=True))

    # -- what goes wrong out there -----------------------------------------------------------------------------------

    def _goes_on(self, world: ArrayWorld, seen: Any) -> None:
        for control in controls(self.make(), world, self.rounds * 5 // 8, seen=seen):
            self._check(world, control)

    def test_it_goes_on_when_nodes_are_silent(self) -> None:
        world = random_world(1)

        def now_and_then(round: int) -> Observation:
            return with_silent(observation(world, round), [round % 6] if round % 2 else [])

        def one_for_ever(round: int) -> Observation:
            return with_silent(observation(world, round), [2] if round > 3 else [])

        def never_heard_of(round: int) -> Observation:
            return with_silent(observation(world, round), [0])

        def all_of_them(round: int) -> Observation:
            return with_silent(observation(world, round), list(range(6)) if 3 < round < 9 else [])

        for seen in (now_and_then, one_for_ever, never_heard_of, all_of_them):
            self._goes_on(world, seen)

    def test_it_goes_on_where_links_were_not_measured(self) -> None:
        world = random_world(1)

        def holes(round: int) -> Observation:
            seen = observation(world, round)
            hidden = np.arange(world.topology.links) % 4 == round % 4
            return replace(seen, spectral_efficiency=np.where(hidden, np.nan, seen.spectral_efficiency))

        self._goes_on(world, holes)

    def test_it_goes_on_when_links_carry_nothing_for_a_while(self) -> None:
        world = random_world(1)

        def out_of_reach(round: int) -> Observation:
            seen = observation(world, round)
            gone = (world.topology.sender == 1) & (4 < round < 12)
            return replace(seen, spectral_efficiency=np.where(gone, 0.0, seen.spectral_efficiency))

        self._goes_on(world, out_of_reach)

    def test_it_goes_on_with_payloads_and_delays_of_all_sizes(self) -> None:
        world = random_world(1)
        rng = np.random.default_rng(8)
        delayed = ArrayWorld(
            world.topology, world.budget_hz, world.processing, world.efficiency, rng.uniform(0, 3, world.topology.links)
        )

        def shown(round: int) -> Observation:
            return replace(observation(delayed, round), payload_bits=np.geomspace(1e3, 1e8, 6))

        self._goes_on(delayed, shown)


def _places(nodes: int) -> np.ndarray:
    return np.random.default_rng([nodes, 6]).uniform(0.0, 500.0, (nodes, 2))


def _symmetric(seed: int) -> Topology:
    one_way = random_topology(seed, nodes=7, extra=5)
    both = {(i, j) for i, j in zip(one_way.receiver.tolist(), one_way.sender.tolist(), strict=True)}
    both |= {(j, i) for i, j in both}
    pairs = np.array(sorted(both), np.int64)
    return Topology(one_way.nodes, pairs[:, 0], pairs[:, 1], one_way.positions_m)


__all__ = ["ControllerLaws", "equal_control", "frozen", "same", "strongly_connected", "through_a_file"]
