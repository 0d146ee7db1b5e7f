"""Numbers about weights against dense linear algebra and against what rounds of mixing do; Sinkhorn's scaling."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_graphs import draw_weights, geometric, rings_with_chords, topologies

import flower_edge.topology.mixing as mixing
from flower_edge.errors import TopologyError
from flower_edge.topology.connectivity import components
from flower_edge.topology.mixing import (
    averaging_rounds,
    column_sums,
    consensus_bias,
    second_eigenvalue,
    second_singular_value,
    spectral_gap,
    stationary,
)
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.sinkhorn import scaling, sinkhorn
from flower_edge.topology.topology import Topology
from flower_edge.topology.weights import equal, metropolis

few = settings(max_examples=40)
seeds = st.integers(0, 2**32)


# -- where to --------------------------------------------------------------------------------------------------------


@few
@given(rings_with_chords(), seeds)
def test_many_rounds_end_where_the_stationary_distribution_says(topology: Topology, seed: int) -> None:
    weights, own = draw_weights(topology, seed)
    pi = stationary(topology, weights, own)
    dense = topology.dense(weights, own)
    np.testing.assert_allclose(pi @ dense, pi, atol=1e-14)
    assert pi.sum() == pytest.approx(1.0, abs=1e-14)
    many = np.linalg.matrix_power(dense, 2**14)
    np.testing.assert_allclose(many, np.broadcast_to(pi, many.shape), atol=1e-9)
    assert consensus_bias(topology, weights, own) == pytest.approx(np.abs(topology.nodes * pi - 1.0).max())


def test_a_node_nobody_hears_does_not_count() -> None:
    chain = Topology(3, receiver=[1, 2], sender=[0, 1])
    weights, own = equal(chain)
    np.testing.assert_allclose(stationary(chain, weights, own), [1.0, 0.0, 0.0], atol=1e-15)
    assert consensus_bias(chain, weights, own) == 2.0
    assert second_singular_value(chain, weights, own) == 1.0
    assert second_eigenvalue(chain, weights, own) == 0.5


def test_groups_that_never_hear_each_other_reach_no_common_model() -> None:
    apart = Topology(4, receiver=[0, 1, 2, 3], sender=[1, 0, 3, 2])
    weights, own = equal(apart)
    with pytest.raises(TopologyError, match=r"nodes 0 and 2 belong to groups that never hear each other \(2 such"):
        stationary(apart, weights, own)
    assert consensus_bias(apart, weights, own) == math.inf
    assert second_eigenvalue(apart, weights, own) == 1.0
    assert second_singular_value(apart, weights, own) == 1.0


def test_rows_that_do_not_sum_to_one_are_refused() -> None:
    pair = Topology.complete(2)
    for number in (stationary, consensus_bias, second_singular_value, second_eigenvalue):
        with pytest.raises(TopologyError, match="weights of node 1 sum to"):
            number(pair, np.array([0.5, 0.5]), np.array([0.5, 0.6]))
        with pytest.raises(TopologyError, match="one for each of 2 links"):
            number(pair, np.array([0.5]), np.array([0.5, 0.5]))


# -- how fast --------------------------------------------------------------------------------------------------------


@few
@given(rings_with_chords(), seeds)
def test_a_round_shrinks_disagreement_at_least_by_sigma2(topology: Topology, seed: int) -> None:
    weights, own = draw_weights(topology, seed)
    pi, sigma2 = stationary(topology, weights, own), second_singular_value(topology, weights, own)
    dense = topology.dense(weights, own)
    root = np.sqrt(pi)
    scaled = root[:, None] * (dense - pi) / root
    assert sigma2 == pytest.approx(np.linalg.svd(scaled, compute_uv=False)[0], abs=1e-12)
    assert 0.0 <= second_eigenvalue(topology, weights, own) <= sigma2 + 1e-9 <= 1.0 + 2e-9
    assert spectral_gap(topology, weights, own) == 1.0 - sigma2
    models = np.random.default_rng(seed).normal(size=(topology.nodes, 5))
    before, after = models - pi @ models, dense @ models - pi @ models
    assert (pi @ after**2 <= sigma2**2 * (pi @ before**2) + 1e-12).all()


@few
@given(rings_with_chords(), seeds)
def test_sigma2_of_doubly_stochastic_weights_is_the_norm_without_the_mean(topology: Topology, seed: int) -> None:
    weights, own = sinkhorn(topology, *draw_weights(topology, seed))
    norm = np.linalg.norm(topology.dense(weights, own) - 1.0 / topology.nodes, 2)
    assert second_singular_value(topology, weights, own) == pytest.approx(norm, abs=1e-9)


def test_alike_and_alone_are_the_two_ends() -> None:
    complete = Topology.complete(5)
    assert second_singular_value(complete, *equal(complete)) == pytest.approx(0.0, abs=1e-12)
    assert second_singular_value(complete, np.zeros(20), np.ones(5)) == 1.0
    assert second_singular_value(Topology(1, [], []), np.zeros(0), np.ones(1)) == 0.0


@pytest.mark.parametrize("doubly", [True, False])
def test_sparse_iterations_find_what_dense_algebra_does(doubly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = geometric(300, seed=4)
    weights = metropolis(topology) if doubly else draw_weights(topology, seed=4)
    sparse = [number(topology, *weights) for number in (second_singular_value, second_eigenvalue, consensus_bias)]
    monkeypatch.setattr(mixing, "DENSE", 1000)
    dense = [number(topology, *weights) for number in (second_singular_value, second_eigenvalue, consensus_bias)]
    assert dense[0] > 0.97
    for found, wanted in zip(sparse[:2], dense[:2], strict=True):
        assert abs(found - wanted) <= 0.1 * (1.0 - wanted)
    assert sparse[2] == pytest.approx(dense[2], abs=1e-9)
    alike = Topology.complete(201)
    assert second_singular_value(alike, *equal(alike)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("sigma2", "error", "rounds"), [(0.5, 0.5, 1), (0.5, 0.2, 3), (0.0, 1e-6, 1), (0.9, 1e-3, 66)])
def test_averaging_takes_as_many_rounds_as_it_says(sigma2: float, error: float, rounds: int) -> None:
    assert averaging_rounds(sigma2, error) == rounds
    assert sigma2**rounds <= error * (1 + 1e-12)
    assert rounds == 1 or sigma2 ** (rounds - 1) > error


def test_averaging_that_never_ends_is_refused() -> None:
    with pytest.raises(TopologyError, match="never averages"):
        averaging_rounds(1.0, 1e-3)
    with pytest.raises(TopologyError, match=r"error = 1\.0"):
        averaging_rounds(0.5, 1.0)


# -- Sinkhorn --------------------------------------------------------------------------------------------------------


@few
@given(rings_with_chords(), seeds, st.sampled_from([0.5, 2.0, 6.0]))
def test_a_strongly_connected_network_scales_to_doubly_stochastic(topology: Topology, seed: int, spread: float) -> None:
    given_weights, given_own = draw_weights(topology, seed, spread)
    weights, own = sinkhorn(topology, given_weights, given_own)
    np.testing.assert_allclose(sum_rows(weights, topology.indptr) + own, 1.0, atol=1e-14)
    np.testing.assert_allclose(column_sums(topology, weights, own), 1.0, atol=2e-12)
    assert (weights > 0).all()
    rows, columns = scaling(topology, given_weights, given_own)
    np.testing.assert_allclose(
        topology.dense(weights, own), rows[:, None] * topology.dense(given_weights, given_own) * columns, rtol=1e-9
    )


@few
@given(topologies(least=1), seeds)
def test_what_no_scaling_can_use_is_refused_and_all_else_scales(topology: Topology, seed: int) -> None:
    weights, own = draw_weights(topology, seed)
    labels = components(topology)
    if (labels[topology.receiver] != labels[topology.sender]).any():
        with pytest.raises(TopologyError, match=r"link \d -> \d lies on no cycle"):
            sinkhorn(topology, weights, own)
    else:
        np.testing.assert_allclose(column_sums(topology, *sinkhorn(topology, weights, own)), 1.0, atol=2e-12)


@few
@given(topologies(least=2, most=5), seeds)
def test_without_self_weights_it_scales_where_every_link_is_part_of_an_assignment(
    topology: Topology, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights, own = rng.random(topology.links) + 0.1, rng.random(topology.nodes) * (rng.random(topology.nodes) < 0.3)
    dense = topology.dense(weights, own)
    if total_support(dense > 0):
        scaled = topology.dense(*sinkhorn(topology, weights, own, tolerance=1e-10))
        np.testing.assert_allclose(scaled.sum(axis=0), 1.0, atol=1e-9)
        np.testing.assert_allclose(scaled.sum(axis=1), 1.0, atol=1e-12)
        assert np.array_equal(scaled > 0, dense > 0)
    else:
        with pytest.raises(TopologyError):
            sinkhorn(topology, weights, own)


def total_support(used: np.ndarray) -> bool:
    """By definition: every entry is part of a permutation; and there is one."""
    n = len(used)
    part = np.zeros_like(used)
    for columns in permutations(range(n)):
        if used[range(n), columns].all():
            part[range(n), columns] = True
    return bool(part.any() and np.array_equal(part, used))


def test_what_is_in_the_way_of_a_scaling_is_named() -> None:
    star = Topology(3, receiver=[0, 0, 1, 2], sender=[1, 2, 0, 0])
    with pytest.raises(TopologyError, match=r"heard by too few others .*node 0 has none"):
        sinkhorn(star, np.ones(4), np.zeros(3))
    with pytest.raises(TopologyError, match=r"no doubly stochastic weights .* self weight of node 1"):
        sinkhorn(Topology.complete(2), np.ones(2), np.array([0.0, 1.0]))
    with pytest.raises(TopologyError, match="self_weights: expected 3 finite values, 0 or more"):
        sinkhorn(star, np.ones(4), np.array([1.0, -1.0, 1.0]))
    with pytest.raises(TopologyError, match="weights: expected 4 finite values"):
        sinkhorn(star, np.array([1.0, np.nan, 1.0, 1.0]), np.ones(3))
    with pytest.raises(TopologyError, match="start: expected 3 factors"):
        sinkhorn(star, np.ones(4), np.ones(3), start=np.zeros(3))


def test_a_scaling_keeps_the_mean_and_ends_there() -> None:
    topology = geometric(60, seed=2)
    weights, own = draw_weights(topology, seed=2)
    assert consensus_bias(topology, weights, own) > 0.3
    weights, own = sinkhorn(topology, weights, own)
    assert consensus_bias(topology, weights, own) < 1e-9
    models = np.random.default_rng(0).normal(size=60)
    mixed = topology.matrix(weights, own) @ models
    assert mixed.mean() == pytest.approx(models.mean(), abs=1e-12)


def test_a_large_network_that_mixes_slowly_scales_all_the_same() -> None:
    topology = geometric(4000, seed=5)
    weights, own = sinkhorn(topology, *draw_weights(topology, seed=5, spread=2.0))
    assert np.abs(column_sums(topology, weights, own) - 1.0).max() <= 2e-12
    assert second_singular_value(topology, weights, own) > 0.998
    assert consensus_bias(topology, weights, own) < 1e-8


def test_factors_of_the_last_round_are_a_start_for_the_next() -> None:
    topology = geometric(500, seed=6)
    weights, own = draw_weights(topology, seed=6, spread=2.0)
    rows, columns = scaling(topology, weights, own)
    nearly = weights * np.random.default_rng(1).lognormal(0.0, 0.01, topology.links)
    from_start = sinkhorn(topology, nearly, own, start=columns)
    from_ones = sinkhorn(topology, nearly, own)
    np.testing.assert_allclose(from_start[0], from_ones[0], rtol=1e-7)
    # What is doubly stochastic already stays as it is.
    again = scaling(topology, weights, own, start=columns)
    np.testing.assert_array_equal(again[1], columns)
    np.testing.assert_allclose(again[0], rows, rtol=1e-12)
