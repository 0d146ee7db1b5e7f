"""Automatic control: what is chosen is the best there is by its own expectation, fits what was given, and says why."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flower_edge.errors import FringeError, SplitError
from flower_edge.fringe.automatic_choice import METHOD_SETS, between, choose, weigh_all
from flower_edge.fringe.automatic_following import replacement
from flower_edge.fringe.automatic_learned import CostReach, LearnedPlan, PlanRow
from flower_edge.fringe.automatic_reach import RuleReach
from flower_edge.fringe.automatic_torch import automatic, model_costs
from flower_edge.fringe.automatic_values import CutPlace, Given, ModelCosts
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.links import Link, inference
from flower_edge.fringe.policy_learned import CostModel
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.store import tree_from_bytes, tree_to_bytes

NAMES = ("camera", "gateway", "cloud")


def place(position: int, size: int, **changes: Any) -> CutPlace:
    values: dict[str, Any] = {
        "name": f"unit{position}", "kind": "picture", "channels": 8, "values": size // 4, "size_bytes": size,
        "eight_bytes": 24 + size // 4, "four_bytes": 24 + size // 8, "pair_bytes": 29, "prunable": True,
    }  # fmt: skip
    return CutPlace(position, **{**values, **changes})


def costs(*sizes: int, unit_s: float = 0.01, **changes: Any) -> ModelCosts:
    """One unit more than cuts."""
    places = tuple(place(number, size, **changes) for number, size in enumerate(sizes, 1))
    return ModelCosts((unit_s,) * (len(sizes) + 1), (1000,) * (len(sizes) + 1), places)


MODEL = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
EXAMPLE = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))


def chosen(measured: ModelCosts, goals: Goals, links: list[Link], **options: Any) -> Any:
    """On a model of which only the units' names matter."""
    layers = [nn.Linear(4, 4) for _ in measured.unit_s]
    cut_model = CutModel.of(nn.Sequential(*layers), torch.zeros(2, 4))
    return automatic(cut_model, torch.zeros(2, 4), NAMES[: len(links) + 1], links, goals, costs=measured, **options)


# -- the choice --------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.lists(st.integers(200, 50_000), min_size=3, max_size=3),
    st.lists(st.floats(1e4, 1e8), min_size=2, max_size=2),
    st.lists(st.floats(0.1, 10.0), min_size=3, max_size=3),
)
def test_nothing_that_was_weighed_is_expected_to_be_faster_at_the_floor(
    sizes: list[int], rates: list[float], speeds: list[float]
) -> None:
    measured, links = costs(*sizes), [Link(rate, 0.001) for rate in rates]
    arguments: dict[str, Any] = {
        "drop": 0.01, "speeds": dict(zip(NAMES, speeds, strict=True)), "first": True, "last_machine": False,
        "given": Given(), "positions": None, "room_bytes": {}, "to_floor": True,
    }  # fmt: skip
    goals, reach = Goals(drop=0.01, bandwidth=2), RuleReach()
    best = choose(measured, NAMES, between(NAMES, links), goals, reach, **arguments)[0]
    least = float("inf")
    for used in (1, 2, 3):  # by hand
        for others in combinations((1, 2), used - 1):
            machines = (0, *others)
            for cuts in combinations((1, 2, 3), used - 1):
                ends = (0, *cuts, 4)
                compute = [0.01 * (b - a) / speeds[m] for a, b, m in zip(ends, ends[1:], machines, strict=False)]
                ways = [between(NAMES, links)(a, b) for a, b in pairwise(machines)]
                for methods in METHOD_SETS:
                    left = [reach.least_bytes(measured.places[cut - 1], 0.0, methods, 1, 0.01) for cut in cuts]
                    least = min(least, inference(left, ways, compute).latency_s)
    assert best.latency_s == pytest.approx(least, abs=2e-6)


@settings(max_examples=25)
@given(st.lists(st.integers(200, 50_000), min_size=2, max_size=3), st.floats(1.5, 60.0), st.floats(0.02, 2.0))
def test_what_is_expected_never_goes_beyond_the_goals_nor_below_what_can_be_had(
    sizes: list[int], factor: float, latency_s: float
) -> None:
    measured, goals = costs(*sizes), Goals(drop=0.01, bandwidth=factor, latency_s=latency_s)
    for one in weigh_all(
        measured, NAMES, between(NAMES, [Link(1e5, 0.002)] * 2), goals, RuleReach(), drop=0.01, speeds={}, first=True,
        last_machine=True, given=Given(), positions=None, room_bytes={},
    ):  # fmt: skip
        before, after = sum(one.before_bytes), sum(one.sizes_bytes)
        assert 24 * len(one.places) < after <= before
        assert one.least_s <= one.latency_s + 1e-9
        if one.reached:
            assert goals.met(before, after * (1 - 1e-9), one.before_s, one.latency_s * (1 - 1e-9))
        elif one.possible:
            assert one.missed > 0


def test_the_cut_moves_with_the_link_and_the_machines_with_their_speed() -> None:
    measured, goals = costs(40_000, 4_000, 1_000), Goals(drop=0.01, reduction="5%")
    slow, fast = [Link(1e5, 0.001)], [Link(1e9, 0.0)]
    near = chosen(measured, Goals(drop=0.01, latency_s=0.2), slow)
    assert near.cuts == ("unit3",)
    far = chosen(measured, Goals(drop=0.01, latency_s=0.2), fast, speeds={"gateway": 100.0})
    assert far.cuts == ("unit1",)
    assert far.methods == ()  # 0.3 ms of 10: the goal is met without
    assert "Nothing is compressed" in " ".join(far.why)
    with pytest.raises(FringeError, match=r"falls by less than \d"):
        chosen(measured, goals, fast)


def test_a_machine_that_does_not_pay_is_left_out_with_the_reason_in_numbers() -> None:
    links = [Link(1e6, 0.005), Link(1e6, 0.005)]
    made = chosen(costs(4_000, 2_000), Goals(drop=0.01, bandwidth="4x"), links, speeds={"cloud": 10.0})
    assert made.machines == ("camera", "cloud")
    assert any("gateway is left out: with it" in line and "ms at best" in line for line in made.why)
    assert made.links == (Link(5e5, 0.010),)
    alone = chosen(costs(4_000, 2_000), Goals(drop=0.01, latency_s=0.1), links, last_machine=False)
    assert (alone.machines, alone.cuts, alone.methods) == (("camera",), (), ())
    own = {("camera", "gateway"): links[0], ("gateway", "cloud"): links[1], ("camera", "cloud"): Link(9e6, 0.001)}
    assert between(NAMES, own)(0, 2) == Link(9e6, 0.001)


def test_what_the_user_decided_stays() -> None:
    decided = Given(machines=NAMES, cuts=(1, 2), depth={"camera": 3}, methods=("pruning",))
    made = chosen(costs(4_000, 2_000, 100), Goals(drop=0.01, bandwidth="1.5x"), [Link(1e6)] * 2, given=decided)
    assert (made.machines, made.cuts, made.methods) == (NAMES, ("unit1", "unit2"), ("pruning",))
    assert made.depth["camera"] == 3
    assert set(made.depth) == set(NAMES)


def test_a_pair_that_takes_longer_than_it_saves_is_not_chosen() -> None:
    goals = Goals(drop=0.01, latency_s=0.0455)
    link = [Link(4e6, 0.020)]
    cheap = chosen(costs(4_000), goals, link, to_floor=True)
    dear = chosen(costs(4_000, pair_s=(0.02, 0.02)), goals, link, to_floor=True)
    assert "distillation" in cheap.methods
    assert "distillation" not in dear.methods
    assert dear.latency_s < cheap.latency_s + 0.04


def test_room_for_weights_is_kept_and_no_room_is_refused() -> None:
    goals, links = Goals(drop=0.01, bandwidth="2x"), [Link(1e6, 0.001)]
    made = chosen(costs(4_000, 1_000), goals, links, most_bytes={"camera": 1500})
    assert made.positions == (1,)  # though the later cut sends less
    with pytest.raises(FringeError, match="do not fit into camera, gateway"):
        chosen(costs(4_000), goals, links, most_bytes={"camera": 10})


def test_a_goal_that_is_possible_but_out_of_reach_is_said_to_be_so() -> None:
    made = chosen(costs(1_000), Goals(drop=0.01, bandwidth="35x"), [Link(1e5)])
    assert not made.reached
    assert "not expected to be met" in made.why[-1]
    assert made.methods  # bytes are what was asked for


# -- measured ----------------------------------------------------------------------------------------------------------


def test_a_model_is_measured_once_and_chosen_for_many_times() -> None:
    cut_model = CutModel.of(MODEL, EXAMPLE)
    measured = model_costs(cut_model, EXAMPLE, repeats=1)
    assert len(measured.unit_s) == len(cut_model.units)
    assert sum(measured.unit_bytes) == sum(4 * p.numel() for p in MODEL.parameters())
    assert [one.name for one in measured.places] == ["1", "3"]  # after each ReLU, for the linear layer sends as much
    assert all(one.prunable and one.kind == "vector" for one in measured.places)
    assert not MODEL.training
    goals, links = Goals(drop=0.01, bandwidth="1.4x"), [Link(1e4)]
    made = automatic(MODEL, EXAMPLE, ["a", "b"], links, goals, costs=measured)
    assert made == automatic(cut_model, EXAMPLE, ["a", "b"], links, goals, costs=measured)
    also = automatic(MODEL, EXAMPLE, ["a", "b"], links, goals, given=Given(cuts=("0",)))
    assert also.cuts == ("0",)


def test_tied_weights_are_not_cut_apart() -> None:
    tied = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    tied[2].weight = tied[0].weight
    made = automatic(tied, torch.zeros(2, 8), ["a", "b"], [Link(1e4)], Goals(drop=0.01, bandwidth="1.2x"))
    assert made.positions[0] >= 2
    with pytest.raises(SplitError, match="both sides"):
        automatic(
            tied, torch.zeros(2, 8), ["a", "b"], [Link(1e4)], Goals(drop=0.01, bandwidth=2), given=Given(cuts=("1",))
        )


def test_wrong_arguments_are_refused_by_name() -> None:
    goals = Goals(drop=0.01, bandwidth=2)
    for wrong, word in (
        ({"machines": ("a", "a")}, "none twice"),
        ({"links": []}, "expected 1"),
        ({"speeds": {"z": 1.0}}, "'z'"),
        ({"speeds": {"a": 0.0}}, "speed"),
        ({"given": Given(machines=("b", "a"))}, "in that order"),
        ({"given": Given(cuts=(1, 2))}, "do not fit"),
    ):
        arguments: dict[str, Any] = {"machines": ("a", "b"), "links": [Link(1e6)], **wrong}
        with pytest.raises(FringeError, match=word):
            automatic(MODEL, EXAMPLE, goals=goals, **arguments)
    for bad in ({"machines": ("a", "b"), "cuts": ()}, {"depth": {"a": -1}}, {"methods": ("magic",)}, {"cuts": "relu"}):
        with pytest.raises(FringeError):
            Given(**bad)


# -- learned -----------------------------------------------------------------------------------------------------------


def rows(octaves: dict[str, float]) -> list[PlanRow]:
    """Runs that reached so many octaves by methods, at places of several sizes and depths."""
    return [
        PlanRow.of(place(1, size), 0.3, methods.split("+"), depth, 0.01, size_bytes=size / 2**gone, trials=len(methods))
        for methods, gone in octaves.items()
        for size in (1_000, 2_000, 4_000)
        for depth in (1, 2)
    ]


def test_what_was_recorded_is_expected_again() -> None:
    plan = LearnedPlan.fit(rows({"quantisation": 2.0, "quantisation+pruning": 3.0, "quantisation+distillation": 5.0}))
    for methods, gone in ((("quantisation",), 2.0), (("quantisation", "distillation"), 5.0)):
        assert plan.least_bytes(place(1, 2_000), 0.3, methods, 1, 0.01) == pytest.approx(2_000 / 2**gone, rel=0.35)
    assert plan.least_bytes(place(1, 2_000), 0.3, (), 1, 0.01) == 2_000
    assert plan.spread < 0.3
    assert plan.depths == (1, 2)
    kept = LearnedPlan.from_state(tree_from_bytes(tree_to_bytes(plan.state())))
    assert kept.least_bytes(place(1, 900), 0.1, ("quantisation",), 2, 0.02) == plan.least_bytes(
        place(1, 900), 0.1, ("quantisation",), 2, 0.02
    )
    again = [PlanRow.from_row(row.row()) for row in rows({"quantisation": 2.0})]
    assert again == rows({"quantisation": 2.0})


def test_learning_that_pairs_fail_here_changes_the_choice() -> None:
    goals, link = Goals(drop=0.01, latency_s=0.5), [Link(1e5, 0.001)]
    shrinks = {"quantisation": 2.0, "quantisation+pruning": 4.5, "quantisation+distillation": 2.0}
    ruled = chosen(costs(4_000), goals, link, to_floor=True)
    taught = chosen(costs(4_000), goals, link, to_floor=True, learned=LearnedPlan.fit(rows(shrinks)))
    assert "distillation" in ruled.methods
    assert "distillation" not in taught.methods
    assert "what was recorded" in taught.why[0]


def test_nothing_to_learn_from_and_damaged_state_are_refused() -> None:
    with pytest.raises(FringeError, match="0 rows"):
        LearnedPlan.fit([])
    good = LearnedPlan.fit(rows({"quantisation": 2.0})).state()
    for wrong in ({}, {**good, "weights": good["weights"][:3]}, {**good, "base": float("nan")}, {**good, "taken": {}}):
        with pytest.raises(FringeError, match="a plan of"):
            LearnedPlan.from_state(wrong)
    row = rows({"quantisation": 2.0})[0].row()
    for bad in ({}, {**row, "kind": "film"}, {**row, "octaves": float("inf")}, {**row, "methods": ["magic"]}):
        with pytest.raises(FringeError):
            PlanRow.from_row(bad)


def test_steps_that_cost_more_are_expected_to_reach_less() -> None:
    cheap = CostModel(_weights(0.001), 0.01, {"quantisation": 5, "pruning": 5, "distillation": 0})
    dear = CostModel(_weights(0.02), 0.01, {"quantisation": 5, "pruning": 5, "distillation": 0})
    methods = ("quantisation", "pruning")
    left = [CostReach(model).least_bytes(place(1, 4_000), 0.2, methods, 1, 0.05) for model in (cheap, dear)]
    assert left[0] < left[1] < 4_000
    assert CostReach(cheap).least_bytes(place(1, 4_000), 0.2, ("distillation",), 1, 0.05) == 4_000  # never seen
    made = chosen(costs(4_000), Goals(drop=0.05, latency_s=0.5), [Link(1e5)], to_floor=True, learned=cheap)
    assert made.methods


def _weights(per_octave: float) -> Any:
    """Of a cost that grows with the octaves of a step, alike for all methods."""
    found = np.zeros(15)
    found[1::5] = per_octave
    return found


# -- links that change -------------------------------------------------------------------------------------------------


def test_moving_is_recommended_only_where_it_pays_by_a_margin() -> None:
    measured, goals = costs(40_000, 1_000), Goals(drop=0.01, latency_s=1.0)
    decided = Given(machines=NAMES[:2], cuts=(1,))
    options: dict[str, Any] = {"speeds": {"gateway": 50.0}, "to_floor": True}
    for rate, moves in ((1e9, False), (2e4, True)):
        links = [Link(rate, 0.001)]
        stays = chosen(measured, goals, links, given=decided, **options)
        free = chosen(measured, goals, links, **options)
        told = replacement(stays, free)
        assert bool(told) == moves
        if moves:
            assert "cut after unit2" in told
            assert not replacement(stays, replace(free, reached=False))
            assert replacement(replace(stays, reached=False), free).startswith("Move")
            assert not replacement(stays, replace(free, latency_s=0.8 * stays.latency_s))
    with pytest.raises(FringeError, match="margin"):
        replacement(stays, free, margin=1.0)
