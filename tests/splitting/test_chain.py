"""Cuts over a chain of machines: as good as the best of all there are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_toy import FOUR, INT8, profiles

from flower_edge.errors import SplitError
from flower_edge.splitting.capacity import Capacity, Cloud
from flower_edge.splitting.chain import Link, Machine, chain_by_trying, plan_chain
from flower_edge.splitting.costs import Job, memory_bytes
from flower_edge.splitting.plan import DeviceView
from flower_edge.splitting.planner import FixedCut
from flower_edge.splitting.profile import ModelProfile

JOB = Job(batch_size=10)


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Machine], list[Link]]:
    count = draw(st.integers(2, 4))
    memory = st.sampled_from([None, None, 200_000, 400_000])
    machines = [Machine(10.0 ** draw(st.floats(7, 11)), draw(memory)) for _ in range(count - 1)]
    links = [
        Link(10.0 ** draw(st.floats(5, 9)), 10.0 ** draw(st.floats(5, 9)), draw(st.sampled_from([0.0, 0.01])))
        for _ in range(count - 1)
    ]
    return [*machines, Machine(1e10)], links


@settings(max_examples=100, deadline=None)
@given(profiles(), chains())
def test_the_plan_is_the_best_of_all(profile: ModelProfile, chain: tuple[list[Machine], list[Link]]) -> None:
    machines, links = chain
    every = list(chain_by_trying(profile, machines, links, job=JOB))
    if not every:
        with pytest.raises(SplitError, match="too little memory"):
            plan_chain(profile, machines, links, job=JOB)
        return
    quick = plan_chain(profile, machines, links, job=JOB)
    assert quick.latency_s == pytest.approx(min(plan.latency_s for plan in every))
    busy = plan_chain(profile, machines, links, job=JOB, goal="bottleneck")
    assert busy.bottleneck_s == pytest.approx(min(plan.bottleneck_s for plan in every))


@settings(max_examples=50, deadline=None)
@given(profiles(), st.floats(7, 10), st.floats(6, 9), st.floats(6, 9), st.sampled_from([0.0, 0.01]))
def test_a_chain_of_two_is_a_device_and_a_cloud(
    profile: ModelProfile, flops: float, up: float, down: float, delay_s: float
) -> None:
    link = Link(10.0**up, 10.0**down, delay_s)
    plan = plan_chain(profile, [Machine(10.0**flops), Machine(1e9)], [link], job=JOB, codecs=INT8)
    view = DeviceView(Capacity(10.0**flops, link.up_bps, link.down_bps, delay_s))
    steps_s = [
        FixedCut(cut, INT8, Cloud(1e9), JOB).plan(profile, {0: view}, 1).step_s for cut in range(1, profile.last + 1)
    ]
    assert plan.latency_s == pytest.approx(min(steps_s))


def test_a_machine_between_may_pass_on_what_it_gets() -> None:
    machines, links = [Machine(1e6), Machine(1e3), Machine(1e12)], [Link(), Link()]
    assert plan_chain(FOUR, machines, links, job=JOB).cuts == (1, 1)


def test_of_equally_good_plans_more_stays_near_the_samples() -> None:
    machines, links = [Machine(1e9), Machine(1e9), Machine(1e9)], [Link(), Link()]
    assert plan_chain(FOUR, machines, links, job=JOB).cuts == (4, 4)
    assert plan_chain(FOUR, machines, links, job=JOB, goal="bottleneck").bottleneck_s == pytest.approx(0.02)


def test_chains_that_cannot_be_are_refused() -> None:
    with pytest.raises(SplitError, match="2 machines with 2 links"):
        plan_chain(FOUR, [Machine(1.0), Machine(1.0)], [Link(), Link()])
    with pytest.raises(SplitError, match="least_cut = 9"):
        plan_chain(FOUR, [Machine(1.0), Machine(1.0)], [Link()], least_cut=9)
    with pytest.raises(SplitError, match="labels at the device"):
        plan_chain(FOUR, [Machine(1.0), Machine(1.0)], [Link()], job=Job(labels="device"))
    with pytest.raises(SplitError, match=r"flops_per_s of machine 'hub' = 0\.0"):
        Machine(0.0, name="hub")
    with pytest.raises(SplitError, match=r"a link's down_bps = 0\.0"):
        Link(down_bps=0.0)
    with pytest.raises(SplitError, match="a link's delay_s = nan"):
        Link(delay_s=math.nan)


def test_a_machine_needs_memory_for_what_enters_it_as_well_as_a_device_does() -> None:
    enough = memory_bytes(FOUR, 2, JOB)
    for room, cut in ((enough, 2), (enough - 1, 1)):
        plan = plan_chain(FOUR, [Machine(1e12, room), Machine(1e3)], [Link()], job=JOB)
        assert plan.cuts == (cut,)
