"""Estimates of links follow a link that changes, also where frames are short or nothing was sent for a while."""

from __future__ import annotations

import numpy as np
import pytest

from flower_edge.fringe.links import Link, LinkEstimate
from flower_edge.runtime.fringe.onward import Onward, _Timed
from flower_edge.runtime.fringe.probing import Probing
from flower_edge.runtime.fringe.settings import ServingLimits


def transfers_until(seen: LinkEstimate, link: Link, **options: float) -> int:
    """Until the estimate is within 20 % of the link."""
    for number in range(1, 100):
        seen = seen.sent(10_000, link.seconds(10_000), **options)  # type: ignore[arg-type]
        if 1 / 1.2 <= seen.link.goodput_bps / link.goodput_bps <= 1.2:
            return number
    raise AssertionError(seen)


def steady(link: Link) -> LinkEstimate:
    seen = LinkEstimate()
    for _ in range(30):
        seen = seen.sent(10_000, link.seconds(10_000))
    return seen


def test_how_many_transfers_it_takes_is_what_the_page_says() -> None:
    assert transfers_until(steady(Link(10e6)), Link(1e6)) == 8
    assert transfers_until(steady(Link(1e6)), Link(10e6)) == 18
    assert transfers_until(steady(Link(10e6)), Link(1e6), silent_s=10.0) == 1
    assert transfers_until(steady(Link(1e6)), Link(10e6), silent_s=10.0) <= 2


def test_short_frames_with_what_threads_add_do_not_move_an_estimate_that_a_probe_made() -> None:
    link, random, probing = Link(1e6, 0.010), np.random.default_rng(0), Probing(10.0)
    seen, now_s, found, probes = LinkEstimate(), 1.0, [], 0
    seen = seen.probed(0.020).sent(64, link.seconds(64))
    probing.arrived(64, now_s)
    for _ in range(600):
        now_s += 0.1
        size = probing.due_bytes(now_s, seen) or 64
        seconds = max(0.0, link.seconds(size) + random.normal(0.001, 0.002))
        tells = size > 64 or probing.tells(size, seconds, seen, now_s)
        before = seen
        seen = seen.sent(size, seconds, tells=tells, silent_s=probing.arrived(size, now_s), probe=size > 64)
        if size > 64:
            probes += 1
            probing.moved(before, seen, now_s)
        found.append(seen.link.goodput_bps)
    assert 5 <= probes <= 15
    assert 0.7e6 < min(found[100:]) <= max(found[100:]) < 1.4e6
    assert seen.transfers == 601 - probes


def test_a_short_frame_that_is_much_too_late_brings_the_next_probe_forward() -> None:
    probing, seen = Probing(10.0), steady(Link(1e6))
    probing.arrived(64, 0.5)
    assert probing.due_bytes(1.0, seen)
    probing.arrived(64, 1.2)
    assert not probing.tells(64, 0.005, seen, 1.2)
    assert not probing.due_bytes(3.0, seen)
    assert not probing.tells(64, 0.050, seen, 3.0)  # it may as well have waited for a thread
    assert probing.due_bytes(3.1, seen)
    probing.arrived(64, 3.2)
    assert not probing.tells(64, 0.050, seen, 3.2)
    assert not probing.due_bytes(3.3, seen)  # not more than one a second
    assert probing.due_bytes(4.2, seen)
    assert probing.tells(2000, 0.001, seen, 5.0)


def test_short_frames_that_are_all_late_do_not_drag_an_estimate_down() -> None:
    probing, seen = Probing(10.0), steady(Link(1e6))
    probing.due_bytes(0.5, seen)
    for number in range(1000):
        now_s = 1.0 + 0.1 * number
        tells = probing.tells(64, 0.060, seen, now_s)
        seen = seen.sent(64, 0.060, tells=tells, silent_s=probing.arrived(64, now_s))
    assert seen.link.goodput_bps == pytest.approx(1e6)


def test_under_steady_traffic_a_probe_waits_for_a_second_and_then_goes_behind_the_others() -> None:
    probing, seen = Probing(10.0), steady(Link(1e6))
    probing.arrived(64, 0.5)
    probing.due_bytes(0.5, seen)
    probing.arrived(64, 10.0)
    assert not probing.due_bytes(10.6, seen, alone=False)
    assert probing.due_bytes(11.6, seen, alone=False)


def test_nothing_is_probed_where_nothing_was_sent_or_frames_say_enough_or_it_is_off() -> None:
    seen = steady(Link(1e6))
    quiet, telling, off = Probing(10.0), Probing(10.0), Probing(0.0)
    assert quiet.due_bytes(100.0, seen) == 0
    for second in range(100, 200):
        telling.arrived(10_000, float(second))
        off.arrived(10, float(second))
        assert telling.due_bytes(second + 0.5, seen) == off.due_bytes(second + 0.5, seen) == 0
    quiet.arrived(10, 300.0)
    assert quiet.due_bytes(300.1, LinkEstimate()) == 0  # nothing is known yet
    assert quiet.due_bytes(300.1, seen) == 1024
    assert quiet.due_bytes(330.0, seen) == 0  # nothing was sent since


@pytest.mark.parametrize("probe", [True, False])
def test_a_way_counts_a_probe_neither_as_a_frame_nor_as_a_transfer(probe: bool) -> None:
    def dial() -> None:
        raise AssertionError

    way = Onward("gateway", "127.0.0.1:1", dial, ServingLimits())  # type: ignore[arg-type]
    try:
        way._estimate = LinkEstimate().sent(1000, 0.008)
        way._unmeasured[7] = _Timed(1000, 100.0, probe)
        way._arrived(7, 100.008)
        assert way.measures()["estimate"]["transfers"] == 1 + (not probe)
        assert way.measures()["frames"] == 0
        assert way.measures()["goodput_age_s"] is not None
    finally:
        way.close()
