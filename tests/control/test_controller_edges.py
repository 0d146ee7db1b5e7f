"""What no world should show a controller, and some do: nobody there, nothing to send, numbers without end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from control.array_world import (
    LENET_BITS,
    ArrayWorld,
    controls,
    equal_control,
    observation,
    random_world,
    start,
)
from test_costs import EQUAL, ROUND, THREE

from flower_edge.control.auto import Auto
from flower_edge.control.baselines import DynamicOpt, Equal, NoComm, Static
from flower_edge.control.controller import Control, Controller, Observation
from flower_edge.control.costs import objective, self_costs
from flower_edge.control.dcent import Dcent
from flower_edge.control.doubly import DoublyStochastic
from flower_edge.control.forecasts import Ewma, Forecast, Last, Mean, MeanPlusDeviation, Quantile, Shrunk
from flower_edge.control.joint import Joint
from flower_edge.control.known import look, remember
from flower_edge.control.link_memory import look_at_links, no_memory
from flower_edge.control.matcha import Matcha
from flower_edge.control.min_max import min_max_bandwidth
from flower_edge.control.ogd import Ogd
from flower_edge.control.optimum import weighted_optimum
from flower_edge.control.planned import ClosedForm, MinMax
from flower_edge.control.pruning import drop_links
from flower_edge.control.resources import Bandwidth, ResourceControl, processor, restored
from flower_edge.control.schedules import BaseKPlus1, OnePeerExponential
from flower_edge.control.simulate import first_look
from flower_edge.control.true_time import Sparse, TimeOptimal
from flower_edge.control.vector_dcent import VectorDcent
from flower_edge.control.with_resources import WithResources
from flower_edge.errors import ConfigError, TopologyError
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.topology import Topology

CPU = processor(1e9, 50.0)
CONTROLLERS: dict[str, Callable[[], Controller]] = {
    "equal": Equal,
    "nocomm": NoComm,
    "static": Static,
    "optimum": DynamicOpt,
    "ogd": lambda: Ogd("row"),
    "ogd-global": lambda: Ogd("global"),
    "closed-form": ClosedForm,
    "closed-form-last": lambda: ClosedForm(Last()),
    "min-max": MinMax,
    "min-max-quantile": lambda: MinMax(Equal(), Quantile()),
    "joint": lambda: Joint(Equal(), (Bandwidth(), CPU)),
    "joint-without-band": lambda: Joint(Equal(), (CPU,)),
    "vector": lambda: VectorDcent((Bandwidth(), CPU)),
    "dcent": Dcent,
    "dcent-literal": Dcent.literal,
    "dcent-pruned": lambda: Dcent(step_cap=0.2, prune_below=0.1, hand_over="min-max", ties="shared"),
    "dcent-whole-steps": lambda: Dcent(step_cap=1.0, eta=1.0, steps="row", theta=0.5),
    "dcent-links": lambda: Dcent(steps="link", step_cap=0.2, prune_below=0.1, probe_every=3),
    "dcent-within-tau": lambda: Dcent(step_cap=0.2, prune_below=0.1, connect="within tau", tau=3),
    "doubly": lambda: MinMax(DoublyStochastic(Dcent(step_cap=0.2, prune_below=0.1))),
    "sparse": Sparse,
    "time-optimal": lambda: TimeOptimal(tries=40),
    "one-peer": lambda: OnePeerExponential(trials=40),
    "base-k": lambda: BaseKPlus1(trials=40),
    "matcha": Matcha,
    "auto": lambda: Auto(tries=40),
}
WORLD = random_world(1)
every = pytest.mark.parametrize("make", CONTROLLERS.values(), ids=CONTROLLERS)


def goes_on(
    make: Callable[[], Controller],
    world: ArrayWorld,
    seen: Callable[[int], Observation] | None = None,
    bits: float = LENET_BITS,
) -> None:
    begin = replace(start(world, bits), control=first_look(world, bits).control)
    for control in controls(make(), world, 12, seen=seen, begin=begin):
        control.check(world.topology, world.budget_hz, tolerance=1e-12)
        assert ((control.bandwidth_hz > 0.0) == control.in_use).all()
        hears = sum_rows(control.in_use, world.topology.indptr) > 0
        used_hz = sum_rows(control.bandwidth_hz, world.topology.indptr)
        np.testing.assert_allclose(used_hz[hears], world.budget_hz[hears], rtol=1e-12)


@every
def test_a_network_of_nobody_or_of_one_is_no_reason_to_stop(make: Callable[[], Controller]) -> None:
    goes_on(make, random_world(5, Topology(0, [], [])))
    goes_on(make, random_world(5, Topology(1, [], [])))


@every
def test_a_node_without_band_and_links_without_reach_are_left_out(make: Callable[[], Controller]) -> None:
    goes_on(make, replace(WORLD, budget_hz=np.where(np.arange(6) == 2, 0.0, WORLD.budget_hz)))
    goes_on(make, replace(WORLD, budget_hz=np.zeros(6)))
    goes_on(make, replace(WORLD, efficiency=np.zeros_like(WORLD.efficiency)))


@every
def test_payloads_of_nothing_and_payloads_nobody_counted_still_leave_every_link_its_band(
    make: Callable[[], Controller],
) -> None:
    for bits in (0.0, np.nan):
        goes_on(make, WORLD, lambda round, bits=bits: replace(observation(WORLD, round), payload_bits=np.full(6, bits)))


@every
def test_a_link_that_carries_without_end_still_gets_its_band(make: Callable[[], Controller]) -> None:
    def endless(round: int) -> Observation:
        seen = observation(WORLD, round)
        one = np.arange(WORLD.topology.links) == 3
        return replace(seen, spectral_efficiency=np.where(one, np.inf, seen.spectral_efficiency))

    goes_on(make, WORLD, endless)
    goes_on(make, replace(WORLD, efficiency=np.where(np.arange(30) % 7 == 3, np.inf, WORLD.efficiency)), bits=0.0)


@every
def test_a_node_said_to_take_for_ever_or_less_than_no_time_counts_as_silent(make: Callable[[], Controller]) -> None:
    def said(value: float) -> Callable[[int], Observation]:
        def shown(round: int) -> Observation:
            seen = observation(WORLD, round)
            stuck = (np.arange(6) == 1) & (round % 4 == 3)
            return replace(seen, processing_s=np.where(stuck, value, seen.processing_s))

        return shown

    silent = list(controls(make(), WORLD, 12, seen=said(np.nan)))
    for value in (np.inf, -1.0):
        goes_on(make, WORLD, said(value))
        for left, right in zip(controls(make(), WORLD, 12, seen=said(value)), silent, strict=True):
            np.testing.assert_array_equal(left.weights, right.weights)
            np.testing.assert_array_equal(left.bandwidth_hz, right.bandwidth_hz)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -1.0])
def test_a_time_that_is_none_leaves_the_moving_mean_of_the_others_and_its_own_alone(value: float) -> None:
    memory = no_memory(THREE)
    for seen in (ROUND, replace(ROUND, processing_s=np.array([2.0, value, 1.5]))):
        known, memory = look_at_links(memory, THREE, seen, "receiver", smoothing=0.5)
    np.testing.assert_array_equal(memory["processing_s"], [1.5, 0.5, 1.5])
    assert known.silent is not None
    assert known.heard is not None
    np.testing.assert_array_equal(known.silent, THREE.sender == 1)
    np.testing.assert_array_equal(known.heard, (THREE.sender != 1) & (THREE.receiver != 1))


def test_bands_are_handed_on_at_once_where_a_link_has_nothing_to_carry() -> None:
    known, _ = look_at_links(
        no_memory(THREE), THREE, replace(ROUND, payload_bits=np.array([2e6, 0.0, 2e6])), "receiver"
    )
    after = drop_links(THREE, EQUAL, np.full(3, 10e6), np.array([1]), hand_over="min-max", known=known)
    np.testing.assert_allclose(after.bandwidth_hz[:2], [10e6, 0.0])
    after.check(THREE, np.full(3, 10e6), tolerance=1e-12)


def test_a_link_out_of_reach_is_not_woken_up_though_it_was_in_use_within_tau_rounds() -> None:
    world = random_world(3)

    def shown(gone: int) -> Callable[[int], Observation]:
        def fading(round: int) -> Observation:
            seen, away = observation(world, round), np.arange(30) == gone
            return replace(seen, spectral_efficiency=np.where(away & (round >= 8), 0.0, seen.spectral_efficiency))

        return fading

    controller = Dcent(step_cap=0.5, prune_below=0.15, connect="within tau", tau=4, smoothing=1.0)
    plain = np.array([control.in_use for control in controls(controller, world, 30)])
    woken = np.flatnonzero((plain[9:] & ~plain[8:-1]).any(axis=0) & ~plain[8])
    assert len(woken) > 0
    for link in woken.tolist():
        used = np.array([control.in_use[link] for control in controls(controller, world, 30, seen=shown(link))])
        assert not used[8:].any()


@pytest.mark.parametrize(
    "forecast", [Last(), Ewma(), Mean(), MeanPlusDeviation(pooled=True), Quantile(), Quantile(pooled=True), Shrunk()]
)
def test_a_forecast_passes_over_what_has_no_end(forecast: Forecast) -> None:
    told, spared = forecast.init(2), forecast.init(2)
    for value in (1.0, np.inf, 3.0, np.inf):
        told = forecast.update(told, np.array([value, 2.0]))
        spared = forecast.update(spared, np.array([value if value < np.inf else np.nan, 2.0]))
    np.testing.assert_array_equal(forecast.expected(told), forecast.expected(spared))


def test_a_quantile_is_that_of_what_each_node_said_whoever_was_silent() -> None:
    values = np.random.default_rng(3).normal(size=(20, 7))
    values[np.random.default_rng(4).random((20, 7)) < 0.4] = np.nan
    values[:, 5] = np.nan
    for q in (0.0, 0.3, 0.8, 1.0):
        forecast = Quantile(q)
        state = forecast.init(7)
        for row in values:
            state = forecast.update(state, row)
        known = [np.quantile(column[~np.isnan(column)], q) for column in np.delete(values, 5, axis=1).T]
        np.testing.assert_allclose(np.delete(forecast.expected(state), 5), known, rtol=1e-13)
        assert np.isnan(forecast.expected(state)[5])


def test_a_node_that_never_ends_costs_nothing_where_its_own_weight_is_0() -> None:
    seen = replace(ROUND, processing_s=np.array([1.0, 0.5, np.inf]))
    alone = Control(EQUAL.weights, np.array([1 / 3, 1 / 3, 0.0]), EQUAL.bandwidth_hz)
    np.testing.assert_allclose(self_costs(alone, seen), [1 / 3, 0.5 / 3, 0.0])
    assert objective(THREE, alone, seen) == np.inf  # it is waited for all the same


def test_nothing_to_send_over_a_link_without_band_is_not_known_to_take_any_time() -> None:
    seen = replace(ROUND, payload_bits=np.zeros(3))
    assert np.isnan(seen.transfer_s(THREE, np.zeros(6))).all()
    band_hz, ends_s = min_max_bandwidth(THREE, np.ones(6, bool), np.full(3, 10e6), seen)
    np.testing.assert_allclose(sum_rows(band_hz, THREE.indptr), 10e6, rtol=1e-12)
    np.testing.assert_allclose(ends_s, [1.5, 1.5, 1.0], rtol=1e-12)  # when the last sender is ready


def test_what_is_known_stands_where_no_number_was_measured() -> None:
    known = remember(start(WORLD))
    seen = observation(WORLD, 1)
    holes = replace(seen, spectral_efficiency=np.where(np.arange(30) % 2, np.inf, np.nan))
    np.testing.assert_array_equal(look(known, holes)["spectral_efficiency"], known["spectral_efficiency"])


def test_links_that_are_to_get_more_than_there_is_are_refused_by_node() -> None:
    at_least_hz = np.array([1e6, 1e6, 6e6, 4e6, 0.0, 0.0])
    with pytest.raises(TopologyError, match=r"node 1 are to get 1e\+07 Hz at least"):
        weighted_optimum(THREE, np.full(3, 10e6), ROUND, at_least_hz=at_least_hz)


def test_a_world_with_the_band_among_its_resources_or_one_twice_is_refused() -> None:
    for resources in ((Bandwidth(),), (CPU, CPU)):
        with pytest.raises(ConfigError, match="each once, and not the band"):
            WithResources(WORLD, resources, LENET_BITS)


def test_a_static_control_of_several_resources_keeps_what_it_allots() -> None:
    plain = equal_control(WORLD.topology, WORLD.budget_hz)
    told = ResourceControl(plain.weights, plain.self_weights, plain.bandwidth_hz, {CPU.name: np.full(30, 2e8)})
    for control in controls(Static(told), WORLD, 3):
        assert isinstance(control, ResourceControl)
        np.testing.assert_array_equal(control.amount(CPU.name), np.full(30, 2e8))
    assert type(restored(plain.saved())) is Control
