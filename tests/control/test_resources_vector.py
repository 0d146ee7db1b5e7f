"""Straggler control with a vector of resources, alone and in a world that answers to it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from control.array_world import ArrayWorld, controls, observation, random_topology, random_world, start, with_silent
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.controller_laws import ControllerLaws, same

from flower_edge.control.baselines import DynamicOpt, Equal
from flower_edge.control.controller import Control, Controller, Observation
from flower_edge.control.costs import round_time_s
from flower_edge.control.dcent import Dcent
from flower_edge.control.forecasts import Last
from flower_edge.control.joint import Joint
from flower_edge.control.link_memory import Known
from flower_edge.control.moves import Step, move
from flower_edge.control.planned import MinMax
from flower_edge.control.requirements import link_requirements
from flower_edge.control.resources import (
    Bandwidth,
    ResourceControl,
    delays_s,
    needs_of,
    processor,
    receiver_power,
)
from flower_edge.control.vector_dcent import VectorDcent
from flower_edge.control.vector_requirements import Split, move_amounts, vector_requirements
from flower_edge.control.with_resources import WithResources, answering
from flower_edge.errors import ConfigError
from flower_edge.topology.rows import spread, sum_rows
from flower_edge.topology.topology import Topology

CPU = processor(4e8, 100.0)
RADIO = receiver_power(0.5, 1e-7)


def rows(seed: int, resources: int) -> dict[str, Any]:
    """Weights, amounts, needs and ready times of a directed network, over two decades."""
    rng = np.random.default_rng([seed, resources, 1])
    topology = random_topology(seed, nodes=6, extra=12)
    flat = rng.uniform(0.1, 1.0, topology.links)
    own = rng.uniform(0.1, 1.0, 6)
    total = spread(sum_rows(flat, topology.indptr) + own, topology.indptr)
    budgets = rng.uniform(1.0, 10.0, (resources, 6))
    amounts = rng.uniform(0.1, 1.0, (resources, topology.links))
    amounts *= [spread(budgets[r] / sum_rows(amounts[r], topology.indptr), topology.indptr) for r in range(resources)]
    return {
        "topology": topology,
        "weights": flat / total,
        "self_weights": own / (own + sum_rows(flat, topology.indptr)),
        "amounts": amounts,
        "budgets": budgets,
        "needs": rng.lognormal(0.0, 1.5, (resources, topology.links)),
        "ready_s": rng.uniform(0.0, 2.0, topology.links),
    }


def wanted_of(case: dict[str, Any], **options: Any) -> Any:
    control = Control(case["weights"], case["self_weights"], case["amounts"][0])
    topology = case["topology"]
    own_s = np.ones(topology.nodes)
    return vector_requirements(topology, control, case["amounts"], case["needs"], case["ready_s"], own_s, **options)


def in_one_row(needs: list[list[float]], **options: Any) -> Any:
    """Node 0 hears nodes 1 and 2, with the same weight and one unit of everything each."""
    control = Control(np.full(2, 0.4), np.array([0.2, 1.0, 1.0]), np.ones(2))
    where = Topology(3, [0, 0], [1, 2])
    return vector_requirements(where, control, np.ones((2, 2)), np.array(needs), np.zeros(2), np.ones(3), **options)


def moved(case: dict[str, Any], wanted: Any, alpha: Any) -> tuple[np.ndarray, np.ndarray]:
    topology = case["topology"]
    step = Step.of(topology, np.broadcast_to(np.asarray(alpha, float), (topology.nodes,)), "row")
    amounts = [
        move_amounts(topology, x, budget, wanted, r, step)
        for r, (x, budget) in enumerate(zip(case["amounts"], case["budgets"], strict=True))
    ]
    weights = case["weights"] + step.alpha * (wanted.scalar.weights_hat - case["weights"])
    at = wanted.scalar.straggler[wanted.scalar.straggler >= 0]
    weights[at] = 0.0
    weights[at] = (1.0 - case["self_weights"] - sum_rows(weights, topology.indptr))[topology.receiver[at]]
    return weights, np.array(amounts)


# -- a split that is safe ------------------------------------------------------------------------------------------


@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["priced", "proportional"]),
)
@settings(max_examples=150, deadline=None)
def test_no_link_but_the_straggler_exceeds_tau_for_any_step(
    seed: int, resources: int, theta: float, alpha: float, split: Split
) -> None:
    case = rows(seed, resources)
    wanted = wanted_of(case, theta=theta, split=split)
    others = np.ones(case["topology"].links, bool)
    others[wanted.scalar.straggler[wanted.scalar.straggler >= 0]] = False
    # Not only one step for all: another one for the weight and for each resource, up to alpha.
    part = np.random.default_rng(seed).uniform(0.0, alpha, (resources + 1, 1))
    part[seed % (resources + 1)] = alpha
    weights = case["weights"] + part[-1] * (wanted.scalar.weights_hat - case["weights"])
    amounts = case["amounts"] - part[:-1] * (case["amounts"] - wanted.amounts_hat)
    costs = weights * (case["ready_s"] + delays_s(case["needs"], amounts).sum(axis=0))
    tau = spread(wanted.scalar.tau_s, case["topology"].indptr)
    assert (costs <= tau * (1.0 + 1e-12))[others].all()


@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(["priced", "proportional"]))
@settings(max_examples=60, deadline=None)
def test_at_the_whole_step_every_other_link_costs_tau(seed: int, resources: int, split: Split) -> None:
    case = rows(seed, resources)
    wanted = wanted_of(case, theta=0.5, split=split)
    latency_s = case["ready_s"] + delays_s(case["needs"], wanted.amounts_hat).sum(axis=0)
    np.testing.assert_allclose(
        wanted.scalar.weights_hat * latency_s, spread(wanted.scalar.tau_s, case["topology"].indptr), rtol=1e-12
    )


@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(["priced", "proportional", "each"]))
@settings(max_examples=60, deadline=None)
def test_nothing_is_asked_back_and_the_straggler_pays_and_gains(seed: int, resources: int, split: Split) -> None:
    case = rows(seed, resources)
    wanted = wanted_of(case, split=split)
    assert (wanted.amounts_hat <= case["amounts"]).all()
    assert (wanted.amounts_hat > 0.0).all()
    assert (wanted.scalar.weights_hat >= case["weights"]).all()
    assert (wanted.scalar.weights_hat <= 1.0).all()
    weights, amounts = moved(case, wanted, np.minimum(0.9 * wanted.scalar.alpha_max, 1.0))
    at = wanted.scalar.straggler[wanted.scalar.straggler >= 0]
    assert (weights[at] <= case["weights"][at] * (1.0 + 1e-12)).all()
    assert (amounts[:, at] >= case["amounts"][:, at] * (1.0 - 1e-12)).all()
    sums = sum_rows(weights, case["topology"].indptr) + case["self_weights"]
    np.testing.assert_allclose(sums, 1.0, rtol=1e-12)
    for r in range(resources):
        used = sum_rows(amounts[r], case["topology"].indptr)
        np.testing.assert_allclose(used, case["budgets"][r], rtol=1e-12)


def test_resources_that_each_spend_the_whole_slack_exceed_tau() -> None:
    case = rows(1, 2)
    wanted = wanted_of(case, theta=0.0, split="each")
    costs = case["weights"] * (case["ready_s"] + delays_s(case["needs"], wanted.amounts_hat).sum(axis=0))
    assert (costs / spread(wanted.scalar.tau_s, case["topology"].indptr)).max() > 1.2


def test_nobody_parts_with_what_the_straggler_has_no_use_for() -> None:
    wanted = in_one_row([[8.0, 1.0], [0.0, 1.0]], theta=0.0)
    assert wanted.scalar.straggler[0] == 0
    np.testing.assert_allclose(wanted.amounts_hat, [[1.0, 1.0 / 7.0], [1.0, 1.0]])


def test_the_price_split_gives_up_most_of_what_helps_most() -> None:
    # The straggler lacks the first resource: a unit of it takes 8 s off, one of the second only 1 s.
    given_up = {
        split: 1.0 - in_one_row([[8.0, 1.0], [1.0, 1.0]], theta=0.0, split=split).amounts_hat[:, 1]
        for split in ("priced", "proportional")
    }
    np.testing.assert_allclose(given_up["proportional"], 1.0 - 1.0 / 4.5)
    relief = {split: (np.array([8.0, 1.0]) * amounts).sum() for split, amounts in given_up.items()}
    assert relief["priced"] > relief["proportional"]
    # Seconds in the proportion of sqrt(8) to sqrt(1), 9 in all.
    np.testing.assert_allclose(given_up["priced"], 1.0 - (1.0 + np.sqrt(8.0) ** np.array([-1, 1])) / 9.0)


def test_links_that_cannot_be_judged_neither_move_nor_are_stragglers() -> None:
    case = rows(3, 2)
    heard = np.arange(case["topology"].links) % 3 > 0
    heard[case["topology"].row(2)] = False
    heard[5] = False
    case["ready_s"][5] = np.nan
    wanted = wanted_of(case, heard=heard)
    quiet = ~heard
    np.testing.assert_array_equal(wanted.scalar.weights_hat[quiet], case["weights"][quiet])
    np.testing.assert_array_equal(wanted.amounts_hat[:, quiet], case["amounts"][:, quiet])
    assert wanted.scalar.straggler[2] == -1
    assert not np.isin(np.flatnonzero(quiet), wanted.scalar.straggler).any()
    weights, amounts = moved(case, wanted, 0.01)
    row = case["topology"].row(2)
    np.testing.assert_array_equal(weights[row], case["weights"][row])
    np.testing.assert_array_equal(amounts[:, row], case["amounts"][:, row])


# -- one resource is the scalar case -------------------------------------------------------------------------------


@given(
    st.integers(0, 10_000), st.sampled_from([None, 0.0, 0.5, 1.0]), st.sampled_from(["priced", "proportional", "each"])
)
@settings(max_examples=60, deadline=None)
def test_with_one_resource_the_requirement_values_and_the_move_are_those_of_the_band(
    seed: int, theta: float | None, split: Split
) -> None:
    case = rows(seed, 1)
    topology, budget = case["topology"], case["budgets"][0]
    control = Control(case["weights"], case["self_weights"], case["amounts"][0])
    known = Known(case["ready_s"], case["needs"][0], None, None)
    scalar = link_requirements(topology, control, budget, known, np.zeros(topology.nodes), theta=theta)
    vector = wanted_of(case, theta=theta, split=split)
    np.testing.assert_array_equal(vector.scalar.straggler, scalar.straggler)
    np.testing.assert_allclose(vector.scalar.tau_s, scalar.tau_s, rtol=1e-12)
    np.testing.assert_allclose(vector.scalar.alpha_max, scalar.alpha_max, rtol=1e-9)
    np.testing.assert_allclose(vector.scalar.weights_hat, scalar.weights_hat, rtol=1e-12)
    np.testing.assert_allclose(vector.amounts_hat[0], scalar.bandwidth_hat_hz, rtol=1e-12)
    alpha = np.minimum(0.9 * scalar.alpha_max, 0.3)
    after = move(topology, control, budget, scalar, Step.of(topology, alpha, "row"))
    weights, amounts = moved(case, vector, alpha)
    np.testing.assert_allclose(weights, after.weights, atol=1e-12)
    np.testing.assert_allclose(amounts[0], after.bandwidth_hz, rtol=1e-12)


def test_the_golden_vector_comes_out_of_a_vector_of_one() -> None:
    topology = Topology.complete(3)
    seen = Observation(np.array([1.0, 0.5, 1.5]), np.array([4.0, 1, 4, 2, 1, 2]), np.full(3, 2e6))
    needs, ready_s = needs_of((Bandwidth(),), topology, seen), seen.ready_s(topology)
    control = Control(np.full(6, 1 / 3), np.full(3, 1 / 3), np.full(6, 5e6))
    wanted = vector_requirements(
        topology, control, control.bandwidth_hz[None], needs, ready_s, seen.processing_s, theta=0.5
    )
    np.testing.assert_allclose(wanted.scalar.tau_s, [19 / 30, 17 / 30, 7 / 15], rtol=1e-12)
    assert wanted.scalar.straggler.tolist() == [1, 3, 4]
    np.testing.assert_allclose(
        wanted.scalar.weights_hat[[0, 2, 5]], [0.593171014, 0.414387707, 0.4714045208], atol=5e-10
    )
    wanted_hz = [0.8807347333e6, 1.3606203639e6, 2.0410267036e6]
    np.testing.assert_allclose(wanted.amounts_hat[0, [0, 2, 5]], wanted_hz, atol=5e-4)


# -- controllers -----------------------------------------------------------------------------------------------------


class TestVectorDcentWithBandAndMore(ControllerLaws):
    def make(self) -> Controller:
        return VectorDcent((Bandwidth(), CPU, RADIO))


class TestVectorDcentAsOneStep(ControllerLaws):
    def make(self) -> Controller:
        return VectorDcent((Bandwidth(), CPU), Dcent(), split="proportional")


class TestVectorDcentThatPrunesAndProbes(ControllerLaws):
    def make(self) -> Controller:
        rule = Dcent(
            theta=0.5,
            steps="link",
            step_cap=0.1,
            prune_below=0.05,
            connect="within tau",
            probe_every=4,
            hand_over="min-max",
        )
        return VectorDcent((Bandwidth(), CPU), rule)


class TestVectorDcentWithoutBand(ControllerLaws):
    def make(self) -> Controller:
        return VectorDcent((CPU,))


class TestJoint(ControllerLaws):
    def make(self) -> Controller:
        return Joint(Equal(), (Bandwidth(), CPU, RADIO))


class TestJointWithoutBand(ControllerLaws):
    def make(self) -> Controller:
        return Joint(Equal(), (CPU,))


RULES = {
    "as it comes": Dcent(),
    "self fixed": Dcent(self_entry="fixed"),
    "self free": Dcent(self_entry="free", theta=0.5),
    "ties shared": Dcent(ties="shared", self_entry="full"),
    "split, a step per row": Dcent(theta=0.5, steps="row", step_cap=0.05),
    "a step per link, pruning and probing": Dcent(steps="link", step_cap=0.1, prune_below=0.04, probe_every=5),
    "band handed over exactly": Dcent(steps="row", step_cap=0.2, prune_below=0.06, hand_over="min-max"),
    "line search": Dcent(step_cap=0.5, prune_below=0.05, failing="line search"),
    "within tau": Dcent(theta=0.5, steps="row", step_cap=0.1, prune_below=0.05, connect="within tau", tau=5),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_straggler_control_of_the_band_alone_is_dcent(rule: Dcent) -> None:
    for world in (random_world(1), random_world(4, random_topology(4))):

        def shown(round: int, world: ArrayWorld = world) -> Observation:
            seen = with_silent(observation(world, round), [round % 6] if round % 5 == 0 or 20 < round < 28 else [])
            hidden = np.arange(world.topology.links) % 7 == round % 9
            gone = np.arange(world.topology.links) % 11 == round % 23
            efficiency = np.where(hidden, np.nan, np.where(gone, 0.0, seen.spectral_efficiency))
            return replace(seen, spectral_efficiency=efficiency)

        vector, scalar = (controls(c, world, 60, seen=shown) for c in (VectorDcent((Bandwidth(),), rule), rule))
        for left, right in zip(vector, scalar, strict=True):
            np.testing.assert_allclose(left.weights, right.weights, atol=1e-12)
            np.testing.assert_allclose(left.bandwidth_hz, right.bandwidth_hz, rtol=1e-12)


def test_joint_with_the_band_alone_is_min_max() -> None:
    for world in (random_world(1), random_world(4, random_topology(4))):
        pairs = zip(controls(Joint(Equal(), (Bandwidth(),)), world, 20), controls(MinMax(), world, 20), strict=True)
        for vector, scalar in pairs:
            np.testing.assert_allclose(vector.bandwidth_hz, scalar.bandwidth_hz, rtol=1e-9)
            np.testing.assert_array_equal(vector.weights, scalar.weights)


def test_controllers_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one, and each once"):
        VectorDcent(())
    with pytest.raises(ConfigError, match=r"\['bandwidth_hz', 'bandwidth_hz'\]"):
        Joint(Equal(), (Bandwidth(), Bandwidth()))
    with pytest.raises(ConfigError, match="has seen; Joint plans"):
        Joint(DynamicOpt(), (Bandwidth(),))
    with pytest.raises(ConfigError, match="unknown_s = 0"):
        Joint(Equal(), (Bandwidth(),), unknown_s=0.0)
    with pytest.raises(ConfigError, match="side='sender' has no form for several resources"):
        VectorDcent((Bandwidth(),), Dcent.literal())
    with pytest.raises(ConfigError, match="hand_over='min-max' shares out the band"):
        VectorDcent((CPU,), Dcent(hand_over="min-max"))


# -- in a world that answers -----------------------------------------------------------------------------------------


def answering_world(seed: int, nodes: int = 8) -> tuple[ArrayWorld, WithResources]:
    """Half the nodes send what is long and easy to decode, half what is short and hard; some receivers are slow."""
    base = random_world(seed, nodes=nodes)
    rng = np.random.default_rng([seed, 9])
    cycles = rng.choice([20.0, 400.0], nodes)[base.topology.sender]
    return base, WithResources(base, (processor(rng.choice([2e8, 2e9], nodes), cycles),), 61_706 * 32.0)


def true_times_s(controller: Controller, base: ArrayWorld, world: WithResources, rounds: int) -> np.ndarray:
    begin = start(base)
    control, state = controller.init(begin)
    times = []
    for round in range(1, rounds + 1):
        now = answering(world, control)
        seen = Observation(
            now.processing_s(round), now.spectral_efficiency(round), begin.payload_bits, now.latency_s(round)
        )
        times.append(round_time_s(base.topology, control, seen))
        control.check(base.topology, base.budget_hz)
        if isinstance(control, ResourceControl):
            for resource in world.resources:
                if resource.name in control.amounts:
                    used = sum_rows(control.amount(resource.name), base.topology.indptr)
                    np.testing.assert_allclose(used, resource.budget(base.topology, base.budget_hz), rtol=1e-12)
        control, state = controller.step(state, seen)
    return np.array(times)


@pytest.mark.parametrize("seed", range(3))
def test_shared_out_jointly_rounds_are_shorter_than_with_either_resource_alone(seed: int) -> None:
    base, world = answering_world(seed)
    resources = (Bandwidth(), *world.resources)
    jointly_s, band_s, cpu_s = (
        true_times_s(Joint(Equal(), some), base, world, 20)[5:].mean()
        for some in (resources, resources[:1], resources[1:])
    )
    assert jointly_s < 0.95 * min(band_s, cpu_s)


@pytest.mark.parametrize("seed", range(3))
def test_straggler_control_of_the_vector_comes_near_the_joint_optimum(seed: int) -> None:
    base, world = answering_world(seed)
    resources = (Bandwidth(), *world.resources)
    best_s = true_times_s(Joint(Equal(), resources), base, world, 20)[5:].mean()
    steps = VectorDcent(resources, Dcent(theta=0.0, steps="row", step_cap=0.3))
    assert true_times_s(steps, base, world, 80)[60:].mean() < 1.15 * best_s


def test_the_joint_plan_foretells_the_round_when_nothing_changes() -> None:
    base, world = answering_world(4)
    still = ArrayWorld(base.topology, base.budget_hz, base.processing[0], base.efficiency[0])
    calm = WithResources(still, world.resources, world.payload_bits)
    times_s = true_times_s(Joint(Equal(), (Bandwidth(), *world.resources), Last()), still, calm, 6)
    # From the second round on P is known, and no rest of the resources' seconds is taken for latency.
    np.testing.assert_allclose(times_s[2:], times_s[1], rtol=1e-9)
    other_s = true_times_s(Joint(Equal(), (Bandwidth(),), Last()), still, calm, 6)
    assert times_s[1] < other_s.min()


def test_links_dropped_and_tried_leave_further_budgets_whole_and_amounts_only_where_there_is_weight() -> None:
    base, world = answering_world(7)
    rule = Dcent(theta=0.5, steps="row", step_cap=0.3, prune_below=0.08, connect="within tau", probe_every=3)
    (cpu,) = world.resources
    used = []
    for control in controls(VectorDcent((Bandwidth(), cpu), rule), base, 60):
        assert isinstance(control, ResourceControl)
        amounts = control.amount(cpu.name)
        np.testing.assert_array_equal(amounts > 0.0, control.in_use)
        hears = sum_rows(control.in_use.astype(float), base.topology.indptr) > 0.0
        budget = np.where(hears, cpu.budget(base.topology, base.budget_hz), 0.0)
        np.testing.assert_allclose(sum_rows(amounts, base.topology.indptr), budget, rtol=1e-12)
        used.append(control.in_use)
    changes = np.diff(np.array(used).astype(int), axis=0)
    assert (changes < 0).sum() > 10
    assert (changes > 0).sum() > 10


def test_a_world_answers_for_what_it_is_told_and_shares_equally_what_it_is_not() -> None:
    base, world = answering_world(5)
    (cpu,) = world.resources
    control = start(base).control
    told = ResourceControl.of(control, (cpu,), 2.0 * np.ones((1, base.topology.links)))
    seen = observation(base, 3)
    np.testing.assert_allclose(world.under(told).latency_s(3), cpu.need(base.topology, seen) / 2.0)
    np.testing.assert_allclose(world.under(control).latency_s(3), world.latency_s(3))
    budget = spread(cpu.budget(base.topology, base.budget_hz), base.topology.indptr)
    np.testing.assert_allclose(world.latency_s(3), cpu.need(base.topology, seen) * 7.0 / budget)
    unused = Control(np.zeros(base.topology.links), np.ones(8), np.zeros(base.topology.links))
    np.testing.assert_array_equal(world.under(unused).latency_s(3), 0.0)
    assert answering(base, control) is base
    np.testing.assert_array_equal(world.under(told).spectral_efficiency(3), base.spectral_efficiency(3))
    assert world.positions_m(1) is base.positions_m(1)


def test_the_further_amounts_survive_a_checkpoint_and_are_a_function_of_the_measurements() -> None:
    base, world = answering_world(6)
    controller = VectorDcent((Bandwidth(), *world.resources))
    once, again = (list(controls(controller, base, 10, keep=keep)) for keep in (deepcopy, lambda state: state))
    for left, right in zip(once, again, strict=True):
        assert same(left, right)
        assert isinstance(left, ResourceControl)
        assert isinstance(right, ResourceControl)
        for name in left.amounts:
            np.testing.assert_array_equal(left.amount(name), right.amount(name))
