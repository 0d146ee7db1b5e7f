"""Oort by worked numbers and laws: its score, its exploration, its pacer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from flower_edge.selection import Candidates, Oort, statistical_utility
from flower_edge.selection.oort import OortState


def seen(
    loss: Any, duration_s: Any = None, last_round: Any = None, num_examples: Any = None, picks: Any = None
) -> Candidates:
    loss = np.array(loss, np.float64)
    columns = {"loss": loss, "num_examples": np.ones(len(loss)) if num_examples is None else np.array(num_examples)}
    columns["last_round"] = np.where(np.isnan(loss), np.nan, 1.0) if last_round is None else np.array(last_round)
    columns["picks"] = np.nan_to_num(columns["last_round"]) if picks is None else np.array(picks)
    if duration_s is not None:
        columns["duration_s"] = np.array(duration_s, np.float64)
    return Candidates(np.arange(len(loss)), columns)


def shares(oort: Oort, table: Candidates, state: OortState | None = None, draws: int = 4000) -> np.ndarray:
    """How often each node comes first, when one is chosen."""
    first = np.zeros(len(table))
    for seed in range(draws):
        order, _ = oort.rank(table, 1, oort.init() if state is None else state, 2, np.random.default_rng(seed))
        first[order[0]] += 1
    return first / draws


def test_statistical_utility_is_samples_times_root_mean_square_loss_where_it_is_told() -> None:
    table = Candidates(
        np.arange(3),
        {
            "loss": np.array([1.0, 2.0, np.nan]),
            "loss_rms": np.array([1.5, np.nan, np.nan]),
            "num_examples": np.array([10.0, 20.0, 30.0]),
        },
    )
    np.testing.assert_array_equal(statistical_utility(table), [15.0, 40.0, np.nan])


def test_nodes_are_exploited_in_proportion_to_the_published_score() -> None:
    # u = 1, 2, 3, 4, clipped at the last of them; all answered choice 1, and this is choice 2.
    table = seen([1.0, 2.0, 3.0, 4.0], duration_s=[1.0, 2.0, 4.0, 1.0])
    oort = Oort.published(epsilon=0.0, epsilon_floor=0.0)
    score = (np.array([1.0, 2.0, 3.0, 4.0]) - 0.999) / (4 - 0.999) + math.sqrt(0.1 * math.log(2))
    # The 30th percentile of the durations 1, 1, 2, 4 is the one at place int(4 · 0.3) = 1.
    score *= np.array([1.0, (1 / 2) ** 2, (1 / 4) ** 2, 1.0])
    np.testing.assert_allclose(shares(oort, table), score / score.sum(), atol=0.025)


def test_who_answered_longest_ago_is_less_certain_and_comes_more_often() -> None:
    often = shares(Oort.published(epsilon=0.0, epsilon_floor=0.0), seen([1.0, 1.0], last_round=[1.0, 50.0]))
    score = 1.0 + np.sqrt(0.1 * math.log(2) / np.array([1.0, 50.0]))
    np.testing.assert_allclose(often, score / score.sum(), atol=0.025)


def test_a_penalty_of_zero_does_not_look_at_durations() -> None:
    slow, none = seen([1.0, 2.0], [1.0, 100.0]), seen([1.0, 2.0])
    oort = Oort.published(penalty=0.0, epsilon=0.0, epsilon_floor=0.0)
    np.testing.assert_array_equal(shares(oort, slow, draws=200), shares(oort, none, draws=200))


def test_epsilon_falls_by_a_fiftieth_per_choice_to_its_floor() -> None:
    oort, table = Oort.published(), seen([1.0] * 10)
    state, rng, epsilons = oort.init(), np.random.default_rng(0), []
    for round in range(1, 81):
        _, state = oort.rank(table, 5, state, round, rng)
        epsilons.append(state["epsilon"])
    np.testing.assert_allclose(epsilons[:3], [0.9 * 0.98, 0.9 * 0.98**2, 0.9 * 0.98**3])
    assert epsilons[-1] == 0.3


def test_exploration_takes_its_share_of_the_places() -> None:
    table = seen([1.0] * 20 + [np.nan] * 20)
    order, _ = Oort.published(epsilon=0.5, epsilon_decay=1.0).rank(
        table, 10, Oort.published(epsilon=0.5).init(), 2, np.random.default_rng(0)
    )
    assert sum(position >= 20 for position in order[:10]) == 5


def test_unexplored_nodes_known_to_be_fast_and_large_are_explored_first() -> None:
    nodes = 40
    table = seen([np.nan] * nodes, duration_s=[1.0] * 20 + [50.0] * 20, num_examples=[100.0] * 10 + [1.0] * 30)
    explored = np.zeros(nodes)
    for seed in range(200):
        order, _ = Oort(window=20.0).rank(table, 2, Oort().init(), 1, np.random.default_rng(seed))
        explored[order[:2]] += 1
    assert explored[:10].sum() > 0.9 * explored.sum()


def test_without_unexplored_nodes_all_places_are_filled() -> None:
    for revisit in ("uniform", "score"):
        oort = Oort(revisit=revisit)  # type: ignore[arg-type]
        order, _ = oort.rank(seen([1.0] * 12), 10, oort.init(), 2, np.random.default_rng(0))
        assert sorted(order) == list(range(12))


def test_uniform_revisits_reach_the_nodes_a_score_would_not() -> None:
    # The last node has no utility to speak of and is slow: only a lot finds it.
    table = seen([5.0] * 19 + [0.0], duration_s=[1.0] * 19 + [1000.0])
    often = {}
    for revisit in ("uniform", "score"):
        oort = Oort(revisit=revisit, epsilon_floor=0.5, epsilon_decay=0.5)  # type: ignore[arg-type]
        often[revisit] = sum(
            19 in oort.rank(table, 4, oort.init(), 2, np.random.default_rng(seed))[0][:4] for seed in range(400)
        )
    assert often["uniform"] > 20
    assert often["score"] == 0


def paced(utilities: list[float], every: int = 5) -> list[float]:
    """The percentile before each choice, when the exploited node's utility was as given."""
    oort = Oort.published(epsilon=0.0, epsilon_floor=0.0, pacer_every=every)
    state, percentiles = oort.init(), []
    for round, utility in enumerate(utilities, start=1):
        table = seen([utility], last_round=[max(1, round - 1)])
        _, state = oort.rank(table, 1, state, round, np.random.default_rng(round))
        percentiles.append(state["percentile"])
    return percentiles


def test_the_pacer_admits_slower_nodes_when_the_utility_is_flat() -> None:
    assert paced([1.0] * 15)[-1] == 35.0


def test_the_pacer_is_stricter_after_a_jump_and_rests_otherwise() -> None:
    assert paced([1.0] * 5 + [20.0] * 5)[-1] == 25.0
    assert paced([1.0] * 5 + [2.0] * 5)[-1] == 30.0


def test_the_blacklist_is_off_and_leaves_out_the_most_picked_when_it_is_on() -> None:
    table = seen([1.0] * 10, picks=[20.0, 15.0, 12.0, 11.0] + [1.0] * 6)
    everybody, _ = Oort().rank(table, 10, Oort().init(), 2, np.random.default_rng(0))
    assert sorted(everybody) == list(range(10))
    some, _ = Oort(blacklist_after=10).rank(table, 10, Oort().init(), 2, np.random.default_rng(0))
    assert sorted(some) == list(range(3, 10))  # at most three in ten


def test_the_published_values_are_those_of_the_source() -> None:
    oort = Oort.published()
    assert (oort.epsilon, oort.epsilon_decay, oort.epsilon_floor) == (0.9, 0.98, 0.3)
    assert (oort.clip, oort.percentile, oort.penalty) == (0.9, 30.0, 2.0)
    assert (oort.pacer_every, oort.pacer_step, oort.blacklist_after) == (20, 5.0, None)


@pytest.mark.parametrize("losses", [[np.nan, np.nan], [0.0, 0.0], [1.0, np.nan]])
def test_odd_losses_leave_nobody_out(losses: list[float]) -> None:
    order, _ = Oort().rank(seen(losses), 2, Oort().init(), 1, np.random.default_rng(0))
    assert sorted(order) == [0, 1]


def test_who_was_asked_and_never_answered_is_not_explored_again_and_again() -> None:
    asked = np.array([3.0] * 20 + [np.nan] * 20)
    table = Candidates(np.arange(40), {"last_asked": asked, "picks": np.nan_to_num(asked) / 3})
    first = np.concatenate(
        [
            Oort.published().rank(table, 10, Oort.published().init(), 4, np.random.default_rng(seed))[0][:10]
            for seed in range(20)
        ]
    )
    # Eight places of ten are for exploration, and all of them go to those that were never asked.
    assert (first >= 20).mean() == 0.8
