"""The keeper: a node that ends is started again, it rests on an empty battery, and it goes with its keeper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flower_edge.conditions import Conditions
from flower_edge.enrolment import keeper
from flower_edge.enrolment.device_folder import DeviceFolder, Joined, NodeOptions
from flower_edge.enrolment.keeper import keep, keeper_pid
from flower_edge.runtime.launching.back_off import BackOff

JOINED = Joined(url="https://edge:8000", ca_fingerprint="ab" * 32, name="pi", manner="process")


class Folder(DeviceFolder):
    """With a node of its own: it writes its number, and does what it is told."""

    def __init__(self, path: Path, then: str) -> None:
        super().__init__(path)
        object.__setattr__(self, "then", then)

    def command(self, joined: Joined) -> list[str]:
        return [sys.executable, "-c", f"import os, time; open('pids', 'a').write(f'{{os.getpid()}}\\n'); {self.then}"]  # type: ignore[attr-defined]

    def pids(self) -> list[int]:
        try:
            return [int(line) for line in (self.path / "pids").read_text().splitlines()]
        except FileNotFoundError:
            return []


def wait(there: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    latest_s = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < latest_s, what
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_good_time() -> None:
    now_s = [0.0]
    waits = BackOff(first_s=5.0, most_s=60.0, good_s=600.0, clock=lambda: now_s[0])
    seen = []
    for _ in range(6):
        waits.began()
        now_s[0] += 1.0
        seen.append(waits.next_s())
    assert seen == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    waits.began()
    now_s[0] += 600.0
    assert waits.next_s() == 5.0


def test_a_node_that_ends_is_started_again_and_ended_with_the_keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_LOOK_S", 0.02)
    folder, told = Folder(tmp_path, "raise SystemExit(3)"), list[str]()
    keep(folder, JOINED, ended=lambda: len(folder.pids()) >= 3, log=told.append, out=None, first_s=0.05)
    assert len(set(folder.pids())) == 3
    assert [line for line in told if "ended with 3" in line][:2] == [
        "the node has ended with 3; it is started again in 0 s",
        "the node has ended with 3; it is started again in 0 s",
    ]
    assert not any(alive(pid) for pid in folder.pids())


def test_a_device_that_its_server_refuses_says_so_and_is_not_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_LOOK_S", 0.02)
    folder, told, looks = Folder(tmp_path, "raise SystemExit(1)"), list[str](), [0]
    asks = [sys.executable, "-c", "print('the edge says no'); raise SystemExit(77)"]

    def ended() -> bool:
        looks[0] += bool(told) and "says no" in told[-1]
        return looks[0] > 50 or len(folder.pids()) > 1

    keep(folder, JOINED, ended=ended, log=told.append, out=None, first_s=0.05, standing=asks)
    assert told[-1] == "the edge says no. The node is tried again in 60 minutes"
    assert len(folder.pids()) == 1


def test_a_node_is_started_again_where_the_server_says_nothing_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_LOOK_S", 0.02)
    folder, told = Folder(tmp_path, "raise SystemExit(1)"), list[str]()
    asks = [sys.executable, "-c", "print('who knows')"]
    keep(folder, JOINED, ended=lambda: len(folder.pids()) >= 2, log=told.append, out=None, first_s=0.05, standing=asks)
    assert len(set(folder.pids())) == 2
    assert not any("who knows" in line for line in told)


def test_a_node_rests_while_it_should_and_is_started_when_it_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_BATTERY_S", 0.1)
    folder, told = Folder(tmp_path, "time.sleep(600)"), list[str]()
    why = ["the battery is empty"]

    def ended() -> bool:
        if len(told) == 1 and not folder.pids():  # it rested from the first
            why[0] = ""
        elif len(folder.pids()) == 1 and alive(folder.pids()[0]) and not why[0]:
            why[0] = "too hot"
        elif folder.pids() and not alive(folder.pids()[0]):
            return True
        return False

    keep(folder, JOINED, ended=ended, log=told.append, out=None, refusal=lambda: why[0])
    assert told[0] == "the node rests: the battery is empty"
    assert told[1] == "the node need not rest any more"
    assert told[-1] == "the node rests: too hot"
    assert len(folder.pids()) == 1


def test_the_battery_policy_is_the_one_of_the_join(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [Conditions(battery=0.2, charging=False, temperature_c=99.0)]
    monkeypatch.setattr(keeper, "measure_conditions", lambda **_: seen[0])
    assert keeper._battery(0.0)() == ""
    assert "battery is at 20 %" in keeper._battery(0.3)()
    assert keeper._battery(0.1)() == ""  # heat and load are the app's to look at, round by round
    seen[0] = Conditions(battery=0.2, charging=True)
    assert keeper._battery(0.3)() == ""
    seen[0] = Conditions()
    assert keeper._battery(0.3)() == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc, which is not here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_its_keeper_a_node_ends_however_that_ends(tmp_path: Path, number: signal.Signals) -> None:
    folder = DeviceFolder(tmp_path)
    # A node that cannot reach anybody goes on trying; it is the real one.
    folder.keep(JOINED.model_copy(update={"options": NodeOptions(stock=True), "url": "https://127.0.0.1:9"}))
    for name in ("authority.pem", "node.key"):
        folder.write(name, b"")
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from flower_edge.enrolment import keeper\n"
        "from flower_edge.enrolment.device_folder import DeviceFolder\n"
        'node = \'import os, time; open("pids", "a").write(str(os.getpid())); time.sleep(600)\'\n'
        "DeviceFolder.command = lambda self, joined: [sys.executable, '-c', node]\n"
        "sys.exit(keeper.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=os.environ)
    try:
        wait(lambda: (tmp_path / "pids").exists() and bool((tmp_path / "pids").read_text()), "a node")
        node = int((tmp_path / "pids").read_text())
        assert keeper_pid(folder) == process.pid
        second = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=90
        )
        assert (second.returncode, second.stderr) == (0, f"{tmp_path}: a keeper is there already\n")
        process.send_signal(number)
        process.wait(90)
        wait(lambda: not alive(node), "the node's end")
        assert keeper_pid(folder) is None
    finally:
        process.kill()
        process.wait()
    log = folder.file("node.log").read_text()
    assert "the node is started, process" in log
    assert ("keeper: ends" in log) is (number == signal.SIGTERM)
