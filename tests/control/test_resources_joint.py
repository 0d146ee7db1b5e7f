"""Resources, and the exact joint min-max of several of them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from control.array_world import random_topology
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from flower_edge.control.controller import Control, Observation
from flower_edge.control.joint_min_max import joint_min_max
from flower_edge.control.min_max import band_seconds, min_max_bandwidth
from flower_edge.control.resources import (
    Bandwidth,
    PerBit,
    ResourceControl,
    delays_s,
    latency_without,
    needs_of,
    processor,
    receiver_power,
    restored,
    share_equally,
)
from flower_edge.errors import TopologyError
from flower_edge.topology.rows import largest_in_rows, smallest_in_rows, sum_rows
from flower_edge.topology.topology import Topology


def instance(seed: int, resources: int, *, holes: float = 0.0) -> tuple[Topology, np.ndarray, np.ndarray, np.ndarray]:
    """A directed network with needs over two decades; of every need a share `holes` is 0."""
    rng = np.random.default_rng([seed, resources])
    topology = random_topology(seed, nodes=5, extra=8)
    needs = rng.lognormal(0.0, 1.5, (resources, topology.links)) * (rng.random((resources, topology.links)) >= holes)
    return topology, rng.uniform(1.0, 10.0, (resources, 5)), needs, rng.uniform(0.0, 2.0, topology.links)


def arrivals_s(amounts: np.ndarray, needs: np.ndarray, ready_s: np.ndarray) -> np.ndarray:
    return np.asarray(ready_s + delays_s(needs, amounts).sum(axis=0))


# -- the exact joint min-max ---------------------------------------------------------------------------------------


def by_slsqp(budgets: np.ndarray, needs: np.ndarray, ready_s: np.ndarray) -> float:
    """The least T of one row by a general solver; the logarithms of shares are its variables."""
    resources, links = needs.shape
    begin_s = float((ready_s + (needs / (budgets[:, None] / links)).sum(axis=0)).max())

    def room(v: np.ndarray) -> np.ndarray:
        x = np.exp(v[1:]).reshape(resources, links) * budgets[:, None]
        return np.concatenate([v[0] - ready_s - (needs / x).sum(axis=0), 1.0 - (x / budgets[:, None]).sum(axis=1)])

    found = minimize(
        lambda v: v[0],
        np.concatenate([[begin_s], np.full(resources * links, -np.log(links))]),
        jac=lambda v: np.eye(len(v))[0],
        constraints={"type": "ineq", "fun": room},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-13},
    )
    # It often ends by finding no better step: what counts is that its answer can be carried out.
    assert room(found.x).min() > -1e-9
    return float(found.x[0])


@pytest.mark.parametrize("resources", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_joint_min_max_is_what_a_general_solver_finds(seed: int, resources: int) -> None:
    topology, budgets, needs, ready_s = instance(seed, resources)
    _, waits_s = joint_min_max(topology, np.ones(topology.links, bool), budgets, needs, ready_s)
    for i in range(topology.nodes):
        row = topology.row(i)
        best_s = by_slsqp(budgets[:, i], needs[:, row], ready_s[row])
        assert waits_s[i] == pytest.approx(best_s, rel=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([0.0, 0.3, 0.6]))
@settings(max_examples=60, deadline=None)
def test_all_models_of_a_row_arrive_together_and_no_budget_is_passed(seed: int, resources: int, holes: float) -> None:
    topology, budgets, needs, ready_s = instance(seed, resources, holes=holes)
    everything = np.ones(topology.links, bool)
    amounts, waits_s = joint_min_max(topology, everything, budgets, needs, ready_s)
    come_s = arrivals_s(amounts, needs, ready_s)
    np.testing.assert_allclose(largest_in_rows(come_s, topology.indptr), waits_s, rtol=1e-9)
    for r in range(resources):
        wanted = sum_rows(needs[r], topology.indptr) > 0.0
        used = sum_rows(amounts[r], topology.indptr)
        np.testing.assert_allclose(used[wanted], budgets[r][wanted], rtol=1e-12)
        assert (used[~wanted] == 0.0).all()
    if holes == 0.0:
        np.testing.assert_allclose(smallest_in_rows(come_s, topology.indptr), waits_s, rtol=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 3))
@settings(max_examples=40, deadline=None)
def test_no_other_shares_end_the_wait_sooner(seed: int, resources: int) -> None:
    topology, budgets, needs, ready_s = instance(seed, resources, holes=0.2)
    amounts, waits_s = joint_min_max(topology, np.ones(topology.links, bool), budgets, needs, ready_s)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 0.1, 1.0):
        other = amounts * np.exp(size * rng.normal(size=amounts.shape))
        for r in range(resources):
            total = sum_rows(other[r], topology.indptr)
            other[r] *= np.repeat(budgets[r] / np.where(total > 0.0, total, 1.0), topology.in_degree)
        later_s = largest_in_rows(arrivals_s(other, needs, ready_s), topology.indptr)
        assert (later_s >= waits_s * (1.0 - 1e-12)).all()


@pytest.mark.parametrize("seed", range(5))
def test_with_one_resource_it_is_the_exact_min_max_of_that_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    topology = random_topology(seed, nodes=8, extra=20)
    seen = Observation(rng.uniform(0.1, 2.0, 8), rng.lognormal(0.0, 1.5, topology.links), np.full(8, 2e6))
    in_use, budget_hz = rng.random(topology.links) < 0.8, rng.uniform(1e6, 2e7, 8)
    band_hz, alone_s = min_max_bandwidth(topology, in_use, budget_hz, seen)
    needs = band_seconds(topology, seen)[None]
    amounts, waits_s = joint_min_max(topology, in_use, budget_hz[None], needs, seen.ready_s(topology))
    np.testing.assert_allclose(amounts[0], band_hz, rtol=1e-12)
    np.testing.assert_allclose(waits_s, alone_s, rtol=1e-12)


def test_a_resource_of_which_there_is_plenty_changes_nothing() -> None:
    topology, budgets, needs, ready_s = instance(1, 2)
    everything = np.ones(topology.links, bool)
    budgets[1] *= 1e15
    amounts, waits_s = joint_min_max(topology, everything, budgets, needs, ready_s)
    alone, alone_s = joint_min_max(topology, everything, budgets[:1], needs[:1], ready_s)
    np.testing.assert_allclose(waits_s, alone_s, rtol=1e-6)
    np.testing.assert_allclose(amounts[0], alone[0], rtol=1e-6)


def test_links_that_compete_for_nothing_do_not_wait_for_one_another() -> None:
    # Links 0 and 1 share the first resource, links 2 and 3 the second, in one row.
    topology = Topology(5, [0, 0, 0, 0], [1, 2, 3, 4])
    needs = np.array([[8.0, 8.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    amounts, waits_s = joint_min_max(topology, np.ones(4, bool), np.full((2, 5), 2.0), needs, np.zeros(4))
    np.testing.assert_allclose(amounts, [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    assert waits_s[0] == pytest.approx(8.0)


def test_links_out_of_use_out_of_reach_or_without_budget_get_nothing() -> None:
    topology = Topology(5, [0, 0, 0, 0, 1], [1, 2, 3, 4, 0])
    needs = np.array([[1.0, np.inf, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    ready_s = np.array([0.5, 0.5, np.nan, 0.5, 0.5])
    in_use = np.array([True, True, True, False, True])
    budgets = np.array([[2.0, 2.0, 1.0, 1.0, 1.0], [2.0, 0.0, 1.0, 1.0, 1.0]])
    amounts, waits_s = joint_min_max(topology, in_use, budgets, needs, ready_s)
    np.testing.assert_array_equal(amounts, [[2.0, 0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(waits_s, [1.5, 0.0, 0.0, 0.0, 0.0])


# -- resources ---------------------------------------------------------------------------------------------------


def test_needs_over_amounts_are_seconds() -> None:
    pair = Topology.complete(2)
    seen = Observation(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([8e6, 4e6]))
    resources = (Bandwidth(), processor(1e9, 50.0), receiver_power(0.2, 1e-8))
    # Node 0 hears node 1's 4 Mbit at 2 bit/s/Hz; 50 cycles and 10 nJ a bit.
    np.testing.assert_allclose(needs_of(resources, pair, seen), [[2e6, 2e6], [2e8, 4e8], [0.04, 0.08]])
    budgets = np.array([resource.budget(pair, np.array([1e6, 1e6])) for resource in resources])
    np.testing.assert_allclose(budgets, [[1e6, 1e6], [1e9, 1e9], [0.2, 0.2]])
    np.testing.assert_allclose(delays_s(needs_of(resources, pair, seen), budgets)[:, 0], [2.0, 0.2, 0.2])
    np.testing.assert_allclose(seen.transfer_s(pair, np.array([1e6, 1e6]))[0], 2.0)


def test_costs_and_budgets_may_differ_by_link_and_node() -> None:
    pair = Topology.complete(2)
    seen = Observation(np.zeros(2), np.ones(2), np.array([10.0, 20.0]))
    resource = PerBit("memory_bps", np.array([1.0, 2.0]), np.array([3.0, 5.0]))
    np.testing.assert_allclose(resource.need(pair, seen), [60.0, 50.0])
    np.testing.assert_allclose(resource.budget(pair, np.zeros(2)), [1.0, 2.0])
    assert repr(resource) == "PerBit('memory_bps', 1 to 2, 3 to 5)"
    assert resource == deepcopy(resource)
    assert resource != PerBit("memory_bps", np.array([1.0, 2.0]), 3.0)


def test_wrong_sizes_and_negative_numbers_are_refused_by_name() -> None:
    pair = Topology.complete(2)
    seen = Observation(np.zeros(2), np.ones(2), np.ones(2))
    with pytest.raises(TopologyError, match=r"processor_cycles_per_s: .*shape \(3,\) where there are 2 nodes"):
        processor(np.ones(3), 1.0).budget(pair, np.ones(2))
    with pytest.raises(TopologyError, match=r"receiver_w: .*shape \(1,\) where there are 2 links"):
        receiver_power(1.0, np.ones(1)).need(pair, seen)
    with pytest.raises(TopologyError, match="cost per bit of receiver_w: -1"):
        receiver_power(1.0, -1.0)
    with pytest.raises(TopologyError, match="budget of processor_cycles_per_s: inf"):
        processor(np.inf, 1.0)
    with pytest.raises(TopologyError, match=r"budget of processor_cycles_per_s: 0 to 1; .* leave its links out"):
        processor(np.array([0.0, 1.0]), 1.0)


def test_a_control_of_resources_is_a_control_and_names_what_it_lacks() -> None:
    pair = Topology.complete(2)
    plain = Control(np.full(2, 0.5), np.full(2, 0.5), np.full(2, 1e6))
    control = ResourceControl.of(plain, (Bandwidth(), processor(1e9, 1.0)), np.array([[2e6, 2e6], [1e9, 1e9]]))
    assert isinstance(control, Control)
    control.check(pair, np.full(2, 2e6))
    np.testing.assert_array_equal(control.amount("bandwidth_hz"), control.bandwidth_hz)
    np.testing.assert_array_equal(control.amount("processor_cycles_per_s"), [1e9, 1e9])
    with pytest.raises(TopologyError, match=r"no amounts of 'receiver_w'; there are \['bandwidth_hz', 'processor"):
        control.amount("receiver_w")
    again = restored(control.saved())
    assert isinstance(again, ResourceControl)
    np.testing.assert_array_equal(again.amount("processor_cycles_per_s"), [1e9, 1e9])


def test_what_was_measured_is_taken_apart_without_a_rest() -> None:
    pair = Topology.complete(2)
    cpu = processor(1e9, 100.0)
    control = ResourceControl(np.full(2, 0.5), np.full(2, 0.5), np.full(2, 1e6), {cpu.name: np.array([1e9, 5e8])})
    seen = Observation(np.array([1.0, 2.0]), np.ones(2), np.array([2e6, 1e6]))
    router_s = np.array([0.25, 0.5])
    felt_s = delays_s(cpu.need(pair, seen), control.amount(cpu.name)) + router_s
    seen = replace(seen, latency_s=felt_s)
    np.testing.assert_allclose(latency_without((Bandwidth(), cpu), pair, control, seen), router_s)
    np.testing.assert_allclose(latency_without((Bandwidth(),), pair, control, seen), felt_s)


def test_a_latency_below_what_was_foretold_is_not_taken_from_the_sender() -> None:
    pair = Topology.complete(2)
    cpu = processor(1e9, 100.0)
    control = ResourceControl(np.full(2, 0.5), np.full(2, 0.5), np.full(2, 1e6), {cpu.name: np.full(2, 1e9)})
    seen = Observation(np.array([1.0, 2.0]), np.ones(2), np.array([2e6, 2e6]))
    np.testing.assert_array_equal(latency_without((Bandwidth(), cpu), pair, control, seen), [0.0, 0.0])


def test_equal_shares_of_a_row_without_links_are_nothing() -> None:
    topology = Topology(3, [0, 0], [1, 2])
    np.testing.assert_allclose(share_equally(topology, np.array([True, False]), np.ones(3)), [1.0, 0.0])
    np.testing.assert_allclose(share_equally(topology, np.array([False, False]), np.ones(3)), [0.0, 0.0])
