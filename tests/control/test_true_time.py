"""What the controllers beyond [1] are for: short rounds, few of them, and the right choice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from flower_edge.control.agreement import disagreement, disagreement_dense, rounds_factor
from flower_edge.control.auto import Auto
from flower_edge.control.baselines import Equal
from flower_edge.control.matcha import Matcha, activation, mixing_weight
from flower_edge.control.schedules import BaseKPlus1, OnePeerExponential
from flower_edge.control.simulate import first_look, simulate
from flower_edge.control.support_search import balanced, strongly_connected
from flower_edge.control.true_time import Sparse, TimeOptimal
from flower_edge.topology.overlays import matchings, nearest
from flower_edge.topology.peer_schedules import base_k_plus_1, circulant
from flower_edge.topology.radio_world import RadioWorld
from flower_edge.topology.set_ups import set_up

SEEDS = (0, 3)


def nlos(seed: int) -> RadioWorld:
    return set_up("nlos", seed)


def test_one_peer_rounds_are_within_an_eighth_of_the_floor() -> None:
    ratios = [simulate(BaseKPlus1(trials=3000), nlos(seed), 30).true_over_floor(25) for seed in SEEDS]
    assert np.mean(ratios) <= 1.12


def test_rounds_with_sigma2_within_a_bound_are_within_a_fifth_of_the_floor() -> None:
    for seed in SEEDS:
        trace = simulate(TimeOptimal(bound=0.8, tries=1500), nlos(seed), 30, sigma2=True)
        assert trace.sigma2[2:].max() <= 0.8
        assert trace.true_over_floor(25) <= 1.2


def test_sparse_rounds_are_a_fraction_of_equal_ones() -> None:
    for controller in (Sparse(4), Matcha(), OnePeerExponential(trials=2000)):
        assert simulate(controller, nlos(0), 15).true_s.mean() < 0.25 * simulate(Equal(), nlos(0), 15).true_s.mean()


def test_base_2_averages_exactly_in_a_real_network() -> None:
    world = nlos(1)
    _, state = BaseKPlus1(1, trials=200).init(first_look(world))
    whole = np.eye(15)
    for phase in state["phases"]:
        weights = np.zeros(world.topology.links)
        weights[phase["links"]] = phase["weights"]
        dense = world.topology.dense(weights)
        whole = (dense + np.diag(1.0 - dense.sum(axis=1))) @ whole
    np.testing.assert_allclose(whole, 1 / 15, atol=1e-12)
    assert len(state["phases"]) == len(base_k_plus_1(15))


def test_auto_keeps_more_links_in_mild_radio_than_in_bad() -> None:
    mild, bad = (simulate(Auto(tries=600), set_up(name, 0), 8) for name in ("los", "nlos"))
    assert mild.links[-1] > 1.3 * bad.links[-1]
    assert bad.links[-1] <= 60
    for trace in (mild, bad):
        predicted = trace.state["chosen"]["predicted_s"]
        assert predicted[trace.state["chosen"]["name"]] <= predicted["all links"]
    assert mild.true_s.mean() <= simulate(Equal(), set_up("los", 0), 8).true_s.mean()


def test_a_larger_network_is_thinned_and_stays_connected() -> None:
    world = set_up("nlos", 0, nodes=60)
    trace = simulate(TimeOptimal(), world, 3, sigma2=True)
    assert trace.state["chosen"]["search"] == "thinning"
    assert trace.sigma2.max() < 1.0
    assert trace.true_s.mean() < 0.1 * simulate(Equal(), world, 3).true_s.mean()


# -- disagreement ------------------------------------------------------------------------------------------------------


def test_disagreement_is_the_sum_it_says() -> None:
    weights = circulant(9, (1, 3)).matrix
    apart, power, summed = 1 / 9, np.eye(9), np.zeros((9, 9))
    for k in range(60):
        power = weights @ power
        summed += 0.55**k * (power - apart)
    assert disagreement_dense(weights) == pytest.approx((summed**2).sum() / 9)


def test_a_schedule_of_one_is_its_matrix_and_a_large_one_is_estimated() -> None:
    small = sparse.csr_matrix(circulant(12, (1, 5)).matrix)
    assert disagreement([small, small]) == pytest.approx(disagreement([small]), rel=1e-3)
    large = circulant(400, (1, 20, 77)).matrix
    assert disagreement([sparse.csr_matrix(large)]) == pytest.approx(disagreement_dense(large), rel=0.05)


def test_who_never_meets_needs_the_most_rounds_and_who_averages_the_fewest() -> None:
    factors = [rounds_factor(disagreement_dense(W)) for W in (np.full((6, 6), 1 / 6), circulant(6, (1, 2)).matrix)]
    assert factors[0] == pytest.approx(1.0)
    assert factors[0] < factors[1] < rounds_factor(disagreement_dense(np.eye(6))) <= rounds_factor(np.inf)


# -- parts -------------------------------------------------------------------------------------------------------------


def test_squaring_finds_strong_connection() -> None:
    ring = np.roll(np.eye(7, dtype=bool), 1, axis=1)
    assert strongly_connected(ring)
    ring[0, 1] = False
    assert not strongly_connected(ring)
    np.testing.assert_allclose(balanced(np.roll(np.eye(5, dtype=bool), 1, axis=1)).sum(axis=0), 1.0)


def test_matcha_spends_its_budget_where_it_connects_most() -> None:
    base = nearest(np.random.default_rng(2).uniform(0, 500, (14, 2)), 3)
    parts = matchings(base, np.ones(base.links, np.bool_))
    share = activation(base, parts, 0.5)
    assert share.sum() == pytest.approx(0.5 * len(parts), abs=1e-6)
    assert ((share >= 0) & (share <= 1)).all()

    def second(p: np.ndarray) -> float:
        tie = np.zeros(base.links)
        for links, value in zip(parts, p, strict=True):
            tie[links] = value
        dense = base.dense(tie)
        return float(np.linalg.eigvalsh(np.diag(dense.sum(axis=1)) - dense)[1])

    assert second(share) > second(np.full(len(parts), 0.5))
    assert 0.0 < mixing_weight(base, parts, share) <= 1.0
