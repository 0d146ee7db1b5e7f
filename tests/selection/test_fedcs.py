"""FedCS: what is packed fits, and nobody could be added for less."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.selection import Candidates, FedCS, pack

SECONDS = st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.01, 5.0)), min_size=1, max_size=12)


def finish_s(compute_s: np.ndarray, up_s: np.ndarray, order: list[int]) -> float:
    """An independent reckoning: computing at once, uploads one after the other in this order."""
    free_s = 0.0
    for node in order:
        free_s = max(free_s, compute_s[node]) + up_s[node]
    return free_s


@given(nodes=SECONDS, deadline_s=st.floats(0.1, 20.0), count=st.integers(1, 12))
def test_the_packed_are_in_before_the_deadline_on_one_shared_uplink(
    nodes: list[tuple[float, float]], deadline_s: float, count: int
) -> None:
    compute_s, up_s = np.array(nodes).T
    order, done_s = pack(compute_s, up_s, count, deadline_s)
    assert len(order) <= count
    assert done_s <= deadline_s
    assert math.isclose(done_s, finish_s(compute_s, up_s, order.tolist()), abs_tol=1e-9)


@given(nodes=SECONDS, deadline_s=st.floats(0.1, 20.0))
def test_nobody_left_out_could_still_be_added(nodes: list[tuple[float, float]], deadline_s: float) -> None:
    compute_s, up_s = np.array(nodes).T
    order, _ = pack(compute_s, up_s, len(nodes), deadline_s)
    for node in set(range(len(nodes))) - set(order.tolist()):
        assert finish_s(compute_s, up_s, [*order.tolist(), node]) > deadline_s - 1e-9


def test_a_long_upload_is_packed_behind_short_ones_and_computing_hides_behind_uploads() -> None:
    compute_s, up_s = np.array([1.0, 4.5, 1.0]), np.array([1.0, 1.0, 3.0])
    order, done_s = pack(compute_s, up_s, 3)
    assert order.tolist() == [0, 2, 1]
    assert done_s == 6.0  # 1 + 1, then 3, and node 1 computed meanwhile


def three_uploads(up_bits: float = 4e6) -> Candidates:
    """Nodes at 1, 8 and 4 Mbit/s with 4 Mbit to send each, after computing for 1, 1 and 3 s."""
    return Candidates(
        np.arange(3),
        {
            "compute_s": np.array([1.0, 1.0, 3.0]),
            "up_s": np.array([4.0, 0.5, 1.0]),
            "up_bits": np.full(3, up_bits),
        },
    )


def packed(score: FedCS, table: Candidates) -> list[int]:
    return score.rank(table, 3, None, 1, np.random.default_rng(0))[0].tolist()


@pytest.mark.parametrize(
    ("uplink_bps", "deadline_s", "expected"),
    [
        # At their own rates: node 1 is in at 1.5 s, node 2 at 4 s, node 0 at 8 s.
        (None, 8.0, [1, 2, 0]),
        (1e9, 8.0, [1, 2, 0]),
        (None, 7.9, [1, 2]),
        # At 2 Mbit/s at most: 4, 2 and 2 s. Node 1 is in at 3 s, node 2 at 5 s, node 0 at 9 s.
        (2e6, 9.0, [1, 2, 0]),
        (2e6, 8.0, [1, 2]),
        (2e6, 4.9, [1]),
    ],
)
def test_an_upload_goes_at_the_lower_of_the_edges_rate_and_the_nodes_own(
    uplink_bps: float | None, deadline_s: float, expected: list[int]
) -> None:
    assert packed(FedCS(deadline_s, uplink_bps=uplink_bps), three_uploads()) == expected


@pytest.mark.parametrize(("deadline_s", "fit"), [(8.9, 1), (9.0, 2), (12.9, 2), (13.0, 3)])
def test_on_an_uplink_slower_than_all_nodes_their_rates_do_not_matter(deadline_s: float, fit: int) -> None:
    # 4 s each at 1 Mbit/s, one after the other, the first after 1 s of computing.
    assert len(packed(FedCS(deadline_s, uplink_bps=1e6), three_uploads())) == fit


def test_the_uplinks_rate_says_nothing_while_it_is_unknown_how_much_is_sent() -> None:
    assert packed(FedCS(8.0, uplink_bps=1.0), three_uploads(math.nan)) == [1, 2, 0]


def test_of_whom_nothing_is_known_the_upload_takes_at_least_what_the_uplink_needs() -> None:
    table = Candidates(np.arange(2), {"compute_s": np.zeros(2), "up_bits": np.full(2, 6e6)})
    score = FedCS(5.0, uplink_bps=2e6)
    assert len(score.rank(table, 2, None, 1, np.random.default_rng(0))[0]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"uplink_bps": 0.0}, "uplink_bps=0.0"),
        ({"uplink_bps": 1e6, "shared_uplink": False}, "leave out one of the two"),
    ],
)
def test_a_rate_that_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FedCS(**options)


def test_on_links_of_their_own_the_fastest_are_taken() -> None:
    order, done_s = pack(np.array([5.0, 1.0, 2.0]), np.array([1.0, 2.0, 0.5]), 2, shared=False)
    assert (order.tolist(), done_s) == ([2, 1], 3.0)
    assert pack(np.array([5.0]), np.array([1.0]), 2, 3.0, shared=False)[0].tolist() == []


def test_only_a_random_pool_is_packed_from_so_that_others_get_their_turn() -> None:
    table = Candidates(np.arange(30), {"compute_s": np.arange(30.0), "up_s": np.ones(30)})
    seen: set[int] = set()
    for seed in range(60):
        order, _ = FedCS(pool=2.0).rank(table, 3, None, 1, np.random.default_rng(seed))
        assert len(order) == 30
        seen |= set(order[:3].tolist())
    assert 15 < len(seen) < 30  # the slowest are never among the fastest three of six
    everybody, _ = FedCS(pool=30).rank(table, 3, None, 1, np.random.default_rng(0))
    assert everybody[:3].tolist() == [0, 1, 2]


def test_unknown_times_count_as_the_mean_and_nothing_known_is_a_lot() -> None:
    table = Candidates(np.arange(3), {"compute_s": np.array([1.0, np.nan, 9.0]), "up_s": np.ones(3)})
    order, _ = FedCS(pool=3).rank(table, 3, None, 1, np.random.default_rng(0))
    assert order.tolist() == [0, 1, 2]
    first = {int(FedCS().rank(Candidates(np.arange(5)), 1, None, 1, np.random.default_rng(s))[0][0]) for s in range(50)}
    assert first == set(range(5))


@pytest.mark.parametrize("shared", [True, False])
def test_of_equally_fast_nodes_who_was_asked_longest_ago_goes_first(shared: bool) -> None:
    asked = np.array([5.0, 2.0, np.nan, 9.0])
    table = Candidates(np.arange(4), {"compute_s": np.ones(4), "up_s": np.ones(4), "last_asked": asked})
    order, _ = FedCS(pool=4, shared_uplink=shared).rank(table, 4, None, 1, np.random.default_rng(0))
    assert order.tolist() == [2, 1, 0, 3]


@pytest.mark.parametrize("shared", [True, False])
def test_a_deadline_nobody_can_keep_leaves_the_fastest(shared: bool) -> None:
    table = Candidates(np.arange(3), {"compute_s": np.array([7.0, 5.0, 9.0]), "up_s": np.ones(3)})
    order, _ = FedCS(deadline_s=1.0, shared_uplink=shared).rank(table, 3, None, 1, np.random.default_rng(0))
    assert order.tolist() == [1]
