"""Planners: what a step costs, which cuts are chosen, and when splitting is said not to pay."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_toy import FOUR, INT4, INT8, clouds, device, fleets, profile_of, profiles, resnet_profile, speeds

from flower_edge.errors import SplitError
from flower_edge.splitting.budgets import Budgets, History, QuantileBudgets
from flower_edge.splitting.capacity import Capacity, Cloud
from flower_edge.splitting.costs import PLAIN, Job, costs_of, memory_bytes
from flower_edge.splitting.dynamic import Dynamic
from flower_edge.splitting.exhaustive import least_by_trying
from flower_edge.splitting.plan import DeviceView, Plan
from flower_edge.splitting.planner import FixedCut, Planner, Scheduled, WholeModel, with_job
from flower_edge.splitting.profile import ModelProfile

JOB = Job(batch_size=10, steps=5)


# --- the simple planners ---


def test_a_fixed_cut_may_count_from_the_end() -> None:
    assert FixedCut(-1).plan(FOUR, {0: device()}, 1).assignments[0].cut == 3


def test_a_cut_that_the_model_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(SplitError, match=r"cut 9 for device 2; this model has cuts 0 \.\. 3, and 4 for the whole"):
        FixedCut(9).plan(FOUR, {2: device()}, 1)
    with pytest.raises(SplitError, match="a row per round"):
        Scheduled(())
    with pytest.raises(SplitError, match="0 devices"):
        WholeModel().plan(FOUR, {}, 1)


def test_a_schedule_says_the_cut_of_each_round_and_device() -> None:
    planner = Scheduled(((1, 2), (3, 4)))
    cuts = [[planner.plan(FOUR, {0: device(), 1: device()}, at).assignments[n].cut for n in (0, 1)] for at in (1, 2, 3)]
    assert cuts == [[1, 2], [3, 4], [1, 2]]


def test_the_whole_model_sends_nothing_and_is_not_called_splitting() -> None:
    plan = WholeModel(job=JOB).plan(FOUR, {0: device(), 1: device(2e9)}, 1)
    assert {one.cut for one in plan.assignments.values()} == {4}
    assert not plan.worth
    assert all(one.transfer_s == one.cloud_s == one.up_bits == 0.0 for one in plan.assignments.values())
    assert plan.spread_s == pytest.approx(0.02)


def test_a_planner_without_a_job_takes_the_one_it_is_given() -> None:
    assert with_job(Dynamic(), JOB).job == JOB
    assert with_job(Dynamic(job=Job()), JOB).job == Job()


# --- the search ---


@settings(max_examples=60, deadline=None)
@given(profiles(), fleets(), clouds(), st.booleans())
def test_the_slowest_step_is_the_least_there_is(
    profile: ModelProfile, devices: dict[int, DeviceView], cloud: Cloud, whole: bool
) -> None:
    planner = Dynamic(cloud, JOB, codecs=(INT4, INT8), whole=whole, fallback=False)
    plan = planner.plan(profile, devices, 1)
    costs = costs_of(profile, devices, cloud, JOB, (INT4, INT8), whole=whole)
    _, least_s = least_by_trying(costs)
    assert plan.step_s == pytest.approx(least_s, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(profiles(), fleets(), clouds())
def test_no_plan_reserves_more_than_a_link_has(
    profile: ModelProfile, devices: dict[int, DeviceView], cloud: Cloud
) -> None:
    planners: tuple[Planner, ...] = (
        Dynamic(cloud, JOB, fallback=False),
        Dynamic(cloud, JOB, Budgets(0.01, 0.02), (INT4, INT8), whole=False, fallback=False),
        FixedCut(1, INT8, cloud, JOB),
    )
    for planner in planners:
        plan = planner.plan(profile, devices, 1)
        used = dict.fromkeys(cloud.all_links(), 0.0)
        for number, one in plan.assignments.items():
            view = devices[number]
            assert (one.up_bps or 0.0) <= view.capacity.up_bps * (1 + 1e-9)
            for name in ("cloud-up", *view.up_links):
                used[name] += one.up_bps or 0.0
            for name in ("cloud-down", *view.down_links):
                used[name] += one.down_bps or 0.0
        assert all(used[name] <= rate_bps * (1 + 1e-6) for name, rate_bps in cloud.all_links().items())


@settings(max_examples=60, deadline=None)
@given(profiles(), fleets(), clouds())
def test_predicted_transfers_are_bits_over_reserved_rates_and_delays(
    profile: ModelProfile, devices: dict[int, DeviceView], cloud: Cloud
) -> None:
    plan = Dynamic(cloud, JOB, whole=False, fallback=False).plan(profile, devices, 1)
    for number, one in plan.assignments.items():
        assert one.up_bps
        assert one.down_bps
        delays_s = 2 * devices[number].capacity.delay_s
        assert one.transfer_s == pytest.approx(one.up_bits / one.up_bps + one.down_bits / one.down_bps + delays_s)


#: Tensors that grow: there the cut that asks least of a link is not the one with most layers.
GROWING = profile_of([1e6] * 4, [1000, 1000, 2000, 4000, 10])


@pytest.mark.parametrize("profile", [FOUR, GROWING], ids=["shrinking", "growing"])
def test_every_device_takes_the_most_layers_that_keep_the_common_time(profile: ModelProfile) -> None:
    plan = Dynamic(Cloud(1e12), JOB, whole=False).plan(profile, {0: device(1e8), 1: device(0.9e9)}, 1)
    slow, quick = plan.assignments[0], plan.assignments[1]
    assert (slow.cut, quick.cut) == (1, 3)
    assert quick.step_s <= slow.step_s
    assert "most layers" in quick.reason


def test_more_bits_are_taken_where_they_fit() -> None:
    devices = {0: device(1e8), 1: device(1e8, 1e9)}
    plan = Dynamic(Cloud(1e12), JOB, codecs=(PLAIN, INT4, INT8), whole=False).plan(FOUR, devices, 1)
    assert plan.assignments[0].codecs == "int4"
    assert plan.assignments[0].up == INT4.up
    assert plan.assignments[1].codecs == "none"
    assert plan.assignments[1].up is None


def test_a_device_whose_memory_is_small_takes_a_smaller_cut() -> None:
    room = memory_bytes(FOUR, 2, JOB)
    plan = Dynamic(Cloud(1e7), JOB).plan(FOUR, {0: device(1e9, memory=room), 1: device(1e9)}, 1)
    assert plan.assignments[0].cut <= 2
    assert plan.assignments[1].cut == 4
    assert plan.worth
    assert "does not fit on device 0" in plan.why
    with pytest.raises(SplitError, match=r"device 0 has 0\.001 MB for training"):
        Dynamic(job=JOB).plan(FOUR, {0: device(memory=1000)}, 1)


def test_links_that_fall_short_are_allowed_for() -> None:
    sure = Dynamic(Cloud(1e12), JOB, whole=False, jitter=0.5).plan(FOUR, {0: device(1e8)}, 1).assignments[0]
    bare = Dynamic(Cloud(1e12), JOB, whole=False).plan(FOUR, {0: device(1e8)}, 1).assignments[0]
    assert sure.cut == 1 == bare.cut
    assert sure.transfer_s == pytest.approx(2 * bare.transfer_s)


# --- budgets ---


def test_with_budgets_each_device_takes_the_most_layers_that_keep_them() -> None:
    planner = Dynamic(Cloud(1e12), JOB, Budgets(train_s=0.021, transfer_s=1.0))
    plan = planner.plan(FOUR, {0: device(1e9), 1: device(2e9), 2: device(0.6e9)}, 1)
    assert [one.cut for one in plan.assignments.values()] == [2, 4, 1]
    assert (plan.train_s, plan.transfer_s) == (0.021, 1.0)


def test_a_transfer_budget_rules_out_wide_cuts() -> None:
    wide = 10 * 4000 * 32 * 2 / 1e8
    planner = Dynamic(Cloud(1e12), JOB, Budgets(train_s=0.011, transfer_s=0.9 * wide), codecs=(INT8, PLAIN))
    plan = planner.plan(FOUR, {0: device(1e9)}, 1)
    assert (plan.assignments[0].cut, plan.assignments[0].codecs) == (1, "int8")


def test_what_a_shared_link_refuses_takes_another_cut_or_fewer_bits() -> None:
    cloud = Cloud(1e12, links={"ap": 1.1e8})
    view = replace(device(1e9), up_links=("ap",))
    planner = Dynamic(cloud, JOB, Budgets(train_s=0.011, transfer_s=0.03), codecs=(INT8, PLAIN), fallback=False)
    plan = planner.plan(FOUR, {0: view, 1: view}, 1)
    assert {one.codecs for one in plan.assignments.values()} == {"int8", "none"}
    assert any("refused by shared links" in one.reason for one in plan.assignments.values())
    assert all(one.transfer_s <= 0.03 * (1 + 1e-6) for one in plan.assignments.values())


def test_budgets_that_nothing_keeps_are_said_and_not_hidden() -> None:
    planner = Dynamic(Cloud(1e12), JOB, Budgets(train_s=1e-6, transfer_s=1.0), fallback=False)
    plan = planner.plan(FOUR, {0: device(1e9)}, 1)
    assert plan.assignments[0].cut == 1
    assert "no cut keeps" in plan.assignments[0].reason


@pytest.mark.parametrize("up_bps", [math.inf, 1e3], ids=["free", "full"])
def test_where_the_delay_alone_is_too_long_a_cut_that_is_open_is_taken(up_bps: float) -> None:
    far = device(delay_s=2.0)
    planner = Dynamic(Cloud(1e12, up_bps=up_bps), JOB, Budgets(0.011, 3.0), least_cut=2, whole=False, fallback=False)
    plan = planner.plan(FOUR, {0: far, 1: far}, 1)
    assert all(one.cut >= 2 for one in plan.assignments.values())
    assert all(one.transfer_s > 4.0 for one in plan.assignments.values())
    assert all(one.reason.startswith("no cut keeps 11 ms computing") for one in plan.assignments.values())


def test_what_shared_links_refuse_takes_another_cut_though_that_is_late() -> None:
    tight = Dynamic(Cloud(1e12, up_bps=1e6), JOB, Budgets(0.011, 3.0), fallback=False)
    plan = tight.plan(FOUR, {0: device(), 1: device(), 2: device()}, 1)
    assert [one.cut for one in plan.assignments.values()] == [1, 1, 3]
    assert plan.assignments[2].reason.startswith("no cut keeps 11 ms computing")
    assert plan.assignments[2].reason.endswith("refused by shared links")


def test_where_no_reservation_can_be_kept_links_are_divided_anew() -> None:
    tight = Dynamic(Cloud(1e12, up_bps=1e5), JOB, Budgets(0.011, 3.0), whole=False, fallback=False)
    plan = tight.plan(FOUR, {0: device(), 1: device(), 2: device()}, 1)
    rates = [one.up_bps or 0.0 for one in plan.assignments.values()]
    assert sum(rates) == pytest.approx(1e5)
    assert all(one.transfer_s > 3.0 for one in plan.assignments.values())


def test_of_equally_late_cuts_the_one_with_more_layers_is_taken() -> None:
    profile = profile_of([1e6, 0.0, 1e6], [1000, 4000, 4000, 10])
    plan = Dynamic(Cloud(1e12), JOB, Budgets(1e-6, 3.0), fallback=False).plan(profile, {0: device()}, 1)
    assert plan.assignments[0].cut == 2


def test_budgets_from_history_are_a_quantile_of_it() -> None:
    planner = Dynamic(Cloud(1e12), JOB, QuantileBudgets(quantile=0.5), fallback=False)
    past = History(compute_s=(0.011, 0.021, 0.031), transfer_s=(1.0,))
    plan = planner.plan(FOUR, {0: replace(device(), history=past)}, 4)
    assert plan.train_s == 0.021
    assert plan.assignments[0].cut == 2
    unmeasured = planner.plan(FOUR, {0: device()}, 1).assignments[0]
    assert "common step time" in unmeasured.reason


# --- whether it pays ---


def test_where_computing_binds_splitting_is_worth_it() -> None:
    plan = Dynamic(Cloud(1e12), JOB).plan(FOUR, {0: device(1e7), 1: device(1e9)}, 1)
    assert plan.worth
    assert plan.round_s < 0.5 * plan.whole_s
    assert "computing binds" in plan.why
    assert plan.round_bits > plan.whole_bits


def test_where_bytes_bind_the_plan_says_so_and_falls_back() -> None:
    devices = {0: device(1e9, 1e6), 1: device(1e9, 1e6)}
    forced = FixedCut(1, cloud=Cloud(1e12), job=JOB).plan(FOUR, devices, 1)
    assert not forced.worth
    assert "transfers are 100 %" in forced.why
    assert forced.assignments[0].cut == 1
    budgets = Dynamic(Cloud(1e12), JOB, Budgets(0.02, 10.0), whole=False)
    plan = budgets.plan(FOUR, devices, 1)
    assert {one.cut for one in plan.assignments.values()} == {4}
    assert not plan.worth
    assert plan.why == replace(budgets, fallback=False).plan(FOUR, devices, 1).why


def test_nothing_falls_back_to_a_model_that_a_device_cannot_hold() -> None:
    small = device(1e9, 1e6, memory=memory_bytes(FOUR, 3, JOB))
    plan = Dynamic(Cloud(1e12), JOB).plan(FOUR, {0: small}, 1)
    assert plan.assignments[0].cut < 4
    assert math.isinf(plan.whole_s)


def test_a_round_moves_halves_with_their_optimiser_and_federated_averaging_models_at_merges() -> None:
    quiet = profile_of([0.0, 0.0], [1, 1, 1], parameters=1000)
    job = Job(batch_size=1, steps=1, merge_every=4, label_bytes=0)
    plan = FixedCut(1, job=job).plan(quiet, {0: device(bps=1e6)}, 1)
    step_s = plan.step_s
    assert plan.round_s - step_s == pytest.approx(2 * 8 * (4000 + 4000) / 1e6)
    assert plan.whole_s == pytest.approx(2 * 8 * 8000 / 1e6 / 4)


def test_why_nothing_is_divided_is_told_with_the_slowest_device_s_times() -> None:
    quick = Dynamic(Cloud(1e12), JOB).plan(FOUR, {0: device(1e9, 1e6), 1: device(2e9, 1e6)}, 1)
    assert quick.why.startswith("no device is quicker with the cloud's help; the slowest takes 40 ms a step alone")
    assert "96 % of it transfers" in quick.why
    slow = WholeModel(Cloud(1e12), JOB).plan(FOUR, {0: device(1e7)}, 1)
    assert slow.why.startswith("nothing is divided; the slowest device takes 4.0 s a step alone, and would take ")
    only = Dynamic(job=JOB, least_cut=4).plan(FOUR, {0: device()}, 1)
    assert only.why == "no cut is open; the slowest device takes 40 ms a step alone"


# --- what the issue asks for ---


@pytest.fixture(scope="module")
def spreads() -> dict[str, float]:
    profile, cloud, job = resnet_profile(), Cloud(50e9), Job()
    after_first_block = next(cut.position for cut in profile.cuts if cut.name == "block")
    planners: dict[str, Planner] = {
        "fixed": FixedCut(after_first_block, INT8, cloud, job),
        "equalised": Dynamic(cloud, job, codecs=(INT8,)),
        "budgets": Dynamic(cloud, job, Budgets(0.25, 0.06), codecs=(INT8,)),
    }
    worlds = speeds(0, 60)
    plans: dict[str, list[Plan]] = {
        name: [one.plan(profile, devices, at) for at, devices in enumerate(worlds, 1)] for name, one in planners.items()
    }
    found = {name: float(np.mean([plan.spread_s for plan in of])) for name, of in plans.items()}
    found["clock"] = sum(plan.round_s for plan in plans["equalised"]) / sum(plan.whole_s for plan in plans["equalised"])
    return found


def test_devices_of_a_dynamic_plan_are_twenty_times_closer_than_with_a_fixed_cut(spreads: dict[str, float]) -> None:
    assert spreads["fixed"] == pytest.approx(3.3, rel=0.1)
    assert spreads["fixed"] / spreads["equalised"] >= 25
    assert spreads["fixed"] / spreads["budgets"] >= 18


def test_a_dynamic_plan_takes_a_twentieth_of_federated_averaging_s_time_with_all_costs_in(
    spreads: dict[str, float],
) -> None:
    assert spreads["clock"] <= 0.05


def test_a_budget_without_end_is_a_budget() -> None:
    plan = Dynamic(Cloud(50e9), JOB, Budgets(math.inf, 0.06), fallback=False).plan(FOUR, {0: device(1e6)}, 1)
    assert plan.assignments[0].reason == "most layers within unlimited computing and 60 ms transfer"


def test_a_machine_that_never_tires_is_told_without_a_division_by_nothing() -> None:
    plan = Dynamic(job=JOB).plan(FOUR, {0: DeviceView(Capacity(math.inf))}, 1)
    assert (plan.worth, plan.step_s) == (False, 0.0)
    assert plan.why.endswith("would take 0 ms with the cloud's help, 0 % of it transfers")


def test_a_least_cut_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(SplitError, match="least_cut = 9 leaves no cut of a model of 4 units; expected 0 to 4"):
        Dynamic(least_cut=9).plan(FOUR, {0: device()}, 1)
    with pytest.raises(SplitError, match="expected 0 to 3"):
        Dynamic(least_cut=4, whole=False).plan(FOUR, {0: device()}, 1)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_steps_without_end_are_no_plan() -> None:
    with pytest.raises(SplitError, match="would take for ever; check the units"):
        Dynamic(Cloud(1e-305)).plan(FOUR, {0: device(1e-305)}, 1)


def test_a_thousand_devices_are_planned_in_seconds() -> None:
    many = {number: device(10.0 ** (8 + number % 20 / 10), bps=1e6 * (1 + number % 50)) for number in range(1000)}
    cloud = Cloud(50e9, up_bps=1e9, down_bps=1e9)
    began_s = time.process_time()
    for budgets in (None, Budgets(0.25, 0.06)):
        plan = Dynamic(cloud, JOB, budgets, codecs=(INT4, INT8, PLAIN)).plan(FOUR, many, 1)
        assert sum(one.up_bps or 0.0 for one in plan.assignments.values()) <= 1e9 * (1 + 1e-6)
    assert time.process_time() - began_s < 10.0


def test_capacities_that_cannot_be_are_refused() -> None:
    with pytest.raises(SplitError, match="memory_bytes = nan"):
        Capacity(1.0, memory_bytes=math.nan)  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="flops_per_s = 0"):
        Capacity(0.0)
    with pytest.raises(SplitError, match="'cloud-up' is the cloud's own"):
        Cloud(links={"cloud-up": 1.0})
    with pytest.raises(SplitError, match="over link 'ap', and the cloud knows cloud-up, cloud-down only"):
        WholeModel().plan(FOUR, {0: replace(device(), up_links=("ap",))}, 1)
    with pytest.raises(SplitError, match="a tail needs labels='device'"):
        Job(tail=1)
