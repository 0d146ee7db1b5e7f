"""Schedules average: in a finite number of rounds, exactly, with no more peers than promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import TopologyError
from flower_edge.topology.peer_schedules import (
    base_k_plus_1,
    circulant,
    hyper_hypercube,
    one_peer_exponential,
    product,
)


@pytest.mark.parametrize("peers", [1, 2, 3, 4])
def test_a_period_of_base_k_plus_1_is_exact_consensus_for_any_number_of_seats(peers: int) -> None:
    for seats in range(1, 41):
        schedule = base_k_plus_1(seats, peers)
        assert seats == 1 or np.abs(product(schedule) - 1.0 / seats).max() <= 1e-12
        for exchange in schedule:
            matrix = exchange.matrix
            np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
            np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
            assert (matrix >= -1e-15).all()
            assert np.bincount(exchange.receiver, minlength=seats).max() <= peers


def test_periods_grow_with_the_logarithm() -> None:
    for peers in (1, 2, 3, 4):
        for seats in (7, 15, 40, 100, 500, 1000):
            assert len(base_k_plus_1(seats, peers)) <= 2 * np.log(seats) / np.log(peers + 1) + 2


@pytest.mark.parametrize(("seats", "peers", "rounds"), [(8, 1, 3), (9, 2, 2), (6, 2, 2), (64, 3, 3), (5, 4, 1)])
def test_a_hyper_hypercube_takes_a_round_per_axis(seats: int, peers: int, rounds: int) -> None:
    schedule = hyper_hypercube(seats, peers)
    assert len(schedule) == rounds
    np.testing.assert_allclose(product(schedule), 1.0 / seats, atol=1e-15)


def test_one_round_less_is_no_consensus() -> None:
    assert np.abs(product(base_k_plus_1(15, 1)[:-1]) - 1 / 15).max() > 1e-3


@given(st.integers(2, 70), st.floats(0.05, 0.95))
@settings(max_examples=30)
def test_one_peer_exponential_is_doubly_stochastic_and_mixes(seats: int, own: float) -> None:
    schedule = one_peer_exponential(seats, own)
    assert len(schedule) == (seats - 1).bit_length()
    for exchange in schedule:
        assert (np.bincount(exchange.receiver) == 1).all()
        assert (np.bincount(exchange.sender) == 1).all()
    whole = product(schedule)
    assert (whole > 0).all()  # everybody has heard of everybody
    np.testing.assert_allclose(whole.sum(axis=0), 1.0, atol=1e-12)


@pytest.mark.parametrize("power", [1, 2, 3, 5])
def test_one_peer_exponential_is_exact_for_powers_of_two(power: int) -> None:
    np.testing.assert_allclose(product(one_peer_exponential(2**power)), 0.5**power, atol=1e-15)


def test_a_directed_network_of_two_peers_mixes_like_a_symmetric_one_of_four() -> None:
    left = np.linalg.svd(circulant(15, (1, 4)).matrix - 1 / 15, compute_uv=False)[0]
    assert left == pytest.approx(0.7627, abs=1e-4)


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(TopologyError, match="each must be another seat"):
        circulant(4, (1, 5))
    with pytest.raises(TopologyError, match=r"own = 2\.0"):
        circulant(4, (1,), 2.0)
    with pytest.raises(TopologyError, match="prime factor above"):
        hyper_hypercube(10, 3)
    with pytest.raises(TopologyError, match="expected 1 or more of both"):
        base_k_plus_1(5, 0)
