"""What `flower-edge run` promises, tried with real `flwr run` simulations; and what it refuses before starting one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from flower_edge.errors import ConfigError, EdgeError, LaunchError
from flower_edge.runtime.launching.launcher import LaunchResult, launch

APPS = Path(__file__).parents[1] / "apps"
COMMAND = [sys.executable, "-m", "flower_edge.cli.main", "run"]
#: Every process started from a test that uses `tag` inherits this variable, the launcher's own marker aside.
TAG = "FLOWER_EDGE_TEST_TAG"


def tagged(tag: str) -> list[str]:
    """Command lines of the processes that carry the tag, without this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) == tag and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture(scope="module")
def tag() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TAG, uuid.uuid4().hex)
        # Whatever the caller of the tests has set, these runs go where the tests say.
        patch.delenv("FLOWER_EDGE_RUNS", raising=False)
        patch.delenv("FLOWER_EDGE_RUN_DIR", raising=False)
        yield os.environ[TAG]


@contextmanager
def own_port() -> Iterator[int]:
    """A port somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def told(lines: list[str], name: str) -> str:
    """The value of a `name=value` line that the moody app prints."""
    values = [line.removeprefix(f"{name}=") for line in lines if line.startswith(f"{name}=")]
    assert len(values) == 1, lines
    return values[0]


# --- two runs at the same time ---


@dataclass(frozen=True)
class Pair:
    """A good run by the command line, started beside a decoy of the app, and a bad one by the library, together."""

    folder: Path
    good: subprocess.CompletedProcess[str]
    good_lines: list[str]
    bad: LaunchResult
    bad_lines: list[str]
    left: list[str]


@pytest.fixture(scope="module")
def pair(tag: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    decoy = folder / "fe_moody"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("")
    for name in ("client_app.py", "server_app.py"):
        (decoy / name).write_text(
            "import pathlib\npathlib.Path(__file__ + '.ran').touch()\nraise SystemExit('decoy')\n"
        )
    bad_lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(
            subprocess.run,
            [*COMMAND, str(APPS / "moody"), "--runs", "good"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        bad = pool.submit(
            launch,
            APPS / "moody",
            run_config={"mood": "bad", "words": 'it\'s "raining"'},
            num_supernodes=1,
            runs=folder / "bad",
            resume=folder,
            on_line=bad_lines.append,
        )
        done = good.result()
        return Pair(folder, done, done.stdout.splitlines(), bad.result(), bad_lines, tagged(tag))


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_a_run_that_completes_exits_with_zero(pair: Pair) -> None:
    assert pair.good.returncode == 0, pair.good.stdout + pair.good.stderr
    assert any(re.fullmatch(r"nodes answered: [123]", line) for line in pair.good_lines)
    assert re.search(r"^run \d+ completed after", pair.good.stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_a_run_ends_with_its_rounds_and_its_page_when_the_app_keeps_a_run_folder(pair: Pair) -> None:
    assert re.search(r"^\s*1\s+0\.75", pair.good.stdout, re.MULTILINE), pair.good.stdout
    page = re.search(r"^report: (.+)$", pair.good.stdout, re.MULTILINE)
    assert page is not None
    assert Path(page[1]).is_file()


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_a_serverapp_that_raises_makes_a_failed_run_with_the_exceptions_text(pair: Pair) -> None:
    assert pair.bad.status == "failed"
    assert pair.bad.exit_code == 1
    assert 'in a bad mood: it\'s "raining"' in pair.bad.details
    assert pair.bad.run_id is not None


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_a_package_of_the_apps_name_in_the_users_folder_is_not_run(pair: Pair) -> None:
    assert list(pair.folder.rglob("*.ran")) == []
    assert pair.good.returncode == 0
    assert "decoy" not in pair.good.stdout + pair.good.stderr


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_two_runs_at_the_same_time_share_nothing(pair: Pair) -> None:
    for name in ("FLWR_HOME", "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "cwd", "FLOWER_EDGE_RUN_DIR"):
        assert told(pair.good_lines, name) != told(pair.bad_lines, name)


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_nothing_is_left_behind_but_the_run_folder(pair: Pair) -> None:
    assert pair.left == []
    for lines in (pair.good_lines, pair.bad_lines):
        home = Path(told(lines, "FLWR_HOME"))
        assert home.name == "home"
        assert not home.parent.exists()


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_the_run_folder_is_the_one_the_app_was_told_and_holds_what_it_wrote(pair: Pair) -> None:
    assert pair.bad.run_folder is not None
    for runs, lines in (("good", pair.good_lines), ("bad", pair.bad_lines)):
        run_folder = Path(told(lines, "FLOWER_EDGE_RUN_DIR"))
        assert run_folder.parent == pair.folder / runs
        assert re.fullmatch(r"\d{8}-\d{6}-fe-moody", run_folder.name)
        assert (run_folder / "files" / "note.txt").read_text() == "written to the working directory\n"
    assert pair.bad.run_folder == Path(told(pair.bad_lines, "FLOWER_EDGE_RUN_DIR"))
    assert f"run folder: {told(pair.good_lines, 'FLOWER_EDGE_RUN_DIR')}" in pair.good.stdout


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_only_a_resumed_run_is_told_what_to_go_on_from(pair: Pair) -> None:
    assert told(pair.good_lines, "FLOWER_EDGE_RESUME") == "None"
    assert told(pair.bad_lines, "FLOWER_EDGE_RESUME") == str(pair.folder)


# --- one at a time ---


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_an_app_in_the_shape_of_flowers_template_learns(tag: str, tmp_path: Path) -> None:
    lines: list[str] = []
    result = launch(
        APPS / "pristine",
        run_config={"num-server-rounds": 3},
        num_supernodes=4,
        runs=tmp_path,
        on_line=lines.append,
    )
    assert (result.status, result.details, result.exit_code) == ("completed", "", 0)
    assert result.run_folder is None, "the app wrote nothing"
    assert list(tmp_path.iterdir()) == []
    assert any("[ROUND 3/3]" in line for line in lines)
    losses = [float(loss) for line in lines for loss in re.findall(r"{'eval_loss': ([0-9.]+),", line)]
    assert len(losses) == 3
    assert losses == sorted(losses, reverse=True)
    assert tagged(tag) == []


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_ctrl_c_ends_everything_and_exits_with_130(tag: str, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*COMMAND, str(APPS / "moody"), "-c", "mood='endless'"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A caller in the background may ignore Ctrl-C, and that would be inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert running.stdout is not None
    lines = []
    with running:
        # That a line of an endless run arrives at all shows that the log comes while the run goes on.
        for line in running.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1] == "still here":
                break
        before = " ".join(tagged(tag))
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    for program in ("flower-superlink", "flower-superexec", "flwr-simulation", "raylet"):
        assert program in before
    assert running.returncode == 130
    assert "stopped after" in out
    assert "interrupted by Ctrl-C" in err
    assert "Traceback" not in err
    assert tagged(tag) == []
    assert not Path(told(lines, "FLWR_HOME")).parent.exists()


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_a_run_beyond_its_time_is_stopped_with_all_it_started(tag: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(APPS / "moody"), "-c", "mood='endless'", "--timeout", "6", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit_code"], answer["status"]) == (3, 3, "stopped")
    assert answer["details"] == "stopped after its timeout of 6 s"
    assert answer["seconds"] >= 6
    assert tagged(tag) == []


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_what_flower_says_of_an_app_it_refuses_is_passed_on(tag: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(APPS / "moody", app)
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace("server_app:app", "server_app:nothing"))
    with pytest.raises(LaunchError, match="Unable to find attribute nothing in module fe_moody"):
        launch(app, runs=tmp_path / "runs")
    assert tagged(tag) == []
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_a_port_that_is_taken_after_all_is_told_with_the_superlinks_own_words(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flower_edge.runtime.launching.launcher.hold_port", own_port)
    with pytest.raises(LaunchError, match=r"(?s)on port \d+ exited with .*address already in use"):
        launch(APPS / "moody", runs=tmp_path)
    assert tagged(tag) == []


# --- refused before anything is started ---


def test_an_unknown_key_is_refused_before_a_superlink_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mood'"):
        launch(APPS / "moody", run_config={"moot": "good"}, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_supernodes": 0}, "num-supernodes = 0"),
        ({"client_cpus": 2}, "client-cpus = 2 but total-cpus = 1"),
        ({"timeout_s": 0.0}, "expected more than 0"),
        ({"resume": "no/such/run"}, "no/such/run, does not exist"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(tmp_path: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        launch(APPS / "moody", runs=tmp_path, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(APPS / "moody"), "-c", "mood=good"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: --run-config mood=good")
    assert "Traceback" not in done.stderr


def test_handlers_of_the_caller_are_back_after_a_refused_launch(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match="--runs DIR"):
        launch(APPS / "moody", runs=tmp_path / "file")
    assert signal.getsignal(signal.SIGTERM) is before
    assert threading.current_thread() is threading.main_thread()
