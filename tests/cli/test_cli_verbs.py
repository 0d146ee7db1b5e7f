"""The command line: exit codes, one JSON document where asked, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flower_edge.cli import checks
from flower_edge.cli.main import app
from flower_edge.store import RunFolder


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLOWER_EDGE_RUN_DIR", raising=False)
    monkeypatch.setenv("FLOWER_EDGE_RUNS", str(tmp_path / "runs"))


def make(name: str = "demo", accuracy: float = 0.75) -> RunFolder:
    with RunFolder.create(name, config={}, seed=1) as run:
        run.record("traffic", 1, {"up_bits": 8000, "down_bits": 16})
        run.record("central", 1, {"accuracy": accuracy, "loss": 0.5})
        run.finish({"accuracy": accuracy})
    return run


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def shell(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flower_edge.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


# --- the command itself ---


def test_importing_the_command_imports_no_heavy_library() -> None:
    heavy = ["torch", "flwr", "matplotlib", "jinja2", "sqlalchemy", "scipy", "networkx", "ray", "grpc"]
    script = f"import sys, flower_edge.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_verb_has_help_with_an_example_its_exit_codes_and_json() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    joining = {"up", "join", "leave", "devices", "scenarios", "new"}
    expected = joining | {"run", "runs", "watch", "report", "rewards", "doctor", "node", "edge", "metrics", "dashboard"}
    assert set(verbs) == expected | {"controllers", "codecs", "compress", "plan-split", "split-edge", "stage", "agent"}
    groups = {name: getattr(verb, "commands", None) or {"": verb} for name, verb in verbs.items()}
    leaves = {f"{group} {name}".strip(): verb for group, own in groups.items() for name, verb in own.items()}
    for name, verb in leaves.items():
        assert f"Example: flower-edge {name}" in verb.help
        assert "Exit code: 0" in verb.help
        assert "--json" in [option for parameter in verb.params for option in parameter.opts]
        assert verb.help.splitlines()[0] in " ".join(call(*name.split(), "--help").replace("│", "").split())


def test_the_help_lists_every_verb_under_what_it_is_for() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    panels = {verb.rich_help_panel for verb in verbs.values()}
    assert len(panels) == 5
    assert all(isinstance(panel, str) for panel in panels)
    shown = call("--help")
    assert all(f"─ {panel} ─" in shown for panel in panels)


def test_the_version_is_that_of_the_installed_package_and_of_flower_beside_it() -> None:
    from importlib import metadata

    words = call("--version").split()
    assert words[:2] == ["flower-edge", metadata.version("flower-edge")]
    assert words[2:4] == ["(flwr", f"{metadata.version('flwr')},"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "nope"), "ConfigError: no run 'nope' in "),
        (("watch", "nope"), "ConfigError: no run 'nope' in "),
        (("report",), "Missing argument 'RUN'"),
        (("runs", "--rot", "x"), "No such option"),
        (("ruins",), "No such command 'ruins'"),
    ],
)
def test_a_user_s_mistake_is_a_line_and_exit_code_two(arguments: tuple[str, ...], words: str) -> None:
    done = shell(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# --- runs ---


def test_runs_lists_name_status_start_rounds_accuracy_bytes_duration() -> None:
    make("first")
    make("second", accuracy=0.875)
    head, *lines = call("runs").splitlines()
    assert head.split() == ["run", "status", "started", "(UTC)", "rounds", "accuracy", "bytes", "duration"]
    assert [re.sub(r"^\d{8}-\d{6}-", "", line.split()[0]) for line in lines] == ["first", "second"]
    assert lines[1].split()[1] == "finished"
    assert lines[1].split()[4:8] == ["1", "0.8750", "1.0", "kB"]


def test_runs_as_json_is_one_document(tmp_path: Path) -> None:
    make(accuracy=float("nan"))
    document = json.loads(call("runs", "--json"))
    assert document["root"] == str(tmp_path / "runs")
    (entry,) = document["runs"]
    assert entry["status"] == "finished"
    assert (entry["rounds"], entry["accuracy"], entry["loss"], entry["payload_bits"]) == (1, "NaN", 0.5, 8016)
    assert 0.0 <= entry["duration_s"] < 60.0


def test_no_runs_is_said_and_is_no_error(tmp_path: Path) -> None:
    assert "no runs in" in call("runs", "--root", str(tmp_path / "elsewhere"))
    assert json.loads(call("runs", "--json", "--root", str(tmp_path / "elsewhere")))["runs"] == []


def test_a_run_with_damaged_metrics_is_still_listed() -> None:
    run = make()
    (run.path / "metrics.sqlite").unlink()
    (run.path / "metrics.jsonl").write_text("{}\n{}\n")
    assert json.loads(call("runs", "--json"))["runs"][0]["rounds"] == 0


def test_on_a_terminal_the_list_is_a_table_with_colours() -> None:
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    make()
    parent, child = pty.openpty()
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    command = [sys.executable, "-m", "flower_edge.cli.main", "runs"]
    process = subprocess.Popen(command, stdout=child, env=variables)
    process.wait()
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert process.returncode == 0
    assert "\x1b[32mfinished" in shown
    assert "0.7500" in shown


# --- report ---


def test_report_writes_the_page_where_it_says(tmp_path: Path) -> None:
    run = make()
    assert call("report", "latest") == f"report: {run.artifacts / 'report.html'}\n"
    assert (run.artifacts / "report.html").exists()
    document = json.loads(call("report", str(run.path), "--out", str(tmp_path / "out"), "--json"))
    assert document["page"] == str(tmp_path / "out" / "report.html")
    assert all(Path(picture).exists() for picture in document["pictures"])
    assert document["pictures"]


# --- watch ---


def test_watch_follows_to_the_end_and_tells_how_it_went() -> None:
    run = RunFolder.create("demo", config={}, seed=1)

    def work() -> None:
        for at in range(1, 4):
            run.record("central", at, {"accuracy": at / 4})
            time.sleep(0.1)
        run.finish({})
        run.close()

    worker = threading.Thread(target=work)
    worker.start()
    shown = call("watch", "demo").splitlines()
    worker.join()
    assert [line.split()[0] for line in shown] == ["round", "1", "2", "3", f"{run.path.name}:"]
    assert shown[-1].endswith(": finished")


def test_watching_a_run_that_failed_is_exit_code_one() -> None:
    def fail() -> None:
        with RunFolder.create("demo", config={}, seed=1):
            raise RuntimeError("no node came")

    with pytest.raises(RuntimeError):
        fail()
    assert "failed: RuntimeError: no node came" in call("watch", "latest", code=1)
    assert json.loads(call("watch", "latest", "--json", code=1))["error"] == "RuntimeError: no node came"


# --- doctor ---


def test_doctor_says_ok_warn_or_fail_and_its_exit_code_agrees() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    document: dict[str, Any] = json.loads(result.stdout)
    levels = {check["name"]: check["level"] for check in document["checks"]}
    assert set(levels.values()) <= {"ok", "warn", "fail"}
    assert levels["python"] == levels["flwr"] == levels["runs folder"] == "ok"
    assert document["ok"] is ("fail" not in levels.values())
    assert result.exit_code == (0 if document["ok"] else 1)
    assert all(check["advice"] for check in document["checks"] if check["level"] != "ok")


def test_doctor_without_torch_warns_and_with_a_wrong_data_folder_fails(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None; sys.argv[1:] = ['doctor'];"
        "from flower_edge.cli.main import main; main()"
    )
    variables = {**os.environ, "FLOWER_EDGE_DATA": str(tmp_path / "nowhere")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables)
    assert done.returncode == 1
    assert "warn  torch: not installed\n      -> " in done.stdout
    assert f"FAIL  data: FLOWER_EDGE_DATA={tmp_path / 'nowhere'}, which is no folder\n      -> set " in done.stdout
    assert done.stdout.endswith("checks failed: data\n")


@pytest.mark.parametrize(
    ("version", "level"),
    [
        (None, "fail"),
        ("1.40.9", "fail"),
        ("1.41.0", "ok"),
        ("1.41.7", "ok"),
        ("1.42.0", "fail"),
        ("2.0", "fail"),
        ("1.41.0rc1", "ok"),
    ],
)
def test_flower_in_another_version_is_a_failure_with_the_command_to_type(version: str | None, level: str) -> None:
    check = checks.flwr(version)
    assert check.level == level
    assert level == "ok" or "pip install 'flwr>=1.41,<1.42'" in check.advice


def test_the_range_of_flower_is_the_one_of_the_package() -> None:
    from importlib import metadata

    (wanted,) = [line for line in metadata.requires("flower-edge") or [] if re.match(r"flwr[<>=]", line)]
    low, below = (".".join(map(str, numbers)) for numbers in (checks.FLWR_FROM, checks.FLWR_BELOW))
    assert set(wanted.removeprefix("flwr").split(",")) == {f">={low}", f"<{below}"}


def test_an_old_or_narrow_python_fails() -> None:
    assert checks.python((3, 10, 4), True).level == "fail"
    assert checks.python((3, 11, 0), False).level == "fail"
    assert checks.python((3, 12, 1), True).level == "ok"


def test_a_port_somebody_listens_on_is_a_warning_with_the_port() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = listener.getsockname()[1]
        check = checks.port(number)
    assert check.level == "warn"
    assert f":{number}'" in check.advice
    assert checks.port(number).level == "ok"


def test_missing_extras_are_warnings_and_name_the_extra() -> None:
    check = checks.extra("nothing", "no_such_module_at_all", "data", "the digits data set")
    assert check.level == "warn"
    assert "pip install 'flower-edge[data]'" in check.advice


def test_a_library_that_is_there_and_broken_fails_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libtorch_cpu.so: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = checks.torch()
    assert check.level == "fail"
    assert check.found == "does not import: OSError: libtorch_cpu.so: cannot open"


def test_little_memory_and_a_folder_that_is_a_file_are_told(tmp_path: Path) -> None:
    assert checks.memory(10**9).level == "warn"
    assert checks.memory(10**10).level == "ok"
    assert checks.memory(None).level == "ok"
    assert checks.writable(tmp_path / "not" / "there" / "yet").level == "ok"
    assert checks.disk(tmp_path / "not" / "there" / "yet").found.endswith("yet")
    (tmp_path / "file").touch()
    assert checks.writable(tmp_path / "file").level == "fail"


def test_commands_that_are_missing_from_the_environment_fail(tmp_path: Path) -> None:
    assert checks.flwr_command(tmp_path).found == f"no flwr and no flower-superlink in {tmp_path}"
