"""Laws of finding and ending the processes of a launch; the processes are real."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flower_edge.runtime.launching.processes import MARKER, Family, Interrupts

#: A parent with a child in its own session and a child in another one, as the SuperLink and its executor are.
TREE = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
NO_PROC = Path("/there/is/no/proc/here")
BOTH_WAYS = pytest.mark.parametrize("proc", [Path("/proc"), NO_PROC], ids=["proc", "ps"])


def start(family: Family, launch_id: str, code: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {MARKER: launch_id}
    process = family.start([sys.executable, "-c", code], environment=environment, cwd=Path("/"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as pipe:
        assert pipe.readline() == b"ready\n"
    return process


@pytest.fixture
def bystander() -> Iterator[psutil.Process]:
    """A process of another launch."""
    other = uuid.uuid4().hex
    family = Family(other)
    yield psutil.Process(start(family, other, TREE).pid)
    family.stop()


@BOTH_WAYS
def test_a_family_ends_with_its_detached_members_and_without_its_neighbours(
    proc: Path, bystander: psutil.Process
) -> None:
    launch_id = uuid.uuid4().hex
    family = Family(launch_id, proc)
    parent = psutil.Process(start(family, launch_id, TREE).pid)
    members = {parent.pid, *(child.pid for child in parent.children(recursive=True))}
    neighbours = [bystander, *bystander.children(recursive=True)]
    assert len(members) == 3
    assert family.alive() == members

    family.stop()

    assert family.alive() == set()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in members)
    assert len(neighbours) == 3
    assert all(process.is_running() and process.status() != "zombie" for process in neighbours)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only /proc tells the environment of an orphan")
def test_an_orphan_that_left_its_session_is_found_by_the_marker() -> None:
    launch_id = uuid.uuid4().hex
    family = Family(launch_id)
    orphan = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('ready', flush=True)\nos._exit(0)\n"
    )
    start(family, launch_id, orphan).wait()
    latest_s = time.monotonic() + 120
    while not (found := family.alive()) and time.monotonic() < latest_s:
        time.sleep(0.01)
    assert len(found) == 1
    family.stop()
    assert family.alive() == set()


@BOTH_WAYS
def test_a_process_that_does_not_listen_is_killed(proc: Path) -> None:
    launch_id = uuid.uuid4().hex
    family = Family(launch_id, proc)
    process = start(family, launch_id, DEAF)
    family.stop(grace_s=0.3)
    assert process.returncode == -signal.SIGKILL


def test_stopping_a_family_that_never_was_does_nothing() -> None:
    Family(uuid.uuid4().hex).stop()


@pytest.fixture
def deadly() -> Iterator[dict[signal.Signals, Any]]:
    """Handlers that let a signal break off the test, whatever the tests' own caller ignores."""

    def die(number: int, frame: object) -> None:
        raise RuntimeError(f"signal {number} got through")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, die) for number in numbers}
    yield dict.fromkeys(numbers, die)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_is_noted_and_not_raised_until_the_end(
    number: signal.Signals, deadly: dict[signal.Signals, Any]
) -> None:
    with Interrupts() as interrupts:
        assert interrupts.signal is None
        signal.raise_signal(number)
        time.sleep(0.01)
        assert interrupts.signal is number
    assert signal.getsignal(number) is deadly[number]


@pytest.mark.usefixtures("deadly")
def test_the_first_interrupt_is_the_one_that_counts() -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert interrupts.signal is signal.SIGTERM


def test_a_signal_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_handlers_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
