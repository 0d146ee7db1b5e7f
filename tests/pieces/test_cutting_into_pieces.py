"""Cuts and balance: every piece has something to train, each machine the memory, and no cut is better."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from piece_cases import MLP, cut_of, works_of
from plan_toy import FOUR, profile_of, profiles, resnet_profile
from split_cases import make_order, start_of

from flower_edge.errors import ModelMismatch, SplitError
from flower_edge.pieces import balanced, check_cuts, head_positions, piece_orders, pieces_of, recombined
from flower_edge.splitting.chain import Goal, Link, Machine, chain_by_trying
from flower_edge.splitting.costs import Job
from flower_edge.splitting.profile import ModelProfile

JOB = Job(batch_size=10)


@st.composite
def crews(draw: st.DrawFn) -> tuple[list[Machine], list[Link]]:
    count = draw(st.integers(2, 4))
    memory = st.sampled_from([None, None, 200_000, 400_000])
    machines = [Machine(10.0 ** draw(st.floats(7, 11)), draw(memory)) for _ in range(count)]
    links = [Link(10.0 ** draw(st.floats(5, 9)), 10.0 ** draw(st.floats(5, 9)), 0.01) for _ in range(count - 1)]
    return machines, links


@settings(max_examples=80, deadline=None)
@given(profiles(), crews(), st.sampled_from(["latency", "bottleneck"]))
def test_no_cut_is_better(profile: ModelProfile, crew: tuple[list[Machine], list[Link]], goal: Goal) -> None:
    machines, links = crew
    every = [
        plan
        for plan in chain_by_trying(profile, machines, links, job=JOB)
        if all(a < b for a, b in zip((0, *plan.cuts), (*plan.cuts, profile.last), strict=True))
    ]
    if not every:
        with pytest.raises(SplitError, match=r"memory|pieces at most"):
            balanced(profile, machines, job=JOB, links=links, goal=goal)
        return
    cuts = balanced(profile, machines, job=JOB, links=links, goal=goal)
    cost = {plan.cuts: plan.latency_s if goal == "latency" else plan.bottleneck_s for plan in every}
    assert cost[cuts] == pytest.approx(min(cost.values()))


def test_work_is_shared_in_proportion_to_speed() -> None:
    twelve = profile_of([1e6] * 12, [100] * 13)
    assert balanced(twelve, [Machine(1e9)] * 3) == (4, 8)
    assert balanced(twelve, [Machine(1e9), Machine(2e9), Machine(3e9)]) == (2, 6)
    assert balanced(twelve, [Machine(3e9), Machine(1e9), Machine(2e9)]) == (6, 8)


def test_least_latency_leaves_slow_machines_one_unit() -> None:
    twelve = profile_of([1e6] * 12, [100] * 13)
    assert balanced(twelve, [Machine(1e9), Machine(9e9), Machine(1e9)], goal="latency") == (1, 11)


def test_a_small_machine_gets_what_it_can_hold() -> None:
    free = [Machine(1e9), Machine(1e9)]
    assert balanced(FOUR, free, job=JOB) == (2,)
    assert balanced(FOUR, [Machine(1e9), Machine(1e9, memory_bytes=100_000)], job=JOB) == (3,)
    with pytest.raises(SplitError, match="memory for any, 1000 bytes cannot hold a model that takes about"):
        balanced(FOUR, [Machine(1e9), Machine(1e9, memory_bytes=1000)], job=JOB)


def test_one_machine_has_the_whole_model_if_it_has_the_memory() -> None:
    assert balanced(FOUR, [Machine(1e9)], job=JOB) == ()
    with pytest.raises(SplitError, match="1 machines with memory for 1000 bytes"):
        balanced(FOUR, [Machine(1e9, memory_bytes=1000)], job=JOB)
    with pytest.raises(SplitError, match="no machine"):
        balanced(FOUR, [])


def test_every_piece_has_something_to_train() -> None:
    profile = cut_of("lenet5").profile()
    trained = sum(unit.parameters > 0 for unit in profile.units)
    for machines in range(1, trained + 1):
        spans = pieces_of(profile.last, balanced(profile, [Machine(1e9)] * machines))
        assert len(spans) == machines
        assert all(sum(unit.parameters for unit in profile.units[start:stop]) for start, stop in spans)
    with pytest.raises(SplitError, match=f"{trained + 1} machines .* it makes {trained} pieces at most"):
        balanced(profile, [Machine(1e9)] * (trained + 1))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(8, 11), min_size=1, max_size=4))
def test_decoupled_cuts_are_at_heads_and_none_is_better(speeds: list[float]) -> None:
    profile, machines = resnet_profile(), [Machine(10.0**speed) for speed in speeds]
    cuts, places = balanced(profile, machines, mode="decoupled", job=JOB), head_positions(profile)
    assert check_cuts(profile, cuts, pieces=len(machines), mode="decoupled") == cuts
    if len(machines) > 1:
        every = chain_by_trying(profile, machines, [Link()] * (len(machines) - 1), job=JOB)
        allowed = {plan.cuts: plan.bottleneck_s for plan in every if set(plan.cuts) <= set(places)}
        spans = {cuts: pieces_of(profile.last, cuts) for cuts in allowed if len(set(cuts)) == len(cuts)}
        trains = [
            cuts
            for cuts, pieces in spans.items()
            if all(sum(unit.parameters for unit in profile.units[a:b]) for a, b in pieces)
        ]
        assert allowed[cuts] == pytest.approx(min(allowed[one] for one in trains))


def test_a_link_in_decoupled_mode_carries_one_way_only() -> None:
    machines, slow_back = [Machine(1e9), Machine(1e9)], [Link(up_bps=1e9, down_bps=1.0, delay_s=9.0)]
    assert balanced(FOUR, machines, links=slow_back, mode="decoupled", job=JOB) == (2,)
    # Exact: whatever is cut, the gradient's way is the bottleneck: where the least crosses is best.
    assert balanced(FOUR, machines, links=slow_back, job=JOB) == (3,)


def test_cuts_by_hand_are_checked() -> None:
    profile = cut_of("resnet").profile()
    assert check_cuts(profile, [2, 9], pieces=3) == (2, 9)
    crowded = next(cut.position for cut in profile.cuts if len(cut.shapes) > 1)
    assert check_cuts(profile, [crowded]) == (crowded,)
    for cuts, options, message in (
        ([9, 2], {}, r"cuts \[9, 2\] of a model of \d+ units; give rising whole numbers"),
        ([0, 2], {}, "each piece needs a unit of its own"),
        ([profile.last], {}, f"from 1 to {profile.last - 1}"),
        ([1.5], {}, "whole numbers"),
        ([True], {}, "whole numbers"),
        ([2], {"pieces": 3}, r"cuts \[2\] make 2 pieces, and 3 are wanted; give 2 cuts"),
        ([crowded], {"mode": "decoupled"}, f"cut {crowded} .*tensors .* are live there; cut at"),
    ):
        with pytest.raises(SplitError, match=message):
            check_cuts(profile, cuts, **options)  # type: ignore[arg-type]


def test_orders_follow_each_other() -> None:
    orders = piece_orders(make_order(1), 8, (2, 6), mode="decoupled")
    assert [(one.start, one.stop, one.work.cut, one.place) for one in orders] == [
        (0, 2, 2, 0),
        (2, 6, 6, 1),
        (6, 8, 8, 2),
    ]
    assert [(one.first, one.last, one.mode) for one in orders] == [
        (True, False, "decoupled"),
        (False, False, "decoupled"),
        (False, True, "decoupled"),
    ]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_untouched_pieces_make_the_model_again_bit_for_bit(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(MODEL.units) - 1), max_size=5)))
    parts = [work.result().arrays for work in works_of(MLP, MODEL, START, cuts)]
    shuffled = data.draw(st.permutations(parts))
    whole = recombined(shuffled, MODEL.model.state_dict())
    assert list(whole) == list(START.arrays)
    for name, array in START.arrays.items():
        assert whole[name].dtype == array.dtype
        assert whole[name].tobytes() == array.tobytes()


MODEL = cut_of("mlp")
START = start_of(MLP)


def test_parts_that_do_not_make_the_model_are_named() -> None:
    one, two = {"a": np.zeros(1)}, {"b": np.zeros(1)}
    for parts, message in (
        ([one], "no piece has b"),
        ([one, two, one], "more than one piece has a"),
        ([one, two, {"c": np.zeros(1)}], "the model has no c"),
    ):
        with pytest.raises(ModelMismatch, match=message):
            recombined(parts, ["a", "b"])


def test_a_model_without_places_for_heads_says_to_be_exact() -> None:
    odd = profile_of([1e6] * 3, [100, 50, 50, 10])
    crowded = [
        cut if cut.position in (0, 3) else cut.__class__(cut.position, ((5,), (5,)), (True, True)) for cut in odd.cuts
    ]
    profile = ModelProfile(odd.units, tuple(crowded))
    assert head_positions(profile) == ()
    with pytest.raises(SplitError, match=r"no cut of this model .* use mode='exact'"):
        check_cuts(profile, [1], mode="decoupled")
    with pytest.raises(SplitError, match="0 places to cut in mode 'decoupled'; it makes 1 pieces at most"):
        balanced(profile, [Machine(1e9)] * 2, mode="decoupled")
    assert balanced(profile, [Machine(math.pi)], mode="decoupled") == ()
