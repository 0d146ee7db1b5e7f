"""A user's mistake, verb by verb: one message that names it, exit code 2, no traceback, and nothing on stdout.

In this process, through the program's own `main`; nothing here comes so far as to start anything.
"""

from __future__ import annotations

import builtins
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flower_edge.cli import main as command_line
from flower_edge.cli import runs as runs_verb
from flower_edge.store import RunFolder

QUICKSTART = str(Path(__file__).parents[2] / "scenarios" / "quickstart")

#: What is typed, and what the message says. "a-file", "not.toml", "empty" and "runs" are there; "busy" is a taken port.
MISTAKES = [
    ("run nowhere", "nowhere does not exist"),
    ("run a-file", "a-file is a file"),
    ("run empty", "has no pyproject.toml"),
    ("run broken", "is not TOML"),
    (f"run {QUICKSTART} -c edge-round=1", "did you mean 'edge-rounds'?"),
    (f"run {QUICKSTART} -c nothing.toml", "cannot be read (No such file or directory)"),
    (f"run {QUICKSTART} -c not.toml", "not TOML"),
    (f"run {QUICKSTART} --num-supernodes 0", "must be 1 or more"),
    (f"run {QUICKSTART} --resume nope", "no run 'nope'"),
    (f"run {QUICKSTART} --runs a-file", "cannot write to the folder of runs"),
    ("runs --root a-file", "a-file is a file; give the folder that holds the run folders"),
    ("watch latest --root a-file", "a-file is a file; give the folder"),
    ("watch nope", "no run 'nope'"),
    ("report nope", "no run 'nope'"),
    ("report latest --out a-file", "cannot write to"),
    ("dashboard nope", "no run 'nope'"),
    ("dashboard --port busy", "give another, such as --port"),
    ("dashboard --certificate a.pem --key b.pem", "expected files in PEM"),
    ("metrics nope", "no run 'nope'"),
    ("metrics --port busy", "give another, such as"),
    ("controllers --controllers nope", "unknown controller 'nope'"),
    ("controllers --seeds x", "type for example 0-7"),
    ("controllers --controllers equal --seeds 0 --rounds 2 --nodes 3 --task none --out a-file", "a-file: File exists"),
    ("codecs recommend --link fast", "expected a rate above 0"),
    ("codecs measure nope", "no run 'nope'"),
    ("plan-split", "no device to plan for"),
    ("plan-split --devices a-file", "expected a .toml or .json file"),
    ("plan-split --profile a-file --device a=1", "flower-edge plan-split --save-profile"),
    ("plan-split --model nope --input-shape 1x8x8 --classes 10 --device a=1", "no such model here"),
    ("compress --state a-file", "give a folder that can be written to"),
    ("up --listen nowhere --state empty", "expected host:port"),
    ("up --state a-file", "give another folder"),
    ("join http://x --ca-fingerprint 00 --token a", "expected https://HOST:PORT"),
    ("leave --state empty", "nothing has joined in"),
    ("devices list --state empty", "is no folder of `flower-edge up`"),
    ("devices remove x --state empty", "is no folder of `flower-edge up`"),
    ("node", "give --superlink HOST:PORT"),
    ("node --superlink nowhere", "expected HOST:PORT"),
    (f"edge {QUICKSTART} --name a --state empty", "give --serve HOST:PORT"),
    ("agent", "give --certificate, --key and --authority"),
    ("agent --status --socket nothing", "no agent answers at"),
    ("agent --folder empty --listen 127.0.0.1:0 --certificate a --key b --authority c", "expected a PEM file"),
    ("rewards balances", "name a book with --book"),
    ("rewards verify --book not.toml", "it is no reward book"),
    ("rewards statement 4 --book nothing.sqlite --tariff lots", "lots"),
    ("scenarios gosip", "did you mean 'gossip'?"),
    ("new mine --from gosip", "did you mean 'gossip'?"),
    ("new 1st", "expected a letter"),
    ("new ../mine", "expected a letter"),
    ("new class", "a word of Python's"),
    ("new json", "Python can import a 'json' here already"),
    ("new empty", "nothing is overwritten"),
    ("new a-name-that-is-far-too-long-for-flower", "at most 25"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A folder with things in it that are not what a verb needs; the number of a port that is taken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOWER_EDGE_RUN_DIR", raising=False)
    monkeypatch.delenv("FLOWER_EDGE_REWARDS", raising=False)
    monkeypatch.setenv("FLOWER_EDGE_RUNS", str(tmp_path / "runs"))
    (tmp_path / "a-file").write_text("hello")
    (tmp_path / "not.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pyproject.toml").write_text("not [ toml")
    with RunFolder.create("demo", config={}, seed=1) as run:
        run.record("central", 1, {"accuracy": 0.5, "loss": 1.0})
        run.finish({"accuracy": 0.5})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def typed(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the program."""
    monkeypatch.setattr(sys, "argv", ["flower-edge", *line.split()])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(("line", "says"), MISTAKES, ids=[line[:60] for line, _ in MISTAKES])
def test_a_mistake_is_named_and_ends_with_two(
    line: str, says: str, here: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(line.replace("busy", str(here)), monkeypatch) == 2
    told = capsys.readouterr()
    assert says in " ".join(told.err.replace("│", " ").split())
    assert "Traceback" not in told.err
    assert told.out == ""


def test_an_extra_that_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "jinja2":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return there(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "jinja2", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert typed("report latest", monkeypatch) == 2
    assert "pip install 'flower-edge[report]'" in capsys.readouterr().err


def test_an_error_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'flower_edge.oops'", name="flower_edge.oops")

    monkeypatch.setattr(runs_verb, "overview", broken)
    monkeypatch.setattr(sys, "argv", ["flower-edge", "runs"])
    with pytest.raises(ModuleNotFoundError):
        command_line.main()


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_verb, "overview", interrupted)
    assert typed("runs", monkeypatch) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_nobody_may_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "not.toml").chmod(0)
    assert typed(f"run {QUICKSTART} -c not.toml", monkeypatch) == 2
    assert "not.toml" in capsys.readouterr().err


def test_completion_can_be_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("--help", monkeypatch) == 0
    assert "--install-completion" in capsys.readouterr().out
