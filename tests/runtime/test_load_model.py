"""Load and battery in simulation: functions of time, the same in any order and for one terminal or all."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.conditions import answer_conditions
from flower_edge.errors import ConfigError
from flower_edge.runtime import Device, Link, LocalGrid, VirtualClock
from flower_edge.runtime.clock.load_model import LoadModel
from flower_edge.runtime.queries import ask_nodes


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(0, 100), st.floats(0, 1e6), st.floats(0, 0.3))
def test_one_terminal_alone_and_among_all_tell_the_same_at_any_time(
    nodes: int, seed: int, time_s: float, swing: float
) -> None:
    model = LoadModel(nodes, seed, swing=swing)
    columns = model.columns(time_s)
    for key in range(nodes):
        told = model.at(key, time_s)
        assert told.load == columns["load"][key]
        assert 0.0 <= columns["load"][key] <= model.most
        assert (math.nan if told.battery is None else told.battery) == pytest.approx(
            columns["battery"][key], nan_ok=True
        )
        assert told.charging == (None if told.battery is None else bool(columns["charging"][key]))
        assert model.slowdown(key, time_s) == min(10.0, 1.0 / (1.0 - columns["load"][key]))


def test_time_can_be_asked_in_any_order_and_by_a_copy() -> None:
    model = LoadModel(5, seed=3)
    times_s = [0.0, 1e5, 60.0, 3e4]
    there = [model.columns(time_s)["load"].tolist() for time_s in times_s]
    copy = pickle.loads(pickle.dumps(LoadModel(5, seed=3)))  # noqa: S301  our own bytes
    back = [copy.columns(time_s)["load"].tolist() for time_s in reversed(times_s)]
    assert there == back[::-1]
    assert there[0] != there[1]
    assert LoadModel(5, seed=4).columns(0.0)["load"].tolist() != there[0]


def test_a_terminal_does_not_change_when_others_are_added() -> None:
    few, many = LoadModel(7, seed=1), LoadModel(200, seed=1)
    for time_s in (0.0, 12345.0):
        for name, column in few.columns(time_s).items():
            np.testing.assert_array_equal(column, many.columns(time_s)[name][:7])


def test_a_load_stays_for_a_tick_and_then_moves_on() -> None:
    model = LoadModel(20, seed=1, tick_s=30.0)
    assert model.columns(0.0)["load"].tolist() == model.columns(29.9)["load"].tolist()
    assert model.columns(30.0)["load"].tolist() != model.columns(29.9)["load"].tolist()


def test_the_noise_has_its_variance_and_forgets_in_its_memory() -> None:
    model = LoadModel(400, seed=2, mean=0.5, spread=0.0, noise=0.05, memory_s=300.0, tick_s=60.0)
    loads = np.array([model.columns(60.0 * tick)["load"] for tick in range(40)])
    assert loads.mean() == pytest.approx(0.5, abs=0.005)
    assert loads.std() == pytest.approx(0.05, rel=0.05)
    for lag in (1, 5):
        kept = np.mean((loads[:-lag] - 0.5) * (loads[lag:] - 0.5)) / loads.var()
        assert kept == pytest.approx(math.exp(-lag * 60.0 / 300.0), abs=0.05)


def test_terminals_differ_by_their_spread_and_by_nothing_else_without_noise() -> None:
    model = LoadModel(4000, seed=2, mean=0.5, spread=0.1, noise=0.0)
    loads = model.columns(0.0)["load"]
    assert loads.mean() == pytest.approx(0.5, abs=0.01)
    assert loads.std() == pytest.approx(0.1, rel=0.05)
    np.testing.assert_array_equal(loads, model.columns(1e5)["load"])


def test_the_load_follows_the_day() -> None:
    model = LoadModel(1, seed=2, mean=0.5, spread=0.0, noise=0.0, swing=0.2, day_s=1000.0)
    loads = np.array([model.columns(time_s)["load"][0] for time_s in range(1000)])
    assert (loads.min(), loads.max()) == (pytest.approx(0.3, abs=1e-4), pytest.approx(0.7, abs=1e-4))
    assert loads[0] == pytest.approx(model.columns(1000.0)["load"][0])


def test_a_battery_drains_until_it_is_put_on_the_mains_and_is_full_again() -> None:
    model = LoadModel(30, seed=5, on_battery=1.0, drain_s=80.0, charge_s=20.0, lowest=0.2)
    told = [model.columns(float(time_s)) for time_s in range(101)]
    battery = np.array([columns["battery"] for columns in told])
    charging = np.array([columns["charging"] for columns in told])
    assert battery.min() >= 0.2
    assert battery.max() <= 1.0
    np.testing.assert_allclose(battery[0], battery[100])
    assert set(charging[:100].sum(axis=0)) <= {19.0, 20.0, 21.0}
    moves = np.diff(battery, axis=0)
    same = charging[1:] == charging[:-1]
    np.testing.assert_allclose(moves[same & (charging[1:] == 0)], -0.8 / 80.0)
    np.testing.assert_allclose(moves[same & (charging[1:] == 1)], 0.8 / 20.0)


def test_the_share_on_battery_is_kept_and_the_others_tell_none() -> None:
    columns = LoadModel(4000, seed=1, on_battery=0.25).columns(0.0)
    assert np.isfinite(columns["battery"]).mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(np.isnan(columns["battery"]), np.isnan(columns["charging"]))
    nobody = LoadModel(10, on_battery=0.0).columns(0.0)
    assert np.isnan(nobody["battery"]).all()


def test_terminals_on_a_virtual_clock_tell_the_conditions_of_its_time() -> None:
    model = LoadModel(3, seed=1, tick_s=1.0, memory_s=2.0)
    with LocalGrid(answer_conditions(ClientApp(), model.source), nodes=3) as local:
        clock = VirtualClock(local, [Device()] * 3, [Link(latency_s=5.0)] * 3)
        for _ in range(2):
            now_s = clock.now_s
            told = ask_nodes(clock, [1000, 1001, 1002], "conditions")
            assert [told[1000 + key]["load"] for key in range(3)] == model.columns(now_s)["load"].tolist()
        assert now_s > 0


def test_without_a_virtual_clock_it_is_the_beginning_of_time() -> None:
    model = LoadModel(3, seed=1)
    context = Context(1, 1002, {"partition-id": 2}, RecordDict(), {})
    assert model.source(context, None) == model.at(2, 0.0) == model.at("2", 0.0)


@pytest.mark.parametrize("key", [3, -1, "x"])
def test_a_terminal_that_is_none_of_them_is_refused(key: int | str) -> None:
    with pytest.raises(ConfigError, match="none of the 3 of this LoadModel"):
        LoadModel(3).at(key, 0.0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"nodes": 0}, "nodes=0"),
        ({"mean": 1.5}, "mean=1.5"),
        ({"tick_s": 0.0}, "tick_s=0.0"),
        ({"most": 1.0}, "most=1.0"),
        ({"slowest": 0.5}, "slowest=0.5"),
        ({"memory_s": 1e6, "tick_s": 1.0}, "at most 100 ticks"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        LoadModel(**{"nodes": 2, **options})  # type: ignore[arg-type]
