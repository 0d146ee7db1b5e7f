"""`RadioWorld` and the named set-ups: pure in the round, and the networks they are said to be."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.coverage.mobility import RandomWalk, Still
from flower_edge.errors import ConfigError, TopologyError
from flower_edge.topology.network_plot import plot_networks
from flower_edge.topology.path_loss import D2D_NLOS
from flower_edge.topology.processing import GivenProcessing, NormalProcessing
from flower_edge.topology.radio_world import RadioWorld, within_range
from flower_edge.topology.set_ups import AREA_M, LENET_BITS, SET_UPS, set_up
from flower_edge.topology.shadowing import Shadowing
from flower_edge.topology.shannon import ShannonRadio
from flower_edge.topology.stability import link_stability, stability_seen
from flower_edge.topology.topology import Topology
from flower_edge.topology.world import World


def everything(world: World, round: int) -> list[np.ndarray]:
    positions_m = world.positions_m(round)
    assert positions_m is not None
    return [positions_m, world.processing_s(round), world.spectral_efficiency(round), world.latency_s(round)]


@pytest.mark.parametrize("name", SET_UPS)
def test_a_round_is_the_same_whatever_was_asked_before(name: str) -> None:
    world, again, other = set_up(name, 3), set_up(name, 3), set_up(name, 4)
    late, early = everything(world, 20), everything(world, 2)
    for expected, round in ((early, 2), (late, 20)):
        for one, two in zip(expected, everything(again, round), strict=True):
            np.testing.assert_array_equal(one, two)
    assert (other.spectral_efficiency(2) != early[2]).any()
    assert (other.processing_s(2) != early[1]).all()
    assert world.topology == Topology.complete(15)
    np.testing.assert_array_equal(world.topology.positions_m, world.positions_m(1))


@pytest.mark.parametrize("name", ["nlos", "nlos-shadowed", "nlos-per-device"])
def test_nodes_behave_the_same_among_more_of_them(name: str) -> None:
    few, many = set_up(name, 1, nodes=6), set_up(name, 1, nodes=12)
    np.testing.assert_array_equal(few.processing_s(5), many.processing_s(5)[:6])
    dense = many.topology.dense(many.spectral_efficiency(5))[:6, :6]
    np.testing.assert_array_equal(few.topology.dense(few.spectral_efficiency(5)), dense)


def test_the_world_answers_with_arrays_nobody_can_spoil() -> None:
    world = set_up("nlos-shadowed", 0)
    for array in (world.spectral_efficiency(1), world.latency_s(1), world.carrier(1), world.budget_hz):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_nodes_stay_in_the_area_and_walk_as_far_as_said() -> None:
    for name, step_m in (("nlos", 0.1), ("nlos-fast", 5.0)):
        world = set_up(name, 2)
        ways_m = np.stack([world.positions_m(t) for t in range(1, 152)])
        assert (ways_m >= 0).all()
        assert (ways_m <= AREA_M).all()
        walked_m = np.hypot(*np.moveaxis(np.diff(ways_m, axis=0), 2, 0))
        assert (walked_m < step_m * (1 + 1e-9)).all()  # less where the border reflected
        assert np.median(walked_m) == pytest.approx(step_m)


def test_links_of_the_nlos_set_up_are_as_weak_as_published() -> None:
    drawn = np.concatenate([set_up("nlos", seed).spectral_efficiency(1) for seed in range(40)])
    tenth, median, ninetieth = np.percentile(drawn, [10, 50, 90])
    # One draw of the reconstruction: .17, .8, 4.9. Single draws differ by half of that.
    assert 0.13 < tenth < 0.21
    assert 0.6 < median < 1.1
    assert 4.0 < ninetieth < 5.8


def equal_split_s(world: RadioWorld, round: int) -> float:
    """Until the last node has heard all others, everybody sharing the budget out evenly."""
    topology = world.topology
    band_hz = (world.budget_hz / topology.in_degree)[topology.receiver]
    transfer_s = LENET_BITS / (band_hz * world.spectral_efficiency(round)) + world.latency_s(round)
    return float((world.processing_s(round)[topology.sender] + transfer_s).max())


@pytest.mark.parametrize(
    ("name", "low_s", "high_s"),
    [
        ("nlos", 21, 31),
        ("macro", 2.15, 2.3),
        ("los", 1.85, 2.05),
        ("nlos-10mhz-nf9", 150, 250),
        ("macro-5mhz", 2.7, 3.2),
    ],
)
def test_an_equal_split_takes_as_long_as_in_the_reconstruction(name: str, low_s: float, high_s: float) -> None:
    rounds_s = [equal_split_s(set_up(name, seed), t) for seed in range(8) for t in (1, 51, 101)]
    assert low_s < np.mean(rounds_s) < high_s


def test_set_ups_differ_in_what_they_say() -> None:
    nlos = set_up("nlos", 0)
    assert set_up("nlos-capped", 0).spectral_efficiency(1).max() == 7.4 < nlos.spectral_efficiency(1).max()
    assert (set_up("macro", 0).spectral_efficiency(1) > nlos.spectral_efficiency(1)).all()
    assert (set_up("nlos-10mhz-nf9", 0).spectral_efficiency(1) < nlos.spectral_efficiency(1)).all()
    assert (set_up("nlos-5mhz", 0).spectral_efficiency(1) > nlos.spectral_efficiency(1)).all()
    assert (set_up("nlos-5mhz", 0).budget_hz == 5e6).all()
    spread_s = [np.std([set_up(name, 0).processing_s(t) for t in range(1, 60)]) for name in ("nlos-sd33", "nlos")]
    assert spread_s[0] == pytest.approx(0.33, abs=0.02)
    assert spread_s[1] > 0.4
    with pytest.raises(ConfigError, match="set-up 'urban' is not known; give one of: nlos, macro"):
        set_up("urban", 0)


def test_a_round_of_ten_thousand_nodes_holds_nothing_in_nodes_times_nodes() -> None:
    nodes, side_m = 10_000, 4430.0
    walk = RandomWalk(nodes, (side_m, side_m), 0.1, 1.0, seed=0)
    topology = within_range(walk.positions_m(0.0), 100.0)
    assert 14 < topology.links / nodes < 18
    world = RadioWorld(walk, topology=topology, shadowing=Shadowing(7.0, 0), processing=NormalProcessing(nodes, seed=0))
    tracemalloc.start()
    world.spectral_efficiency(1), world.processing_s(1)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 40e6  # a single matrix would be 800 MB


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=12), st.floats(1, 150))
@settings(max_examples=50)
def test_links_within_a_range_are_all_of_them_and_no_others(places: list[tuple[float, float]], range_m: float) -> None:
    topology = within_range(places, range_m)
    expected = {
        (i, j)
        for i, here in enumerate(places)
        for j, there in enumerate(places)
        if i != j and np.hypot(here[0] - there[0], here[1] - there[1]) <= range_m
    }
    assert set(zip(topology.receiver.tolist(), topology.sender.tolist(), strict=True)) == expected


def test_links_come_and_go_with_distance() -> None:
    class Leaving:
        """One stands; the other goes away, 10 m a second."""

        nodes = 2

        def positions_m(self, time_s: float) -> np.ndarray:
            return np.array([[0.0, 0.0], [10.0 * time_s, 0.0]])

    world = RadioWorld(Leaving(), radio=ShannonRadio(range_m=50.0), round_s=2.0)
    carries = [bool((world.spectral_efficiency(t) > 0).all()) for t in range(1, 7)]
    assert carries == [True, True, True, False, False, False]
    assert world.carriers(3) == ["radio", "radio"]
    assert world.carriers(4) == [None, None]
    np.testing.assert_allclose(link_stability(world, 6), 0.5)
    np.testing.assert_allclose(link_stability(world, 2, since=3), 0.5)


def test_the_most_stable_node_is_the_one_whose_links_hold() -> None:
    world = RadioWorld(Still([[0, 0], [10, 0], [20, 0], [400, 0]]))
    stable = link_stability(world, 5, least=1.0)
    np.testing.assert_allclose(stable, [2 / 3, 2 / 3, 2 / 3, 0])
    assert (link_stability(world, 5) == 1).all()  # without a least, a trickle is a link
    assert (link_stability(world, 5, least=1e9) == 0).all()


def test_what_was_not_measured_counts_as_not_carried() -> None:
    topology = Topology(3, receiver=[0, 1], sender=[1, 0])
    np.testing.assert_array_equal(stability_seen(topology, [[np.nan, 2.0]]), [0.5, 0.5, 0.0])
    with pytest.raises(ConfigError, match="no round was seen"):
        stability_seen(topology, [])
    with pytest.raises(ConfigError, match="expected one for each of 2 links"):
        stability_seen(topology, [[1.0]])
    with pytest.raises(ConfigError, match="rounds = 0"):
        link_stability(set_up("nlos", 0), 0)


def test_shadows_that_change_are_seen_and_those_that_stay_are_not_drawn_again() -> None:
    still = Still([[0, 0], [100, 0], [0, 100]])
    constant = RadioWorld(still, shadowing=Shadowing(7.0, 0))
    np.testing.assert_array_equal(constant.spectral_efficiency(1), constant.spectral_efficiency(9))
    changing = RadioWorld(still, shadowing=Shadowing(7.0, 0, redrawn_every=2))
    seen = [changing.spectral_efficiency(t).copy() for t in (1, 2, 3, 1)]
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[3])
    assert (seen[0] != seen[2]).any()


def test_parts_that_do_not_fit_are_refused() -> None:
    still = Still([[0, 0], [1, 1]])
    for options, words in (
        ({"processing": GivenProcessing([[1.0]], repeat=True)}, "mobility has 2 nodes and processing 1"),
        ({"topology": Topology.complete(3)}, "mobility has 2 nodes and topology 3"),
        ({"budget_hz": [1e6, 0.0]}, "give every node some band"),
        ({"round_s": 0.0}, "round_s = 0.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            RadioWorld(still, **options)
    with pytest.raises(ConfigError, match="round = 0; rounds count from 1"):
        RadioWorld(still).spectral_efficiency(0)
    for places in ([0, 0, 9, 9], [[0, 0], [1, np.nan]]):
        with pytest.raises(ConfigError, match="positions_m"):
            within_range(places, 50.0)


def test_a_world_without_links_or_nodes_is_a_world() -> None:
    alone = RadioWorld(Still([[0, 0]]), radio=ShannonRadio(D2D_NLOS))
    assert alone.spectral_efficiency(1).shape == alone.latency_s(1).shape == (0,)
    assert alone.processing_s(1).shape == (1,)
    np.testing.assert_array_equal(link_stability(alone, 3), [0.0])
    nobody = RadioWorld(Still(np.zeros((0, 2))))
    assert nobody.topology.nodes == 0
    assert nobody.processing_s(1).shape == (0,)


def words_of(svg: Path) -> str:
    """matplotlib leaves the text of each label as a comment beside its glyphs."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    return " ".join(e.text or "" for e in ET.parse(svg, parser).iter() if e.tag is ET.Comment)


def test_a_picture_of_networks_counts_their_links(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    world = set_up("nlos", 0, nodes=4)
    start, end = np.full(12, 0.25), np.where(np.arange(12) % 3 == 0, 0.5, 0.0)
    networks = {"start": (world.positions_m(1), start), "end": (world.positions_m(150), end)}
    words = words_of(plot_networks(world.topology, networks, tmp_path / "networks.svg", title="pruned"))
    for expected in (
        "start: 12 of 12 links in use",
        "end: 4 of 12 links in use",
        "pruned",
        "x (m)",
        "half a line: in one direction only",
    ):
        assert expected in words
    assert (
        plot_networks(world.topology, {"none": (world.positions_m(1), np.zeros(12))}, tmp_path / "a.png").stat().st_size
    )
    with pytest.raises(TopologyError, match="end: expected 12 weights"):
        plot_networks(world.topology, {"end": (world.positions_m(1), np.ones(3))}, tmp_path / "b.svg")
    with pytest.raises(TopologyError, match=r"end: positions of shape \(1, 2\)"):
        plot_networks(world.topology, {"end": ([[0, 0]], start)}, tmp_path / "b.svg")
    with pytest.raises(ConfigError, match="no network to draw"):
        plot_networks(world.topology, {}, tmp_path / "b.svg")
