"""The live view shows every round once, of a run in another process too."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from flower_edge.cli.live import LiveView, follow
from flower_edge.store import RunFolder

WRITER = """
import sys, time
from flower_edge.store import RunFolder
with RunFolder.create("demo", config={}, seed=1, path=sys.argv[1]) as run:
    for at in range(1, 6):
        run.record("nodes", at, {"nodes_sampled": 4, "nodes_replied": 4})
        run.record("traffic", at, {"up_bits": 8000 * at, "down_bits": 800})
        run.record("central", at, {"accuracy": at / 10})
        time.sleep(0.1)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])


def test_elsewhere_than_on_a_terminal_every_round_is_one_plain_line(tmp_path: Path) -> None:
    out = io.StringIO()
    writer = start(tmp_path / "x")
    lines = LiveView(Console(file=out, width=40)).follow(tmp_path / "x", lambda: writer.poll() is not None, poll_s=0.05)
    assert [line.round for line in lines] == [1, 2, 3, 4, 5]
    head, *shown = out.getvalue().splitlines()
    assert head.split() == ["round", "accuracy", "loss", "up", "down", "nodes", "time"]
    assert [line.split()[:2] for line in shown] == [[str(at), f"0.{at}000"] for at in range(1, 6)]
    assert [line.split()[3:7] for line in shown][1] == ["2.0", "kB", "100", "B"]
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_a_table_grows(tmp_path: Path) -> None:
    writer = start(tmp_path / "x")
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    LiveView(console, height=3).follow(tmp_path / "x", lambda: writer.poll() is not None, poll_s=0.05)
    last = console.export_text().rpartition("x: accuracy")[2]
    assert "0.5000, 15.5 kB, " in last.splitlines()[0]
    assert [line.split()[0] for line in last.splitlines()[1:] if line.strip()] == ["round", "3", "4", "5"]


def test_a_round_with_an_accuracy_is_shown_after_a_moment_of_silence(tmp_path: Path) -> None:
    out = io.StringIO()
    done = threading.Event()
    with RunFolder.create("demo", config={}, seed=1, path=tmp_path / "x") as run:
        run.record("central", 1, {"accuracy": 0.25})
        run.record("nodes", 2, {"nodes_sampled": 3})
        view = LiveView(Console(file=out), settle_s=0.1)
        looker = threading.Thread(target=view.follow, args=(run.path, done.is_set), kwargs={"poll_s": 0.02})
        looker.start()
        try:
            wait_for(lambda: "0.2500" in out.getvalue())
            time.sleep(0.3)
            assert len(out.getvalue().splitlines()) == 2  # round 2 has no accuracy yet: it is not done
            run.record("central", 2, {"accuracy": 0.75})
            wait_for(lambda: "0.7500" in out.getvalue())
        finally:
            done.set()
            looker.join()
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["round", "1", "2"]


def wait_for(condition: object, timeout_s: float = 20.0) -> None:
    assert callable(condition)
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)


def test_following_waits_for_the_file_and_never_gives_half_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with RunFolder.create("demo", config={}, seed=1, path=tmp_path / "x") as run:
        run.record("central", 1, {"accuracy": 0.25})
    whole = (run.path / "metrics.jsonl").read_bytes()
    steps = iter([b"", whole[:10], whole[10:-1], b"\n" + whole, b""])
    seen = []

    def next_step() -> bool:
        part = next(steps, None)
        if part:
            with path.open("ab") as file:
                file.write(part)
        return part is None

    for rows in follow(path, next_step, poll_s=0.0):
        seen.append(len(rows))
    assert seen == [0, 0, 0, 2, 0, 0]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_that_never_records_anything_shows_nothing_and_ends(tmp_path: Path, terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal)
    assert LiveView(console).follow(tmp_path / "nowhere", lambda: True) == []
