"""What runs on a 64-bit ARM under qemu, beside a whole node: rooms, conditions, the reward book, agents that exchange.

One file, so that one process at a time is in the ARM's folder. `test_join_on_arm` has the node.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_cases import RUN, AgentProcesses, eventually
from arm_root import ROOT, arm_root, command, missing

from flower_edge.peers.round_table import RoundTable
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import Head

HERE = Path(__file__).parent
#: Emulated, on a machine that does something else as well: imports take half a minute.
PATIENCE_S = 900.0
pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(3 * PATIENCE_S)]
#: On the device.
PLACE = "/var/lib/flower-edge-rooms"
#: Rooms that need what a device does without: pages, tensors of torch.
NEEDS = {"torch", "nicegui", "matplotlib", "numba", "sklearn", "torchvision", "psutil"}


@pytest.fixture(scope="module")
def root() -> Path:
    if why := missing():
        pytest.skip(why)
    return arm_root()


@pytest.fixture
def place(root: Path) -> Iterator[Path]:
    """An empty folder of the device, as this machine sees it."""
    found = root / PLACE.lstrip("/")
    shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True, mode=0o700)
    yield found
    shutil.rmtree(found)


def script(root: Path, name: str, *arguments: str) -> list[str]:
    """What runs one of the scripts beside this file on the device."""
    return command(root, "-c", (HERE / f"{name}.py").read_text("utf-8"), *arguments)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["machine"] == "aarch64"
    return found


def ask(root: Path, name: str, *arguments: str) -> dict[str, Any]:
    words = script(root, name, *arguments)
    return told(subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S))


def test_every_room_and_its_names_are_there_without_torch(root: Path) -> None:
    rooms = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    found = ask(root, "import_rooms", *rooms)
    assert not found["torch"]
    assert found["names"] > 300
    assert set(found["missing"].values()) <= NEEDS, found["missing"]


# -- conditions --------------------------------------------------------------------------------------------------------

HEAT, BATTERY, VCGENCMD = "/sys/class/thermal/thermal_zone0/temp", "/sys/class/power_supply/BAT0", "/usr/bin/vcgencmd"
COOL = {
    HEAT: "45000\n", f"{BATTERY}/type": "Battery\n", f"{BATTERY}/status": "Discharging\n",
    f"{BATTERY}/capacity": "80\n", VCGENCMD: "#!/bin/sh\necho throttled=0x50000\n",
}  # fmt: skip
#: What changes on the device, one after the other, and what it does then.
STATES: list[tuple[dict[str, str], dict[str, Any]]] = [
    (COOL, {"steps": 40, "moved": True}),
    ({HEAT: "72500\n"}, {"steps": 25, "moved": True}),
    ({HEAT: "81000\n"}, {"declined": "declined: it is 81 C hot; it trains up to 75 C"}),
    (
        {HEAT: "45000\n", f"{BATTERY}/capacity": "12\n"},
        {"declined": "declined: the battery is at 12 % and not charging; it trains from 30 % on, or plugged in"},
    ),
    ({f"{BATTERY}/status": "Charging\n"}, {"steps": 40, "moved": True}),
    (
        {VCGENCMD: "#!/bin/sh\necho throttled=0x50005\n"},
        {"declined": "declined: it is throttled now, for heat or for want of power"},
    ),
]


def test_a_device_reads_its_sensors_and_leaves_rounds_out_or_shortens_them(root: Path) -> None:
    files = [root / path.lstrip("/") for path in COOL]
    assert not any(file.exists() for file in files)
    try:
        found = ask(root, "train_by_conditions", json.dumps([{"files": changed} for changed, _ in STATES]))["told"]
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    for (_, expected), came in zip(STATES, found, strict=True):
        assert {key: came[key] for key in expected} == expected
        assert came["dropped"] == []
    first, seen = found[0]["seen"], found[3]["seen"]
    assert (first["temperature_c"], first["battery"], first["charging"]) == (45.0, 0.8, False)
    assert (first["throttled"], first["throttle_bits"], seen["battery"]) == (False, 0x50000, 0.12)
    # From the kernel's own /proc, and of the processors and disk below the emulator.
    assert 0.0 <= first["load"] <= 1.0
    assert 0 < first["memory_free_bytes"] < first["memory_total_bytes"]
    assert first["cpu_count"] == len(os.sched_getaffinity(0))
    assert 0 < first["disk_free_bytes"] < first["disk_total_bytes"]


# -- the reward book ---------------------------------------------------------------------------------------------------


def test_a_writer_of_the_reward_book_is_killed_and_nothing_it_has_acknowledged_is_missing(
    root: Path, place: Path
) -> None:
    book, first, acknowledged = f"{PLACE}/rewards.sqlite", 0, 0
    for least in (20, 7):
        words = script(root, "book_rewards", book, str(first))
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                acknowledged = int(line.split()[1])
                if acknowledged >= first + least and writer.poll() is None:
                    writer.kill()
        assert writer.returncode == -signal.SIGKILL
        assert acknowledged >= first + least
        found = ask(root, "book_rewards", book, "look")
        rounds = len(found["rounds"])
        assert found["rounds"] == list(range(rounds))
        # The last one may stand without having been told.
        assert acknowledged + 1 <= rounds <= acknowledged + 2
        assert (found["ok"], found["balances"]) == (True, {"0": rounds, "1": 2 * rounds})
        first = rounds
    # The file is the same on another processor: read, checked from the device's own head, and gone on with.
    with RewardBook(place / "rewards.sqlite") as here:
        assert here.balances() == found["balances"]
        rows = here.verify().head.rows
        assert here.verify(Head(rows, found["hash"])).ok


# -- agents ------------------------------------------------------------------------------------------------------------

LETTER_BYTES = 300_000


class Agents(AgentProcesses):
    """Three agents, some of them on the device."""

    def __init__(self, root: Path, place: Path, on_arm: set[int]) -> None:
        self.root, self.on_arm = root, on_arm
        super().__init__(place, [0, 1, 2])

    def command(self, node: int) -> list[str]:
        words = super().command(node)
        if node not in self.on_arm:
            return words
        return command(self.root, *(word.replace(str(self.folder), PLACE) for word in words[1:]))

    def exchange(self, node: int, round: int) -> subprocess.Popen[str]:
        """Begin a node's part of a round, on the processor of its agent."""
        others = [other for other in self.processes if other != node]
        cards = {other: self.card(other) for other in others}
        owed = [(round, other) for other in others]
        table = RoundTable(run=RUN, round=round, node=node, neighbours=cards, hears=others, owed=owed)
        given = json.dumps({"table": table.to_json(), "socket": self.socket(node), "bytes": LETTER_BYTES})
        here = [sys.executable, str(HERE / "exchange_letters.py"), given]
        words = script(self.root, "exchange_letters", given) if node in self.on_arm else here
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def round(self, number: int) -> None:
        """All send to all, and each has what the others sent."""
        from exchange_letters import payload

        going = {node: self.exchange(node, number) for node in self.processes}
        came = {node: process.communicate(timeout=PATIENCE_S) for node, process in going.items()}
        for node, (out, err) in came.items():
            assert going[node].returncode == 0, err
            found = json.loads(out)
            assert (found["machine"] == "aarch64") == (node in self.on_arm)
            others = [other for other in self.processes if other != node]
            sent = {str(other): hashlib.sha256(payload(other, LETTER_BYTES)).hexdigest() for other in others}
            assert found["letters"] == sent


@pytest.mark.parametrize("on_arm", [{0, 1, 2}, {0}], ids=["three ARMs", "an ARM and two others"])
def test_three_peers_exchange_letters_and_go_on_when_one_was_killed(root: Path, place: Path, on_arm: set[int]) -> None:
    with Agents(root, place, on_arm) as agents:
        agents.round(1)
        before = agents.card(0)
        agents.kill(0)
        agents.start(0)
        assert agents.card(0) == before  # who it was, at the address where it was
        agents.round(2)
        assert eventually(lambda: all(process.poll() is None for process in agents.processes.values()))
