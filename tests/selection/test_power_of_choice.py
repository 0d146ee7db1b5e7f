"""Power of choice: with d = m it is sampling by data share, with d above m it is the highest losses among d."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.selection import Candidates, PowerOfChoice
from flower_edge.selection.drawing import draw_by_weight


def table(sizes: list[float], losses: list[float] | None = None) -> Candidates:
    columns = {"num_examples": np.array(sizes, np.float64)}
    if losses is not None:
        columns["loss"] = np.array(losses, np.float64)
    return Candidates(np.arange(len(sizes)), columns)


def one_by_one(sizes: list[float], places: int) -> dict[tuple[int, ...], float]:
    """Probability of each ordered draw without replacement, each in proportion to the sizes left."""
    out = {}
    for order in permutations(range(len(sizes)), places):
        left, chance = sum(sizes), 1.0
        for node in order:
            chance *= sizes[node] / left
            left -= sizes[node]
        out[order] = chance
    return out


def test_drawing_by_weight_is_drawing_one_by_one_in_proportion_to_what_is_left() -> None:
    sizes, draws = [1.0, 2.0, 5.0, 4.0], 40_000
    rng, counts = np.random.default_rng(0), dict.fromkeys(permutations(range(4), 2), 0)
    for _ in range(draws):
        first, second = draw_by_weight(np.array(sizes), rng)[:2].tolist()
        counts[first, second] += 1
    for order, chance in one_by_one(sizes, 2).items():
        # Five standard deviations of a binomial count.
        assert abs(counts[order] - draws * chance) < 5 * np.sqrt(draws * chance * (1 - chance))


@given(
    sizes=st.lists(st.floats(0.5, 100.0), min_size=1, max_size=12),
    count=st.integers(1, 12),
    seed=st.integers(0, 1000),
    d=st.sampled_from(["equal", "adapted"]),
)
def test_with_d_equal_to_m_it_is_sampling_by_data_share_whatever_the_losses(
    sizes: list[float], count: int, seed: int, d: str
) -> None:
    losses = np.random.default_rng(seed).uniform(0, 9, len(sizes)).tolist()
    choice = PowerOfChoice(d=count, adaptive=False) if d == "equal" else PowerOfChoice(d=4 * count, halve_every=1)
    order, _ = choice.rank(table(sizes, losses), count, {"choices": 9}, 1, np.random.default_rng(seed))
    by_share = draw_by_weight(np.array(sizes), np.random.default_rng(seed))
    np.testing.assert_array_equal(order, by_share)


def test_of_the_d_drawn_those_with_the_highest_loss_come_first() -> None:
    losses = [0.1, 0.9, 0.5, 0.7]
    order, _ = PowerOfChoice(4).rank(table([1.0] * 4, losses), 2, {"choices": 0}, 1, np.random.default_rng(0))
    assert order.tolist() == [1, 3, 2, 0]


def test_unknown_losses_come_before_known_ones_in_the_order_of_the_draw() -> None:
    losses = [0.1, np.nan, 99.0, np.nan]
    rng = np.random.default_rng(1)
    drawn = draw_by_weight(np.ones(4), np.random.default_rng(1)).tolist()
    order, _ = PowerOfChoice(4).rank(table([1.0] * 4, losses), 2, {"choices": 0}, 1, rng)
    assert order[:2].tolist() == [node for node in drawn if node in (1, 3)]
    assert order[2:].tolist() == [2, 0]


def test_only_the_d_drawn_are_compared() -> None:
    losses = np.arange(50.0)
    first = [
        PowerOfChoice(5, adaptive=False).rank(
            table([1.0] * 50, losses.tolist()), 1, {"choices": 0}, 1, np.random.default_rng(seed)
        )[0][0]
        for seed in range(200)
    ]
    # The best of 5 of 50 is the best of all in one case of ten.
    assert 5 < sum(node == 49 for node in first) < 40


def test_adaptive_d_falls_to_m_and_stays_there_and_plain_d_does_not() -> None:
    adaptive, plain = PowerOfChoice(6.0, halve_every=5), PowerOfChoice(6.0, adaptive=False)
    assert [adaptive.drawn(2, choices) for choices in (0, 5, 10, 15, 100)] == [12, 6, 3, 2, 2]
    assert plain.drawn(2, 100) == 12


@pytest.mark.parametrize("d", [2, 2.0])
def test_an_int_is_a_number_of_nodes_and_a_float_a_multiple(d: float) -> None:
    assert PowerOfChoice(d).drawn(10, 0) == (20 if isinstance(d, float) else 10)


def test_nodes_without_data_come_last_and_unknown_sizes_count_as_the_mean() -> None:
    order = draw_by_weight(np.array([0.0, 3.0, 0.0]), np.random.default_rng(0))
    assert order[0] == 1
    unknown, _ = PowerOfChoice(1.0).rank(table([np.nan, np.nan]), 1, {"choices": 0}, 1, np.random.default_rng(0))
    assert sorted(unknown) == [0, 1]


def test_who_was_asked_and_never_answered_has_had_its_turn() -> None:
    columns = {
        "num_examples": np.ones(4),
        "loss": np.array([0.1, np.nan, 0.9, np.nan]),
        "last_asked": np.array([1.0, 1.0, 1.0, np.nan]),
    }
    order, _ = PowerOfChoice(4).rank(Candidates(np.arange(4), columns), 2, {"choices": 0}, 2, np.random.default_rng(0))
    assert order.tolist() == [3, 2, 1, 0]
