"""Deadlines for a random P: feasible, better than the min-max split, and that split where P is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.control.controller import Observation
from flower_edge.control.deadlines import deadlines_s, shares_for
from flower_edge.control.min_max import min_max_bandwidth
from flower_edge.control.ready_times import ReadyTimes, forget, ready_times, remember_ready
from flower_edge.topology.topology import Topology

NORMAL = np.sort(np.clip(np.random.default_rng(0).normal(1.0, 0.5, 2000), 0.01, 2.0)) - 1.0


def network(seed: int) -> tuple[Topology, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 3])
    whole = Topology.complete(6)
    some = whole.keep(rng.random(whole.links) < 0.6)
    return some, rng.lognormal(-3.0, 1.0, some.links), rng.uniform(0.0, 0.05, some.links)


@given(st.integers(0, 30))
@settings(max_examples=15)
def test_bands_suffice_for_the_deadlines_and_rounds_are_no_longer_than_with_the_min_max_split(seed: int) -> None:
    links, whole_s, extra_s = network(seed)
    ready = ReadyTimes(np.random.default_rng(seed).uniform(0.8, 1.2, 6), NORMAL)
    after_s = deadlines_s(links.receiver, links.sender, whole_s, extra_s, ready)
    need = np.bincount(links.receiver, whole_s / (after_s[links.sender] - extra_s), minlength=6)
    assert need.max() <= 1.0 + 1e-9
    planned = Observation(ready.place_s, 1 / whole_s, np.ones(6), extra_s)
    share, _ = min_max_bandwidth(links, np.ones(links.links, np.bool_), np.ones(6), planned)
    split_s = np.zeros(6)
    np.maximum.at(split_s, links.sender, whole_s / share + extra_s)
    assert ready.largest_s(after_s) <= ready.largest_s(split_s) + 1e-9


def test_a_random_p_is_worth_a_split_of_its_own() -> None:
    links = Topology(3, [0, 0], [1, 2])
    ready = ReadyTimes(np.ones(3), NORMAL)
    whole_s = np.array([0.1, 0.9])
    after_s = deadlines_s(links.receiver, links.sender, whole_s, np.zeros(2), ready)
    at_once_s = np.array([0.0, 1.0, 1.0])
    assert ready.largest_s(after_s) < ready.largest_s(at_once_s) - 1e-3


def test_a_known_p_gives_the_exact_min_max_split() -> None:
    links, whole_s, extra_s = network(1)
    ready = ReadyTimes(np.array([1.0, 0.5, 1.5, 1.2, 0.7, 0.9]), np.zeros(1))
    after_s = deadlines_s(links.receiver, links.sender, whole_s, extra_s, ready)
    planned = Observation(ready.place_s, 1 / whole_s, np.ones(6), extra_s)
    _, time_s = min_max_bandwidth(links, np.ones(links.links, np.bool_), np.ones(6), planned)
    # Who is not heard has no deadline, but computes all the same.
    assert ready.largest_s(after_s) == pytest.approx(max(time_s.max(), ready.place_s.max()), rel=1e-9)


def test_shares_sum_to_one_and_follow_what_is_left() -> None:
    links, whole_s, extra_s = network(2)
    after_s = np.full(6, 0.4)
    share = shares_for(6, links.receiver, links.sender, whole_s, extra_s, after_s)
    hears = links.in_degree > 0
    np.testing.assert_allclose(np.bincount(links.receiver, share, minlength=6)[hears], 1.0, atol=1e-12)
    assert (share > 0).all()


def test_nobody_hears_nobody() -> None:
    nothing = np.zeros(0, np.int64)
    assert deadlines_s(nothing, nothing, np.zeros(0), np.zeros(0), ReadyTimes(np.ones(2), NORMAL)).tolist() == [0, 0]


# -- the distribution of P ---------------------------------------------------------------------------------------------


def remembered(table: np.ndarray) -> ReadyTimes:
    memory = forget(table.shape[1])
    for row in table:
        memory = remember_ready(memory, row)
    return ready_times(memory)


def test_the_mean_of_the_largest_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(5)
    ready, after_s = ReadyTimes(rng.uniform(0.5, 1.5, 8), NORMAL), rng.uniform(0.0, 1.0, 8)
    draws = ready.place_s + after_s + rng.choice(NORMAL, (40_000, 8))
    assert ready.largest_s(after_s) == pytest.approx(draws.max(axis=1).mean(), rel=0.003)


def test_its_slope_is_how_often_each_is_the_last() -> None:
    rng = np.random.default_rng(6)
    ready, after_s = ReadyTimes(np.ones(5), NORMAL), rng.uniform(0.0, 0.5, 5)
    draws = after_s + rng.choice(NORMAL, (40_000, 5))
    often = np.bincount(draws.argmax(axis=1), minlength=5) / 40_000
    np.testing.assert_allclose(ready.slope(after_s), often, atol=0.02)
    assert ready.slope(after_s).sum() == pytest.approx(1.0)


def test_many_plans_at_once_are_as_one_by_one() -> None:
    ready, plans = ReadyTimes(np.ones(4), NORMAL), np.random.default_rng(7).uniform(0, 2, (3, 4))
    np.testing.assert_array_equal(ready.largest_s(plans), [float(ready.largest_s(plan)) for plan in plans])


def test_nodes_that_do_not_differ_have_one_place_and_fast_and_slow_ones_their_own() -> None:
    rng = np.random.default_rng(8)
    alike = remembered(rng.normal(1.0, 0.5, (20, 15)))
    assert np.ptp(alike.place_s) < 0.25
    means = np.linspace(0.4, 1.6, 15)
    apart = remembered(means + rng.normal(0.0, 0.2, (20, 15)))
    np.testing.assert_allclose(apart.place_s, means, atol=0.15)


def test_a_silent_node_is_expected_like_the_others_and_nothing_known_is_nothing() -> None:
    table = np.random.default_rng(9).normal(1.0, 0.1, (6, 4))
    table[:, 2] = np.nan
    assert remembered(table).place_s[2] == pytest.approx(np.nanmean(table))
    assert ready_times(forget(3)).place_s.tolist() == [0.0, 0.0, 0.0]
    assert ready_times(forget(3, np.array([1.0, np.nan, 2.0]))).place_s.tolist() == [1.0, 1.5, 2.0]
