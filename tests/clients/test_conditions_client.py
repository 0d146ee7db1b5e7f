"""A terminal measures and tells its conditions; a source that fails never costs the training."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.clients.conditions import ConditionsMod, answer_conditions, conditions_mod
from flower_edge.clients.measure import measure_conditions
from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.conditions import Conditions
from flower_edge.runtime import LocalGrid, SteppedGrid
from flower_edge.runtime.queries import ask_nodes, conditions_of
from flower_edge.wire import record_of

# -- measuring -------------------------------------------------------------------------------------------------------


def machine(root: Path) -> Path:
    """A folder that looks like a Linux machine with a battery."""
    files = {
        "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n",
        "proc/meminfo": "MemTotal:       4000 kB\nMemFree:  10 kB\nMemAvailable:   1000 kB\nHugePages_Total:       0\n",
        "sys/class/power_supply/AC/type": "Mains\n",
        "sys/class/power_supply/BAT0/type": "Battery\n",
        "sys/class/power_supply/BAT0/capacity": "43\n",
        "sys/class/power_supply/BAT0/status": "Discharging\n",
        "sys/class/thermal/thermal_zone0/temp": "41500\n",
        "sys/class/thermal/thermal_zone1/temp": "52000\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine_is_measured_with_real_values() -> None:
    seen = measure_conditions(interval_s=0.02)
    assert seen.dropped == ()
    assert seen.cpu_count is not None
    assert seen.cpu_count >= 1
    assert seen.disk_free_bytes is not None
    assert seen.disk_total_bytes is not None
    assert 0 <= seen.disk_free_bytes <= seen.disk_total_bytes
    assert seen.load is not None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_psutil_and_proc_agree_on_the_memory() -> None:
    pytest.importorskip("psutil")
    by_psutil, by_proc = measure_conditions(interval_s=0.02), measure_conditions(interval_s=0.02, psutil=False)
    assert by_psutil.memory_total_bytes == by_proc.memory_total_bytes
    assert by_psutil.memory_load == pytest.approx(by_proc.memory_load, abs=0.2)


def test_without_psutil_a_linux_machine_is_read_from_its_own_files(tmp_path: Path) -> None:
    seen = measure_conditions(root=machine(tmp_path), disk=tmp_path, interval_s=0, psutil=False)
    assert (seen.memory_free_bytes, seen.memory_total_bytes, seen.memory_load) == (1_024_000, 4_096_000, 0.75)
    assert (seen.battery, seen.charging, seen.temperature_c) == (0.43, False, 52.0)
    (tmp_path / "sys/class/power_supply/BAT0/status").write_text("Full\n")
    assert measure_conditions(root=tmp_path, interval_s=0, psutil=False).charging is True


def test_the_load_is_the_busy_share_of_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path)

    def work(seconds: float) -> None:
        assert seconds == 0.5
        (root / "proc/stat").write_text("cpu  120 0 110 760 110 0 0 0 0 0\n")  # 30 of 100 ticks busy

    monkeypatch.setattr("flower_edge.clients.measure.time.sleep", work)
    assert measure_conditions(root=root, interval_s=0.5, psutil=False).load == pytest.approx(0.3)


def test_a_source_that_fails_costs_its_own_values_only(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "proc/meminfo").write_text("nonsense\n")
    (root / "sys/class/power_supply/BAT0/capacity").write_text("?\n")
    (root / "sys/class/thermal/thermal_zone1/temp").write_text("9999999\n")
    seen = measure_conditions(root=root, disk=tmp_path / "absent", interval_s=0, psutil=False)
    assert seen.memory_total_bytes is seen.battery is seen.disk_free_bytes is seen.temperature_c is None
    assert seen.dropped == ("temperature_c",)
    assert seen.cpu_count is not None


def test_a_device_without_psutil_is_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert measure_conditions(interval_s=0).cpu_count is not None


def test_what_psutil_sees_goes_first_and_what_it_does_not_see_comes_from_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_by_psutil = SimpleNamespace(
        cpu_percent=lambda interval: 25.0,
        virtual_memory=lambda: SimpleNamespace(available=2048, total=8192),
        sensors_battery=lambda: SimpleNamespace(percent=80, power_plugged=None),
        sensors_temperatures=lambda: {
            "cpu": [SimpleNamespace(current=40.0), SimpleNamespace(current=61.0)],
            "none": [],
        },
    )
    monkeypatch.setitem(sys.modules, "psutil", seen_by_psutil)
    seen = measure_conditions(root=machine(tmp_path))
    assert (seen.load, seen.memory_total_bytes, seen.memory_load, seen.temperature_c) == (0.25, 8192, 0.75, 61.0)
    assert (seen.battery, seen.charging) == (0.8, False)  # the charge from psutil, the mains from /sys
    seen_by_psutil.sensors_battery = lambda: None
    del seen_by_psutil.sensors_temperatures
    seen = measure_conditions(root=tmp_path)
    assert (seen.battery, seen.temperature_c) == (0.43, 52.0)


def test_an_empty_machine_tells_little_and_raises_nothing(tmp_path: Path) -> None:
    seen = measure_conditions(root=tmp_path, disk=tmp_path / "absent", psutil=False, interval_s=0.01)
    assert set(seen.to_mapping()) <= {"cpu_count", "load"}


# -- telling ---------------------------------------------------------------------------------------------------------


def learner(*mods: Any) -> ClientApp:
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        steps = len(steps_of(message))
        metrics = MetricRecord({"num-examples": 4 * steps, "steps": steps})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


def order(kind: str = "train", node: int = 1000, **config: Any) -> Message:
    records = {"arrays": record_of({"w": np.zeros(2)}), "config": ConfigRecord({"local-steps": 8, **config})}
    return Message(RecordDict(records), node, kind)


def at_half_load(context: Context, now_s: float | None) -> Conditions:
    return Conditions(load=0.5, extra={"asked-at": -1.0 if now_s is None else now_s})


def failing(context: Context, now_s: float | None) -> Conditions:
    raise OSError("no sensor")


class Ticking:
    """A clock that moves by 2 s whenever it is read."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def __call__(self) -> float:
        self.time_s += 2.0
        return self.time_s


def test_conditions_come_with_the_training_reply_and_with_no_other() -> None:
    app = learner(ConditionsMod(at_half_load, clock=Ticking()))
    with LocalGrid(app, nodes=1, serialise=True, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([order(**{"now-s": 30.0})])
        (evaluated,) = grid.send_and_receive([order("evaluate")])
    assert conditions_of(reply) == Conditions(load=0.5, step_s=0.25, extra={"asked-at": 30.0})
    assert list(evaluated.content) == ["metrics"]


def test_the_measured_step_is_remembered_for_the_next_question_and_a_source_that_tells_it_wins() -> None:
    for source, expected in ((at_half_load, 0.25), (lambda context, now_s: Conditions(step_s=0.01), 0.01)):
        app = answer_conditions(learner(ConditionsMod(clock=Ticking(), source=source)), source)
        with LocalGrid(app, nodes=2) as grid:
            assert "step_s" not in ask_nodes(grid, [1001], "conditions")[1001] or expected == 0.01
            (reply,) = grid.send_and_receive([order()])
            assert ask_nodes(grid, [1000], "conditions")[1000]["step_s"] == expected
        found = conditions_of(reply)
        assert found is not None
        assert found.step_s == expected


@pytest.mark.parametrize("steps", [None, 0])
def test_a_training_that_counts_no_steps_has_no_pace(steps: int | None) -> None:
    app = ClientApp(mods=[ConditionsMod(at_half_load)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"n": 1} if steps is None else {"steps": steps})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    with LocalGrid(app, nodes=1, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict({"config": ConfigRecord()}), 1000, "train")])
    assert conditions_of(reply) == Conditions(load=0.5, extra={"asked-at": -1.0})


def test_in_a_simulation_no_real_time_gets_into_the_replies() -> None:
    with LocalGrid(learner(ConditionsMod(at_half_load, time_steps=False)), nodes=1) as grid:
        (reply,) = grid.send_and_receive([order()])
    assert conditions_of(reply) == Conditions(load=0.5, extra={"asked-at": -1.0})


@pytest.mark.parametrize("before", [True, False])
def test_sliced_tasks_tell_conditions_too_wherever_the_mod_stands(before: bool) -> None:
    mod = ConditionsMod(at_half_load, clock=Ticking())
    app = learner(mod, step_mod) if before else learner(step_mod, mod)
    with LocalGrid(app, nodes=1, serialise=True) as local:
        (reply,) = SteppedGrid(local, 3, poll_s=0.01).send_and_receive([order()])
    found = conditions_of(reply)
    assert found is not None
    assert (found.load, found.step_s) == (0.5, 1.0)  # 2 s for the last slice, of two steps
    assert reply.content["metrics"]["steps"] == 8


def test_a_source_that_fails_leaves_training_and_answers_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    app = answer_conditions(learner(ConditionsMod(failing, time_steps=False)), failing)
    with LocalGrid(app, nodes=1) as grid:
        (reply,) = grid.send_and_receive([order()])
        assert ask_nodes(grid, [1000], "conditions") == {1000: {}}
    assert reply.content["metrics"]["steps"] == 8
    assert conditions_of(reply) == Conditions()
    assert caplog.text.count("their source failed: OSError: no sensor") == 2


def test_a_source_may_hand_back_a_mapping_and_its_odd_values_are_left_out() -> None:
    app = answer_conditions(ClientApp(), lambda context, now_s: {"load": 0.5, "battery": 7.0, "site": "hall"})
    with LocalGrid(app, nodes=1) as grid:
        assert ask_nodes(grid, [1000], "conditions") == {1000: {"load": 0.5, "site": "hall"}}


def test_a_node_that_cannot_remember_its_pace_trains_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    node = {"partition-id": 0, "state-dir": str(tmp_path / "file")}
    with LocalGrid(learner(ConditionsMod(at_half_load)), nodes=[node]) as grid:
        (reply,) = grid.send_and_receive([order()])
    assert reply.content["metrics"]["steps"] == 8
    assert "step_s cannot be kept" in caplog.text


def test_flowers_own_strategy_does_not_notice_the_record() -> None:
    def result(app: ClientApp) -> Any:
        with LocalGrid(app, nodes=3) as grid:
            return FedAvg(fraction_evaluate=0.0).start(
                grid, record_of({"w": np.ones(2)}), num_rounds=2, train_config=ConfigRecord({"local-steps": 4})
            )

    with_mod, without = result(learner(ConditionsMod(at_half_load))), result(learner())
    assert with_mod.train_metrics_clientapp == without.train_metrics_clientapp


def test_the_mod_as_it_is_measures_this_machine() -> None:
    app = answer_conditions(learner(step_mod, conditions_mod))
    with LocalGrid(app, nodes=1, serialise=True) as grid:
        (reply,) = grid.send_and_receive([order()])
        told = ask_nodes(grid, [1000], "conditions")[1000]
    found = conditions_of(reply)
    assert found is not None
    assert found.step_s is not None
    assert found.cpu_count == told["cpu_count"]
