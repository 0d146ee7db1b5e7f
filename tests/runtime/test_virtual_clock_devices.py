"""Devices, links, their draws and the shared uplink: arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.runtime.clock.devices import Device, Link, Work, draw_devices, draw_links
from flower_edge.runtime.clock.trips import SharedUplink

positive = st.floats(1e-3, 1e9)


@given(positive, positive, st.integers(0, 10**9))
def test_doubling_the_bits_doubles_the_transfer_time(up_bps: float, down_bps: float, payload_bits: int) -> None:
    link = Link(up_bps, down_bps)
    assert link.up_s(2 * payload_bits) == 2 * link.up_s(payload_bits)
    assert link.down_s(2 * payload_bits) == 2 * link.down_s(payload_bits)


def test_latency_is_paid_once_per_message_and_jitter_only_stretches_the_rest() -> None:
    link = Link(up_bps=1000.0, down_bps=2000.0, latency_s=0.5)
    assert link.up_s(3000, factor=2.0) == 6.5
    assert link.down_s(3000, factor=2.0) == 3.5
    assert Device(flops_per_s=10.0, fixed_s=1.0).compute_s(Work(flops=20.0), factor=3.0) == 7.0


def test_measured_steps_go_before_flops_and_flops_stand_in_for_them() -> None:
    device = Device(flops_per_s=10.0, step_s=0.25)
    assert device.compute_s(Work(steps=4, flops=1000.0)) == 1.0
    assert device.compute_s(Work(flops=1000.0)) == 100.0
    assert Device(flops_per_s=10.0).compute_s(Work(steps=4)) == 0.0
    assert Device().compute_s(Work(steps=4, flops=1e30)) == 0.0


def test_drawn_speeds_are_log_normal_with_the_given_median_and_spread() -> None:
    devices = draw_devices(4000, seed=1, sigma=0.5, median_flops_per_s=3e9, median_step_s=0.2)
    logs = np.log([device.flops_per_s for device in devices])
    assert np.exp(np.median(logs)) == pytest.approx(3e9, rel=0.05)
    assert logs.std() == pytest.approx(0.5, rel=0.05)
    assert all(
        device.step_s is not None and device.step_s * device.flops_per_s == pytest.approx(0.2 * 3e9)
        for device in devices
    )


def test_drawn_rates_are_log_uniform_between_their_bounds_and_independent_up_and_down() -> None:
    links = draw_links(4000, seed=1)
    rates = np.array([[link.up_bps, link.down_bps] for link in links])
    assert rates.min() >= 1e6
    assert rates.max() <= 20e6
    assert np.median(rates) == pytest.approx(math.sqrt(1e6 * 20e6), rel=0.05)
    assert abs(np.corrcoef(np.log(rates).T)[0, 1]) < 0.05


@pytest.mark.parametrize("draw", [draw_devices, draw_links])
@given(seed=st.integers(0, 2**40), n=st.integers(0, 20))
def test_a_population_repeats_by_its_seed_and_grows_at_its_end(
    draw: Callable[[int, int], list[Any]], seed: int, n: int
) -> None:
    assert draw(n, seed) == draw(n + 5, seed)[:n]
    assert draw(n + 1, seed) != draw(n + 1, seed + 1)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Device(flops_per_s=0.0), "Device.flops_per_s = 0.0"),
        (lambda: Device(step_s=-1.0), "Device.step_s = -1.0"),
        (lambda: Device(jitter=math.inf), "Device.jitter = inf"),
        (lambda: Link(up_bps=0.0), "Link.up_bps = 0.0"),
        (lambda: Link(latency_s=math.nan), "Link.latency_s = nan"),
        (lambda: Work(steps=-1), "Work.steps = -1"),
        (lambda: Work(flops=math.nan), "Work.flops = nan"),
        (lambda: draw_links(3, 0, low_bps=5.0, high_bps=1.0), "high_bps = 1.0"),
        (lambda: draw_devices(3, 0, sigma=-1.0), "sigma = -1.0"),
        (lambda: SharedUplink(0.0), "shared uplink of 0.0 bit/s"),
    ],
)
def test_impossible_devices_and_links_are_refused_by_name(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10)), max_size=12))
def test_a_shared_uplink_carries_one_reply_at_a_time_and_none_before_it_is_ready(wishes: list[tuple[int, int]]) -> None:
    uplink = SharedUplink(1.0)
    taken = []
    for ready_s, needs_s in wishes:
        begin_s = uplink.book(float(ready_s), float(needs_s))
        assert begin_s >= ready_s
        taken += [(begin_s, begin_s + needs_s)] if needs_s else []
    taken.sort()
    assert all(end_s <= next_s for (_, end_s), (next_s, _) in pairwise(taken))


def test_what_is_over_is_forgotten_and_what_is_not_still_blocks() -> None:
    uplink = SharedUplink(1.0)
    uplink.book(0.0, 2.0)
    uplink.book(5.0, 2.0)
    uplink.forget_before(3.0)
    assert uplink.booked_s == [(5.0, 7.0)]
    assert uplink.book(4.0, 3.0) == 7.0
