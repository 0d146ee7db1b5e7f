"""`flower-edge compress`: what is typed becomes a submission, and what happened is told, written, and an exit code."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flower_edge.cli import compress_kept
from flower_edge.cli.compress_inputs import (
    addresses_from,
    cuts_from,
    depth_from,
    link_from,
    links_from,
    names_from,
    writable,
)
from flower_edge.cli.compress_live import Watcher
from flower_edge.cli.compress_machines import Where, fleet_of
from flower_edge.cli.main import app
from flower_edge.errors import ConfigError, EdgeError, FringeError
from flower_edge.fringe import Link
from flower_edge.runtime.compression.settings import CompressionSettings
from flower_edge.runtime.compression.told import Told

pytest.importorskip("torch", reason="compression needs torch")

TASK = '''
import torch
from torch import nn
from flower_edge.runtime.compression.task_torch import CompressionTask

def make(seed=0):
    """A model that is right by definition: the labels are its own."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    x = torch.randn(120, 8, generator=drawn)
    y = model(x).argmax(1)
    return CompressionTask("small", model, x[:40], (x[40:80], y[40:80]), (x[80:], y[80:]))
'''
MACHINES = ("--machines", "a,b", "--cuts", "1", "--depth", "1", "--methods", "quantisation")


@pytest.fixture(autouse=True)
def _task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small_task_of_tests.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["compress", "--task", "small_task_of_tests:make", *MACHINES, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


# --- what is typed ---


def test_names_cuts_and_depths_are_values_and_nothing_is_automatic() -> None:
    assert names_from(" a , b", "--machines") == ("a", "b")
    assert cuts_from("block1, 7") == ("block1", 7)
    assert depth_from("3") == 3
    assert depth_from("a=2,b=0") == {"a": 2, "b": 0}
    for nothing in ("", "auto", "  "):
        assert (names_from(nothing, "--machines"), cuts_from(nothing), depth_from(nothing)) == ((), None, None)


@pytest.mark.parametrize("text", ["a=2,b", "x", "-1", "a=1,a=2", "a=1.5"])
def test_a_depth_that_is_none_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match="camera=2,gateway=1"):
        depth_from(text)


@pytest.mark.parametrize("text", ["a,,b", "a,b,a"])
def test_an_empty_name_or_one_twice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--machines .*(empty|twice)"):
        names_from(text, "--machines")


def test_one_link_holds_for_all_connections_and_another_number_is_refused() -> None:
    assert link_from("2Mbit/s, 17 ms") == Link(2e6, 0.017)
    assert links_from(["1 Gbit/s"], 2) == (Link(1e9), Link(1e9))
    assert links_from([], 2) is None
    with pytest.raises(ConfigError, match=r"given 3 times and 3 machines have 2 connections"):
        links_from(["1 Gbit/s"] * 3, 2)


@pytest.mark.parametrize("text", ["fast", "10", "10 Mbit/s,soon", "0 Mbit/s", "1 Mbit/s,10 ms,3"])
def test_a_link_that_is_none_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match="as in '10 Mbit/s,10 ms'"):
        link_from(text)


def test_addresses_go_to_machines_by_name_or_in_order() -> None:
    named = addresses_from("b=10.0.0.2:1,a=10.0.0.1:1", ["a", "b"])
    assert named == addresses_from("10.0.0.1:1,10.0.0.2:1", ["a", "b"])
    assert list(addresses_from("b=10.0.0.2:1,a=10.0.0.1:1", [])) == ["b", "a"]
    for text, says in (("a=1.1.1.1:1,1.1.1.1:2", "some have none"), ("1.1.1.1:1", "--machines 2"), ("a=x:1", "'b'")):
        with pytest.raises(ConfigError, match=says):
            addresses_from(text, ["a", "b"])
    with pytest.raises(ConfigError, match="--stages a=nowhere"):
        addresses_from("a=nowhere,b=1.1.1.1:2", ["a", "b"])


def test_options_of_running_stages_need_running_stages(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--secret is for stages that run already"):
        fleet_of(Where(("a", "b"), (), True, "", secret=tmp_path / "secret"))
    with pytest.raises(ConfigError, match="give one of the two"):
        fleet_of(Where(("a", "b"), (), True, "a=1.1.1.1:1,b=1.1.1.1:2"))
    with pytest.raises(ConfigError, match="--deployment other is of stages that run already"):
        fleet_of(Where(("a", "b"), (), True, "", deployment="other"))
    with pytest.raises(ConfigError, match=r"--models mine:make .* give --serve"):
        fleet_of(Where(("a", "b"), (), False, "", models="mine:make"))
    with pytest.raises(ConfigError, match="cannot be read"):
        fleet_of(Where((), (), False, "a=1.1.1.1:1,b=1.1.1.1:2", secret=tmp_path / "none"))
    (tmp_path / "ca.pem").write_bytes(b"pem")
    (tmp_path / "secret").write_bytes(b"0123456789abcdef\n")
    running = Where(
        (), ["1 Mbit/s"], False, "a=1.1.1.1:1,b=1.1.1.1:2", None, None, tmp_path / "ca.pem", tmp_path / "secret"
    )
    fleet = fleet_of(running)
    assert (fleet.machines, fleet.links()) == (("a", "b"), (Link(1e6),))
    fleet.close()


@pytest.mark.parametrize("serve", [False, True])
def test_machines_that_are_no_real_ones_have_slow_links_also_where_none_is_typed(serve: bool) -> None:
    """What `flower-edge compress --serve --page` begins with, nothing else typed, is worth compressing."""
    fleet = fleet_of(Where((), (), serve, ""))
    assert len(fleet.machines) == 3
    assert fleet.links() == (Link(1e7, 0.01), Link(1e7, 0.01))
    fleet.close()


def test_stages_of_this_machine_may_be_as_fast_as_it_is() -> None:
    fleet = fleet_of(Where(("a", "b"), ["none"], True, ""))
    assert fleet.links() == (None,)
    fleet.close()
    with pytest.raises(ConfigError, match="--link 'none'"):
        fleet_of(Where(("a", "b"), ["none"], False, ""))


def test_where_nothing_could_be_written_at_the_end_nothing_is_begun(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "further"):
        with pytest.raises(ConfigError, match=r"--out .*file is a file; give a folder"):
            writable("--out", folder)
    writable("--out", tmp_path / "not" / "yet")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py"] == ["file"]


# --- what happens ---


def test_goals_that_are_met_end_in_0_with_a_table_for_each_connection_and_files(tmp_path: Path) -> None:
    told = call("--bandwidth", "2x", "--link", "1 Mbit/s,5 ms", "--out", "out")
    assert "1: quantisation to 8 bits at a -> b" in told
    assert "goals met after 1 iterations, 0 rolled back" in told
    assert "accuracy: 1.0000 -> " in told
    assert " on test" in told
    assert "1 Mbit/s, 5.00 ms, as given" in told
    files = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"bytes-by-iteration.png", "latency-by-iteration.png"}
    assert files == {"iterations.csv", "compression.json", "summary.txt", *pictures}
    with (tmp_path / "out" / "iterations.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["quantisation"]
    assert (tmp_path / "out" / "summary.txt").read_text().splitlines()[-1] in told


def test_a_floor_that_is_reached_first_says_what_was_missed_and_what_can_be_done() -> None:
    lines = call("--bandwidth", "9x", "--floor", "1.0", code=3).splitlines()
    assert re.fullmatch(r"missed: \d+ B where \d+ B were asked for; allow the metric more \(--drop, .*", lines[-2])
    assert lines[-1].startswith("floor reached after ")


def test_a_floor_that_is_reached_first_ends_in_3_and_json_is_one_document() -> None:
    found = json.loads(call("--bandwidth", "9x", "--floor", "1.0", "--json", code=3))
    assert found["phase"] == "floor reached"
    report = found["report"]
    assert report["all"]["before_bytes"] == 24 + 4 * 64
    assert report["total"]["score"] == 1.0
    assert report["frozen"]["equal"] is True
    assert report["test_before"] == 1.0


def test_a_proposal_changes_nothing_and_names_what_could_be_had() -> None:
    told = call("--propose", "--link", "1 Mbit/s,5 ms", "--state", "kept", "--bandwidth", "2x")
    assert "machines: a, b; cut after" in told
    assert "at most, whatever the score: " in told
    assert not Path("kept").exists()
    found = json.loads(call("--propose", "--latency", "1 ms", "--link", "1 Mbit/s,5 ms", "--json", code=2))
    assert "delays" in found["refused"]
    assert found["attainable_s"] == pytest.approx(0.005)


def test_a_kept_compression_goes_on_where_it_was_and_aims_at_other_goals() -> None:
    call("--bandwidth", "2x", "--state", "kept")
    again = json.loads(call("--state", "kept", "--json"))
    assert again["report"]["iterations"] == 1
    further = json.loads(call("--state", "kept", "--bandwidth", "3.5x", "--drop", "0.99", "--json"))
    assert further["report"]["iterations"] > 1
    assert further["report"]["settings"]["bandwidth"] == "3.5x"
    # What is not typed is as it was kept, and not as it is by default.
    floor = json.loads(call("--state", "kept", "--floor", "0.0", "--json"))
    assert {name: floor["report"]["settings"][name] for name in ("bandwidth", "drop", "floor")} == {
        "bandwidth": "3.5x",
        "drop": None,
        "floor": 0.0,
    }
    assert floor["report"]["iterations"] == further["report"]["iterations"]


class Kept:
    """A session whose folder holds one; it says what it is asked for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.said = settings, list[Any]()

    def resume_kept(self) -> None:
        self.said.append("resumed")

    def told(self) -> dict[str, Any]:
        return {"settings": {**self.settings, "chosen": None}}

    def automatic(self, on: bool) -> None:
        self.said.append(on)

    def submit(self, settings: CompressionSettings) -> None:
        self.said.append(settings)


def test_a_kept_compression_follows_links_where_that_alone_is_new_and_takes_other_methods() -> None:
    before = CompressionSettings(drop=0.01, bandwidth="9x", follow=False).config()
    for typed, follow, then in (
        ({}, False, []),
        ({"follow": True}, True, [True]),
        ({"bandwidth": "9x"}, False, []),
        ({"methods": ["pruning"]}, False, [CompressionSettings.from_config({**before, "methods": ["pruning"]})]),
    ):
        session = Kept(before)
        compress_kept.go_on(session, typed, follow=follow)  # type: ignore[arg-type]
        assert session.said == ["resumed", *then]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("--bandwidth", "much"), FringeError, "bandwidth = 'much'"),
        (("--floor", "0.9", "--drop", "0.1"), FringeError, "floor"),
        (("--metric", "beauty"), FringeError, "'beauty'"),
        (("--latency", "1 ms", "--link", "1 Mbit/s,5 ms"), FringeError, "cannot be reached"),
        (("--requests", "5"), ConfigError, "--serve or --stages"),
        (("--requests", "nan", "--serve"), ConfigError, "--requests nan: expected 0 or more"),
        (("--page-key", "key.pem"), ConfigError, "give --page"),
        (("--stages", "a=10.0.0.1:1,b=127.0.0.1:2"), ConfigError, "--stages a=10.0.0.1:1: without TLS .* --authority"),
        (("--policy", "luck"), FringeError, "rules, learned"),
        (("--machines", "a"), FringeError, "two"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_begun(arguments: Any, error: type[EdgeError], says: str) -> None:
    with pytest.raises(error, match=says):
        call(*arguments, "--state", "kept")
    assert not Path("kept").exists()


# --- while it runs ---


class Interrupted:
    """A session as `Watcher` sees it, at which somebody presses Ctrl-C when it looks for the second time."""

    def __init__(self, presses: int) -> None:
        self.looks, self.stops, self.presses = 0, 0, presses

    def told(self) -> Told:
        self.looks += 1
        if 2 <= self.looks < 2 + self.presses:
            raise KeyboardInterrupt
        phase = "stopped" if self.stops and self.looks > 4 else "running"
        return {"phase": phase, "events": [], "total": None}  # type: ignore[typeddict-item]

    def stop(self) -> None:
        self.stops += 1


def test_the_first_ctrl_c_stops_after_the_iteration_and_a_second_one_ends() -> None:
    session = Interrupted(1)
    watcher = Watcher(session, None, poll_s=0.001)
    assert watcher.watch() == "stopped"
    assert (session.stops, watcher.interrupted) == (1, True)
    with pytest.raises(KeyboardInterrupt):
        Watcher(Interrupted(2), None, poll_s=0.001).watch()


def test_what_is_asked_at_random_times_is_asked_once_something_serves() -> None:
    """Before that each request would be lost, and counted as lost by nobody."""
    began: list[str] = []

    class Preparing(Interrupted):
        def told(self) -> Told:
            self.looks += 1
            assert (began == []) == (self.looks <= 3)
            phase, total = ("preparing", None) if self.looks < 3 else ("goals met" if self.looks > 4 else "running", {})
            return {"phase": phase, "events": [], "total": total}  # type: ignore[typeddict-item]

    assert Watcher(Preparing(0), None, poll_s=0.001, served=lambda: began.append("asked")).watch() == "goals met"
    assert began == ["asked"]


@pytest.mark.parametrize("typed", [("--port", "65536"), ("--seed", "-1"), ("--seed", str(2**32))])
def test_numbers_that_can_be_no_port_or_seed_are_refused(typed: tuple[str, str]) -> None:
    call(*typed, code=2)
