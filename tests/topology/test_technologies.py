"""Links that choose their technology: by range and rate, directly or through an intermediary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.coverage.mobility import Still
from flower_edge.errors import ConfigError
from flower_edge.topology.path_loss import D2D_NLOS, PowerLaw
from flower_edge.topology.radio_world import RadioWorld
from flower_edge.topology.shadowing import Shadowing
from flower_edge.topology.technologies import (
    BLUETOOTH,
    LTE_DIRECT,
    OPERATOR,
    WIFI_DIRECT,
    Intermediary,
    Technologies,
    Technology,
)

ROUTER = Intermediary("router", (100.0, 0.0), up=(WIFI_DIRECT,), latency_s=0.002)


def in_a_line(*x_m: float, **options: object) -> RadioWorld:
    return RadioWorld(Still([[x, 0.0] for x in x_m]), **options)  # type: ignore[arg-type]


def rate_bps(technology: Technology, distance_m: float) -> float:
    return float(technology.rate_bps(np.array([distance_m]))[0])


@pytest.mark.parametrize(
    ("distance_m", "name"),
    [
        (5.0, "WiFi Direct"),
        (199.0, "WiFi Direct"),
        (201.0, "LTE Direct"),
        (500.0, "LTE Direct"),
        (501.0, None),
    ],
)
def test_range_decides_between_the_technologies_of_the_document(distance_m: float, name: str | None) -> None:
    world = in_a_line(0, distance_m, radio=Technologies())
    assert world.carriers(1) == [name, name]
    assert (world.spectral_efficiency(1) > 0).all() == (name is not None)


def test_rate_decides_among_those_in_range() -> None:
    without_wifi = Technologies(direct=(BLUETOOTH, LTE_DIRECT))
    assert in_a_line(0, 8, radio=without_wifi).carriers(1) == ["Bluetooth"] * 2
    anywhere = Technology("LTE anywhere", 20e6, 23.0, D2D_NLOS, most_m=500.0, cap=5.55)
    both = Technologies(direct=(WIFI_DIRECT, anywhere))
    assert in_a_line(0, 150, radio=both).carriers(1) == ["LTE anywhere"] * 2
    assert rate_bps(anywhere, 150) > rate_bps(WIFI_DIRECT, 150)


@given(st.floats(1e5, 1e8), st.floats(1e5, 1e8))
@settings(max_examples=20)
def test_a_budget_of_another_size_changes_no_rate(one_hz: float, other_hz: float) -> None:
    world = in_a_line(0, 150, radio=Technologies(), budget_hz=[one_hz, other_hz])
    all_of_it_bps = world.spectral_efficiency(1) * world.budget_hz[world.topology.receiver]
    np.testing.assert_allclose(all_of_it_bps, rate_bps(WIFI_DIRECT, 150.0))


def test_through_a_router_the_two_parts_of_the_way_take_their_times_one_after_the_other() -> None:
    world = in_a_line(0, 240, radio=Technologies(direct=(), through=(ROUTER,)), budget_hz=1e6)
    bits = 1e6
    expected_s = bits / rate_bps(WIFI_DIRECT, 100) + bits / rate_bps(WIFI_DIRECT, 140)
    np.testing.assert_allclose(bits / (1e6 * world.spectral_efficiency(1)), expected_s)
    np.testing.assert_array_equal(world.latency_s(1), 0.002)
    assert world.carriers(1) == ["router", "router"]


def test_a_link_goes_through_an_intermediary_only_where_that_is_faster() -> None:
    world = in_a_line(0, 20, 230, radio=Technologies(direct=(WIFI_DIRECT, LTE_DIRECT), through=(ROUTER,)))
    carriers = dict(
        zip(zip(world.topology.receiver, world.topology.sender, strict=True), world.carriers(1), strict=True)
    )
    assert carriers[0, 1] == carriers[1, 0] == "WiFi Direct"
    assert carriers[0, 2] == carriers[2, 0] == "router"  # 230 m: LTE is slower than 100 m and 130 m of WiFi
    assert (world.latency_s(1)[world.carrier(1) == 0] == 0).all()


def test_latency_counts_for_small_payloads() -> None:
    slow_start = Technology("slow start", 100e6, 30.0, D2D_NLOS, latency_s=1.0)
    for bits, name in ((1e4, "WiFi Direct"), (1e9, "slow start")):
        world = in_a_line(0, 100, radio=Technologies(direct=(WIFI_DIRECT, slow_start), reference_bits=bits))
        assert world.carriers(1) == [name, name]


def test_a_node_relays_for_others_but_not_on_its_own_links() -> None:
    relay = Intermediary("node 1", 1, up=(WIFI_DIRECT,))
    world = in_a_line(0, 190, 380, radio=Technologies(direct=(), through=(relay,)))
    heard = world.topology.dense(world.spectral_efficiency(1))
    assert heard[0, 2] > 0
    assert heard[2, 0] > 0
    assert heard[1].sum() == 0
    assert heard[:, 1].sum() == 0


def test_the_operators_network_reaches_where_nothing_else_does_and_takes_its_latency() -> None:
    base_station = Intermediary("base station", (1000.0, 0.0), up=(OPERATOR,), latency_s=0.03)
    world = in_a_line(0, 2000, radio=Technologies(through=(base_station,)))
    assert world.carriers(1) == ["base station"] * 2
    np.testing.assert_allclose(world.latency_s(1), 2 * OPERATOR.latency_s + 0.03)


def test_down_may_be_another_technology_than_up() -> None:
    strong = Technology("strong", 20e6, 46.0, D2D_NLOS)
    one_way = Intermediary("mast", (0.0, 50.0), up=(WIFI_DIRECT,), down=(strong,))
    world = in_a_line(-100, 100, radio=Technologies(direct=(), through=(one_way,)), budget_hz=1.0)
    hop_m = float(np.hypot(100, 50))
    expected_s = 1 / rate_bps(WIFI_DIRECT, hop_m) + 1 / rate_bps(strong, hop_m)
    np.testing.assert_allclose(world.spectral_efficiency(1), 1 / expected_s)


POSITIONS = st.lists(st.tuples(st.floats(0, 600), st.floats(0, 600)), min_size=2, max_size=7)


@given(POSITIONS, st.integers(0, 99), st.booleans())
@settings(max_examples=60)
def test_every_link_takes_the_fastest_of_all_its_ways(
    places_m: list[tuple[float, float]], seed: int, shaded: bool
) -> None:
    relay = Intermediary("relay", 0, up=(BLUETOOTH, WIFI_DIRECT), latency_s=0.01)
    base = Intermediary("base", (300.0, 300.0), up=(OPERATOR,), latency_s=0.02)
    radio = Technologies(through=(ROUTER, relay, base))
    shadowing = Shadowing(7.0, seed) if shaded else None
    world = RadioWorld(Still(places_m), radio=radio, shadowing=shadowing, budget_hz=1e6)

    def gain(i: int, j: int) -> np.ndarray | None:
        return None if shadowing is None else shadowing.gain_ratio(np.array([i]), np.array([j]), 1)

    def hop(technologies: tuple[Technology, ...], i: int, j: int, here: tuple, there: tuple) -> tuple[float, float]:
        """Latency and seconds per bit of the fastest."""
        distance_m = np.array([np.hypot(here[0] - there[0], here[1] - there[1])])
        ways = [(way.latency_s, float(way.rate_bps(distance_m, gain(i, j))[0])) for way in technologies]
        usable = [(latency_s, 1 / rate) for latency_s, rate in ways if rate > 0]
        return min(usable, key=lambda way: way[0] + way[1] * 2e6, default=(0.0, np.inf))

    for k, (i, j) in enumerate(zip(world.topology.receiver.tolist(), world.topology.sender.tolist(), strict=True)):
        found = [hop(radio.direct, i, j, places_m[i], places_m[j])]
        for number, way in enumerate(radio.through):
            if isinstance(way.at, int) and way.at in (i, j):
                continue
            place, ident = (places_m[way.at], way.at) if isinstance(way.at, int) else (way.at, 2**31 + number)
            up, down = hop(way.up, ident, j, places_m[j], place), hop(way.up, i, ident, places_m[i], place)
            found.append((up[0] + down[0] + way.latency_s, up[1] + down[1]))
        fastest_s = min(latency_s + 2e6 * s_per_bit for latency_s, s_per_bit in found)
        taken_s = world.latency_s(1)[k] + 2e6 / (1e6 * world.spectral_efficiency(1)[k])
        assert taken_s == pytest.approx(fastest_s, rel=1e-9)


def test_what_cannot_be_is_refused_by_name() -> None:
    for make, words in (
        (lambda: Technologies(direct=(), through=()), "give one or more, all different"),
        (lambda: Technologies(direct=(WIFI_DIRECT, WIFI_DIRECT)), "all different"),
        (lambda: Technologies(reference_bits=0), "reference_bits = 0"),
        (lambda: Technology("", 1e6, 0.0, D2D_NLOS), "a technology without a name"),
        (lambda: Technology("x", 0.0, 0.0, D2D_NLOS), "x: band_hz = 0.0"),
        (lambda: Technology("x", 1e6, float("nan"), D2D_NLOS), "finite decibels"),
        (lambda: Technology("x", 1e6, 0.0, D2D_NLOS, most_m=5.0, least_m=9.0), "from 9.0 to 5.0 m"),
        (lambda: Technology("x", 1e6, 0.0, D2D_NLOS, latency_s=-1.0), "latency_s = -1.0"),
        (lambda: Intermediary("x", 0, up=()), "what it is reached by"),
        (lambda: Intermediary("x", -1, up=(OPERATOR,)), "at = -1 is no node"),
        (lambda: Intermediary("x", True, up=(OPERATOR,)), "at = True is no node"),
        (lambda: Intermediary("x", (0.0, np.inf), up=(OPERATOR,)), "in metres, or a node"),
        (lambda: Intermediary("x", 0, up=(OPERATOR,), latency_s=-1.0), "latency_s = -1.0"),
        (lambda: PowerLaw(100.0, 40.0, least_m=0.0), "least_m = 0.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()
    assert Intermediary("x", np.int64(3), up=(OPERATOR,)) == Intermediary("x", 3, up=(OPERATOR,))
    with pytest.raises(ConfigError, match="is node 7; nodes go from 0 to 1"):
        in_a_line(0, 9, radio=Technologies(through=(Intermediary("far", 7, up=(OPERATOR,)),))).spectral_efficiency(1)
