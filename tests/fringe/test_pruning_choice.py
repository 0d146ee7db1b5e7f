"""Choice of channels and least squares."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.channel_choice import largest, ranking
from flower_edge.fringe.reconstruction import least_squares_map, residual_moment, second_moment


def drawn(seed: int, channels: int, samples: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, channels)) @ rng.normal(size=(channels, channels))
    w = rng.normal(size=(4, channels))
    return x, w


@given(st.integers(0, 99), st.data())
@settings(max_examples=25)
def test_no_other_linear_map_guesses_better_than_least_squares(seed: int, data: st.DataObject) -> None:
    x, _ = drawn(seed, 5)
    keep = sorted(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True)))
    A = least_squares_map(second_moment(x), keep)
    np.testing.assert_array_equal(A[keep], np.eye(len(keep)))
    other = A + np.random.default_rng(seed + 1).normal(scale=0.1, size=A.shape)
    assert np.square(x - x[:, keep] @ A.T).sum() <= np.square(x - x[:, keep] @ other.T).sum()


@given(st.integers(0, 99))
@settings(max_examples=15)
def test_the_prices_add_up_to_the_error_in_what_is_read(seed: int) -> None:
    x, w = drawn(seed, 6)
    found = ranking(second_moment(x), w.T @ w)
    close = 1e-5 * found.errors[-1]  # of the little that keeps the moment invertible
    for count in (1, 3, 5):
        keep = list(found.keep(count))
        read = np.square((x - x[:, keep] @ found.map(keep).T) @ w.T).sum() / len(x)
        np.testing.assert_allclose(found.errors[6 - count - 1], read, rtol=1e-3, atol=close)
        np.testing.assert_allclose(read, np.trace(w.T @ w @ residual_moment(found.moment, keep)), rtol=1e-3, atol=close)
    assert found.error(6) == 0.0
    assert all(a <= b for a, b in zip(found.errors, found.errors[1:], strict=False))
    assert set(found.keep(2)) < set(found.keep(4))


def test_giving_up_one_channel_is_the_best_of_all_choices() -> None:
    x, w = drawn(4, 6)
    found = ranking(second_moment(x), w.T @ w)
    costs = {keep: np.trace(w.T @ w @ residual_moment(found.moment, keep)) for keep in combinations(range(6), 5)}
    assert found.keep(5) == min(costs, key=lambda keep: costs[keep])


def test_channels_that_are_always_zero_or_copies_go_first() -> None:
    x, _ = drawn(1, 4)
    x = np.concatenate([x, np.zeros((60, 1)), x[:, :1]], axis=1)
    found = ranking(second_moment(x), np.eye(6))
    assert 4 in found.removed[:2]
    assert {0, 5} & set(found.removed[:2])
    assert found.error(4) < 1e-5


def test_sixty_four_channels_are_ranked_in_less_than_a_second() -> None:
    x, w = drawn(0, 64, 400)
    started = time.process_time()
    ranking(second_moment(x), w.T @ w)
    assert time.process_time() - started < 1.0


def test_the_largest_norms_are_kept_and_bad_counts_refused() -> None:
    assert largest([1.0, 3.0, 3.0, 2.0], 2) == (1, 2)
    for count in (0, 5):
        with pytest.raises(FringeError, match=r"1 \.\. 4"):
            largest([1.0, 3.0, 3.0, 2.0], count)
    with pytest.raises(FringeError, match="finite"):
        largest([float("nan")], 1)


@pytest.mark.parametrize(
    ("x", "axis", "words"),
    [
        (np.zeros(3), 1, "axis 1"),
        (np.zeros((2, 3)), 0, "axis 0"),
        (np.zeros((0, 3)), 1, "empty"),
        (np.full((2, 3), np.inf), 1, "NaN or infinity"),
    ],
)
def test_activations_that_tell_nothing_are_refused(x: np.ndarray, axis: int, words: str) -> None:
    with pytest.raises(FringeError, match=words):
        second_moment(x, axis)


def test_moments_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(FringeError, match="3 channels and a Gram matrix of 2"):
        ranking(np.eye(3), np.eye(2))
    with pytest.raises(FringeError, match="finite"):
        least_squares_map(np.ones((2, 3)), [0])
