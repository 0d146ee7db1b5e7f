"""The benchmarks' harness sees the memory it should see, ends what it started, and prints what a script can read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks.harness.children import Measured, available_cpus, pin_to_cpus, run_measured
from benchmarks.harness.printing import benchmark_parser, print_json, print_table, progress
from flower_edge.errors import LaunchError

MB = 1_000_000
# bytes(n) would be pages of zeros that the system does not give out before they are written.
HOLD_200_MB = "import time; held = b'1' * 200_000_000; print('held', flush=True); time.sleep(1.5)"
#: Starts a program in a session of its own, which nobody but the system is then the parent of, and exits.
DETACH = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True).pid, flush=True)
"""
#: Does so, and stays until what it started has closed the pipe that it inherited.
DETACH_AND_WAIT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]], stdout=subprocess.PIPE, check=True)
"""


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def test_a_child_that_holds_200_mb_is_seen_to_hold_them(tmp_path: Path) -> None:
    measured = run_measured(python(HOLD_200_MB), log=tmp_path / "log", timeout_s=60)
    assert 200 * MB < measured.peak_bytes() < 300 * MB


def test_memory_of_a_process_that_detached_itself_is_seen(tmp_path: Path) -> None:
    command = python(DETACH_AND_WAIT, DETACH, HOLD_200_MB)
    measured = run_measured(command, log=tmp_path / "log", timeout_s=60, count_itself=False)
    assert 200 * MB < measured.peak_bytes() < 300 * MB


def test_memory_of_processes_that_are_not_the_childs_is_not_counted(tmp_path: Path) -> None:
    with subprocess.Popen(python(HOLD_200_MB), stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"held\n"
        measured = run_measured(python("import time; time.sleep(0.3)"), log=tmp_path / "log", timeout_s=60)
        assert measured.peak_bytes() < 100 * MB
        stranger.kill()


def test_the_process_itself_can_be_left_out(tmp_path: Path) -> None:
    measured = run_measured(python(HOLD_200_MB), log=tmp_path / "log", timeout_s=60, count_itself=False)
    assert measured.peak_bytes() == 0


def test_the_peak_is_that_of_the_time_asked_for() -> None:
    measured = Measured(0.0, 4.0, ((0.5, 10), (1.5, 40), (2.5, 30), (3.5, 20)))
    assert measured.peak_bytes() == 40
    assert measured.peak_bytes(begin_s=2.0) == 30
    assert measured.peak_bytes(end_s=1.0) == 10


def test_a_time_nobody_looked_at_is_refused() -> None:
    with pytest.raises(LaunchError, match="measure more rounds"):
        Measured(0.0, 4.0, ((0.5, 10), (3.5, 20))).peak_bytes(begin_s=1.0, end_s=2.0)


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"(?s)exited with 1.*ValueError: no such luck"):
        run_measured(python("raise ValueError('no such luck')"), log=tmp_path / "log", timeout_s=60)


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    begin_s = time.monotonic()
    with pytest.raises(LaunchError, match=r"took more than 0\.3 s"):
        run_measured(python("import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=0.3)
    assert time.monotonic() - begin_s < 30


def test_what_a_child_leaves_running_is_ended(tmp_path: Path) -> None:
    run_measured(python(DETACH, "import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=60)
    left = int((tmp_path / "log").read_text())
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_sigterm_ends_the_child_and_says_which_signal_it_was(tmp_path: Path) -> None:
    # Tests before this one may have left a helper of multiprocessing's, which ends with the process.
    before = {child.pid for child in psutil.Process().children()}
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run_measured(python("import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=60)
    timer.join()
    assert interrupt.value.args == (signal.SIGTERM,)
    assert {child.pid for child in psutil.Process().children()} <= before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process on some of the cores")
def test_a_pinned_process_has_that_many_cores() -> None:
    before = os.sched_getaffinity(0)
    try:
        pin_to_cpus(1)
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_json_object_is_the_last_line_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a table", ["", "figure"], [["a", "1"]])
    print_json({"ratio": 2.5, "quick": True, "local": {"2x1k": {"round_s": 0.1}}})
    progress("done")
    out = capsys.readouterr().out.splitlines()
    assert json.loads(out[-1]) == {"ratio": 2.5, "quick": True, "local": {"2x1k": {"round_s": 0.1}}}
    assert "done" not in out


def test_a_figure_that_is_no_number_is_not_printed_as_one() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json({"ratio": float("nan")})


@pytest.mark.parametrize("option", ["--fast", "--qui", "--json=yes", "extra"])
def test_an_unknown_option_exits_with_2(option: str) -> None:
    with pytest.raises(SystemExit) as left:
        benchmark_parser("x", "A benchmark.").parse_args([option])
    assert left.value.code == 2
