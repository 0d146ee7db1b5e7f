"""What links give and inferences take, what can be reached at most, and the report."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.links import Link, LinkEstimate, attainable, inference, refuse_impossible
from flower_edge.fringe.report import Measured, savings, savings_table
from flower_edge.store import tree_from_bytes, tree_to_bytes

#: Links and cuts that the fringe benchmark is about.
LINKS = (Link(10e6, 0.010), Link(20e6, 0.005))
WHOLE = (65_560, 32_792)
NAMES = ("camera -> gateway", "gateway -> cloud")

BITS_PER_S = st.floats(1e3, 1e9)
SECONDS = st.floats(0.0, 1.0)


def test_the_links_of_the_issue_take_eighty_milliseconds() -> None:
    found = inference(WHOLE, LINKS)
    assert [round(1e3 * s, 2) for s in found.link_s] == [62.45, 18.12]
    assert round(1e3 * found.latency_s, 2) == 80.56
    assert inference(WHOLE, LINKS, (0.001, 0.002, 0.003)).latency_s == pytest.approx(found.latency_s + 0.006)


def test_delays_bound_what_compression_can_reach() -> None:
    most = attainable(WHOLE, LINKS)
    assert most.latency_s == pytest.approx(0.015)
    assert round(most.fraction, 3) == 0.814


@settings(max_examples=50)
@given(bps=BITS_PER_S, delay_s=SECONDS, size=st.integers(1, 10**6), share=st.floats(0.0, 1.0), compute_s=SECONDS)
def test_no_compression_beats_what_is_attainable(
    bps: float, delay_s: float, size: int, share: float, compute_s: float
) -> None:
    links = [Link(bps, delay_s)]
    most = attainable([size], links, [compute_s, 0.0])
    now, then = (inference([s], links, [compute_s, 0.0]).latency_s for s in (size, share * size))
    assert now - then <= most.reduction_s * (1 + 1e-9) + 1e-12
    assert 0 <= most.fraction <= 1


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"latency_s": 0.015}, "a latency of 15 ms"),
        ({"reduction_s": 0.0656}, "65.6 ms less"),
        ({"fraction": 0.82}, "82 % less"),
    ],
)
def test_a_goal_behind_the_delays_is_refused_with_the_most_there_is(goal: dict[str, float], words: str) -> None:
    with pytest.raises(
        FringeError, match=rf"^{words} cannot be reached .* take 15\.00 ms.* less than 65\.56 ms \(81\.4 %\)"
    ):
        refuse_impossible(attainable(WHOLE, LINKS), **goal)


@pytest.mark.parametrize("goal", [{}, {"latency_s": 0.0155}, {"reduction_s": 0.06}, {"fraction": 0.81}])
def test_a_goal_within_reach_is_accepted(goal: dict[str, float]) -> None:
    refuse_impossible(attainable(WHOLE, LINKS), **goal)


@pytest.mark.parametrize("goal", [math.nan, -1.0])
def test_a_goal_that_is_no_number_is_refused(goal: float) -> None:
    with pytest.raises(FringeError, match="0 or more"):
        refuse_impossible(attainable(WHOLE, LINKS), fraction=goal)


@settings(max_examples=50)
@given(
    bps=BITS_PER_S,
    delay_s=SECONDS,
    sizes=st.lists(st.integers(1_000, 10**6), min_size=1, max_size=20),
    weight=st.floats(0.01, 1.0),
)
def test_an_estimate_of_a_steady_link_is_that_link(bps: float, delay_s: float, sizes: list[int], weight: float) -> None:
    link, seen = Link(bps, delay_s), LinkEstimate(weight)
    for size in sizes:
        seen = seen.probed(2 * delay_s).sent(size, link.seconds(size))
    assert seen.link.delay_s == pytest.approx(delay_s, rel=1e-6, abs=1e-12)
    assert seen.link.goodput_bps == pytest.approx(bps, rel=1e-3)


def test_an_estimate_follows_a_link_that_degrades_and_recovers() -> None:
    seen, wide, narrow = LinkEstimate(0.3), Link(10e6), Link(1e6)
    for _ in range(20):
        seen = seen.sent(10_000, wide.seconds(10_000))
    assert seen.link.goodput_bps == pytest.approx(10e6)
    for _ in range(20):
        seen = seen.sent(10_000, narrow.seconds(10_000))
    assert seen.link.goodput_bps == pytest.approx(1e6, rel=0.01)
    for _ in range(40):
        seen = seen.sent(10_000, wide.seconds(10_000))
    assert seen.link.goodput_bps == pytest.approx(10e6, rel=0.01)


def test_a_short_frame_says_little_of_goodput() -> None:
    seen = LinkEstimate(0.2).sent(100_000, 0.08)
    slow = seen.sent(100, 0.001)  # at a tenth of the rate, and nearly nothing
    assert 0.95 < slow.link.goodput_bps / seen.link.goodput_bps < 1.0


def test_an_estimate_says_what_it_lacks_and_goes_to_plain_values_and_back() -> None:
    with pytest.raises(FringeError, match="no transfer was measured yet"):
        _ = LinkEstimate().probed(0.02).link
    seen = LinkEstimate(0.5).probed(0.02).sent(1000, 0.02)
    tree = tree_from_bytes(tree_to_bytes(seen.state()))
    assert isinstance(tree, dict)
    assert LinkEstimate.from_state(tree) == seen
    with pytest.raises(FringeError, match="state of a link"):
        LinkEstimate.from_state({"rate": 1})


def test_measurements_and_links_that_are_none_are_refused() -> None:
    for attempt, said in (
        (lambda: LinkEstimate(0.0), "weight = 0.0"),
        (lambda: LinkEstimate().sent(0, 1.0), "1 byte or more"),
        (lambda: LinkEstimate().sent(10, math.inf), "0 or more"),
        (lambda: LinkEstimate().probed(-0.1), "round trip of -0.1"),
        (lambda: Link(0.0), "above 0"),
        (lambda: Link(math.nan), "above 0"),
        (lambda: Link(1.0, -1.0), "0 or more"),
        (lambda: inference([1, 2], [Link(1.0)]), "as many sizes as links"),
        (lambda: inference([1], [Link(1.0)], [0.1]), "one machine more"),
    ):
        with pytest.raises(FringeError, match=said):
            attempt()


def test_the_report_has_both_equations_per_connection_and_over_all() -> None:
    found = savings(NAMES, WHOLE, (552, 312), LINKS, rate_per_s=12.0)
    first, second = found.connections
    total = found.total
    assert total.bytes_saved == first.bytes_saved + second.bytes_saved == 98_352 - 864
    assert round(100 * total.bandwidth_reduction, 2) == 99.12
    assert round(100 * total.latency_reduction, 1) == 80.7
    assert total.seconds_saved == pytest.approx(
        inference(WHOLE, LINKS).latency_s - inference((552, 312), LINKS).latency_s
    )
    assert found.bandwidth_saved_bps == 8 * 97_488 * 12
    assert math.isnan(total.measured_latency_reduction)
    rows = found.rows()
    assert [row["name"] for row in rows] == [*NAMES, "all"]
    assert tree_from_bytes(tree_to_bytes({"rows": rows})) is not None


def test_what_was_measured_stands_beside_and_is_not_summed_where_one_is_missing() -> None:
    seen = Measured(65_560, 552, 0.0651, 0.0112)
    both = savings(NAMES, WHOLE, (552, 312), LINKS, measured=[seen, Measured(32_792, 312, 0.019, 0.006)])
    assert both.total.measured_latency_reduction == pytest.approx((0.0841 - 0.0172) / 0.0841)
    text = savings_table(both)
    assert "65.6 kB -> 552 B (65.6 kB -> 552 B)" in text
    assert "62.45 -> 10.44 ms (65.10 -> 11.20 ms)" in text
    assert text.splitlines()[-1].startswith("all")
    one = savings(NAMES, WHOLE, (552, 312), LINKS, measured=[seen, Measured()])
    assert math.isnan(one.total.measured_bandwidth_reduction)
    assert "nan" not in savings_table(one)


def test_a_link_that_got_worse_shows_in_latency_and_not_in_bytes() -> None:
    worse = savings(["a -> b"], [1000], [1000], [Link(1e6)], links_before=[Link(2e6)])
    assert worse.total.bandwidth_reduction == 0
    assert worse.total.latency_reduction == pytest.approx(-1.0)


def test_lists_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(FringeError, match="one of each per connection"):
        savings(NAMES, WHOLE, (1,), LINKS)
    with pytest.raises(FringeError, match="expected above 0"):
        savings(NAMES, WHOLE, (1, math.nan), LINKS)
