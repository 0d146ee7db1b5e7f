"""Reservations: nothing is given away twice, release restores, and jitter is allowed for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import SplitError
from flower_edge.splitting.reservations import Reservations, jitter_bound, needed_bps, violation_rate
from flower_edge.store import tree_to_bytes

LINKS = {"a": 10.0, "b": 7.3}
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from("xyz"),
        st.one_of(st.none(), st.dictionaries(st.sampled_from("ab"), st.floats(0.0, 12.0), max_size=2)),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.sampled_from([0.0, 0.1]))
def test_no_link_ever_gives_more_than_it_has(
    requests: list[tuple[str, dict[str, float] | None]], headroom: float
) -> None:
    held = Reservations(LINKS, headroom=headroom)
    for who, asked in requests:
        if asked is None:
            held.release(who)
        else:
            before = held.held_bps(who)
            expected = asked if held.admit(who, asked) else before
            assert held.held_bps(who) == expected
        for name, rate_bps in LINKS.items():
            assert math.fsum(held.held_bps(one).get(name, 0.0) for one in "xyz") <= rate_bps * (1 - headroom)


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.dictionaries(st.sampled_from("ab"), st.floats(0.0, 12.0)))
def test_what_is_released_comes_back_to_the_last_bit(
    requests: list[tuple[str, dict[str, float] | None]], asked: dict[str, float]
) -> None:
    held = Reservations(LINKS)
    for who, rates in requests:
        held.admit(who, rates or {})
    before = [held.left_bps(name) for name in LINKS]
    held.admit("new", asked)
    held.release("new")
    held.release("new")
    assert [held.left_bps(name) for name in LINKS] == before


def test_all_links_on_the_way_admit_or_none() -> None:
    held = Reservations(LINKS)
    assert not held.admit("x", {"a": 9.0, "b": 8.0})
    assert held.left_bps("a") == 10.0
    assert held.held_bps("x") == {}


def test_who_asks_anew_gives_back_what_it_had() -> None:
    held = Reservations(LINKS)
    assert held.admit("x", {"a": 9.0})
    assert held.admit("x", {"a": 10.0})
    assert not held.admit("y", {"a": 0.1})
    assert not held.admit("x", {"a": 11.0})
    assert held.held_bps("x") == {"a": 10.0}


def test_it_goes_through_a_checkpoint() -> None:
    held = Reservations(LINKS, headroom=0.2)
    held.admit("x", {"a": 3.0})
    again = Reservations.from_state(held.state_dict())
    assert again.state_dict() == held.state_dict()
    assert again.left_bps("a") == held.left_bps("a")
    assert tree_to_bytes(held.state_dict())


def test_links_and_rates_that_are_none_are_refused() -> None:
    with pytest.raises(SplitError, match="no link is called 'c'; there are a, b"):
        Reservations(LINKS).admit("x", {"c": 1.0})
    with pytest.raises(SplitError, match="asks nan bit/s"):
        Reservations(LINKS).admit("x", {"a": math.nan})
    with pytest.raises(SplitError, match="expected a rate above 0"):
        Reservations({"a": 0.0})
    with pytest.raises(SplitError, match="headroom"):
        Reservations(LINKS, headroom=1.0)


def test_no_rate_brings_anything_within_less_than_the_delay() -> None:
    assert math.isinf(needed_bps(1.0, within_s=0.01, delay_s=0.01))
    assert needed_bps(0.0, within_s=0.01) == 0.0


def test_under_jitter_a_thousand_transfers_are_late_once_in_a_hundred_at_most() -> None:
    drawn = np.random.default_rng(0)
    within_s, delay_s = 0.06, 0.005
    bits = drawn.uniform(1e5, 2e6, 1000)
    measured = drawn.uniform(0.7, 1.0, 200)
    got = drawn.uniform(0.7, 1.0, 1000)

    def late(jitter: float) -> float:
        rates = np.array([needed_bps(one, within_s, delay_s, jitter) for one in bits])
        return violation_rate(delay_s + bits / (rates * got), within_s)

    assert late(0.0) > 0.9
    assert late(0.3) == 0.0
    assert late(jitter_bound(measured)) <= 0.03
    assert late(jitter_bound(measured, quantile=1.0)) <= 0.01


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.5), min_size=1), st.floats(0.0, 1.0))
def test_so_many_transfers_keep_the_jitter_as_were_asked_for(kept: list[float], quantile: float) -> None:
    bound = jitter_bound(kept, quantile)
    assert np.mean([min(1.0, one) >= 1 - bound - 1e-9 or bound == 0.99 for one in kept]) >= quantile - 1e-9
    assert 0.0 <= bound < 1.0


def test_without_measurements_there_is_no_jitter_and_no_violation() -> None:
    assert jitter_bound([]) == 0.0
    assert violation_rate([], 1.0) == 0.0
