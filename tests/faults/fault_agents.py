"""Faults of an agent: two processes `flower-edge agent`, each with a disk of its own, and a round for each case."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_cases import AgentProcesses
from fault_points import (
    Plan,
    can_mount,
    eventually,
    fill,
    go_on,
    is_stopped,
    make_room,
    needs_small_disk,
    small_disk,
)
from fault_table import Case

from flower_edge.errors import PeerError
from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.direct import DirectMailbox
from flower_edge.peers.mailbox import Letter
from flower_edge.peers.packet import Packet
from flower_edge.peers.round_table import RoundTable

__all__ = ["AgentPair", "agent_pair", "check_agent"]

#: What node 0 sends to node 1; several pieces long.
PAYLOAD = os.urandom(700_000)
RUN = "faults"
#: Whom a fault strikes; which of the two is in the table.
STRUCK = {"before_offer": 0, "mid_transfer": 1, "after_ack": 1, "in_aggregation": 1, "ledger_commit": 0}
#: An agent leaves 64 MiB alone, and is to have some more.
DISK_KB = 80_000


class Processes(AgentProcesses):
    """Agents that can be struck: the command line's, started by `fault_agent_process.py`."""

    def command(self, node: int) -> list[str]:
        _, _, _, *rest = super().command(node)
        program = Path(__file__).with_name("fault_agent_process.py")
        return [sys.executable, str(program), str(self.plan(node).path), *rest]

    def _start(self, node: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.processes[node] = subprocess.Popen(self.command(node), stdout=subprocess.PIPE, text=True, env=environment)

    def plan(self, node: int) -> Plan:
        return Plan(self.folder / f"plan-{node}.json")


class AgentPair:
    """Two of them, and a round for whoever begins."""

    def __init__(self, processes: Processes) -> None:
        self.processes, self.round = processes, 0

    def begin(self, case: Case) -> None:
        if case.how == "disk_full":
            needs_small_disk()
        self.round += 1
        for node in (0, 1):
            plan = self.processes.plan(node).path
            plan.unlink(missing_ok=True)
            plan.with_suffix(".struck").unlink(missing_ok=True)

    def table(self, node: int) -> RoundTable:
        other = 1 - node
        neighbours = {other: self.processes.card(other)}
        owed = [(self.round, other)]
        return RoundTable(run=RUN, round=self.round, node=node, neighbours=neighbours, hears=[other], owed=owed)

    def letter(self, sequence: int = 0) -> Packet:
        """The one of this round."""
        return Packet(self.round, 0, sequence, "identity", PAYLOAD)

    def mailbox(self, node: int, wait_s: float = 100.0) -> DirectMailbox:
        return DirectMailbox(node, self.table(node), self.processes.socket(node), wait_s=wait_s)

    def ask(self, node: int, **head: Any) -> dict[str, Any]:
        with AgentClient(self.processes.socket(node)) as client:
            return client.call({"run": RUN, **head}, wait_s=100.0)[0]

    def counters(self, node: int) -> dict[str, float]:
        with AgentClient(self.processes.socket(node)) as client:
            return client.status()["counters"]  # type: ignore[no-any-return]

    def code(self) -> str:
        """Why the letter has not been taken, if so."""
        return str(self.ask(0, do="report", round=self.round)["report"]["to"].get("1", {}).get("code", ""))

    def came(self, times: int = 1) -> None:
        """The letter is with node 1, as it was posted."""
        for _ in range(times):
            with self.mailbox(1) as mailbox:
                letters = mailbox.collect(self.round, [0])
                assert [letter.packet for letter in letters.values()] == [self.letter()]


@contextmanager
def agent_pair(folder: Path) -> Iterator[AgentPair]:
    """Started once for all cases, on small disks where there can be some."""
    with ExitStack() as stack:
        for node in (0, 1):
            stack.enter_context(small_disk(folder / str(node), DISK_KB, needed=can_mount()))
        yield AgentPair(stack.enter_context(Processes(folder, [0, 1])))


def check_agent(case: Case, pair: AgentPair) -> None:
    """One case of the table."""
    pair.begin(case)
    processes, struck = pair.processes, STRUCK[case.when]
    pair.mailbox(1).close()
    before = 0.0 if case.how == "kill" and struck == 1 else pair.counters(1).get("received_letters", 0)
    plan, disk = processes.plan(struck), processes.folder / str(struck)
    if (case.when, case.how) == ("before_offer", "disk_full"):
        # It is the receiver's disk: what is posted is on the sender's already.
        disk = processes.folder / "1"
    plan.arm(case.when, case.how, disk, nth=3 if case.when == "mid_transfer" else 1)
    with pair.mailbox(0) as mailbox:
        mailbox.post(pair.letter(), [1])
    taking = _Taking(pair)
    if case.when == "in_aggregation":
        taking.start()
    eventually(lambda: plan.struck, "the fault has struck")
    {"kill": _killed, "sigstop": _stopped, "disk_full": _no_room}[case.how](case, pair, struck, disk)
    if case.when == "in_aggregation":
        taking.check(case)
    assert pair.ask(0, do="flush", wait_s=100.0)["pending"] == 0
    pair.came(times=2)
    # Once: whoever sent it again was told that it is there.
    assert pair.counters(1).get("received_letters", 0) - before <= 1


def _killed(case: Case, pair: AgentPair, struck: int, disk: Path) -> None:
    processes = pair.processes
    card = processes.card(struck)
    assert processes.processes[struck].wait(60) == -9
    processes.kill(struck)
    processes.start(struck)
    # The same key and certificate, at the same address.
    assert processes.card(struck) == card


def _stopped(case: Case, pair: AgentPair, struck: int, disk: Path) -> None:
    pid = pair.processes.processes[struck].pid
    eventually(lambda: is_stopped(pid), "it is stopped")
    if case.when == "mid_transfer":
        # Long enough to be taken for dead.
        def state() -> str:
            with AgentClient(pair.processes.socket(0)) as client:
                (run,) = [run for run in client.status()["runs"] if run["pending"]]
                return str(run["links"][0]["state"])

        eventually(lambda: state() != "connected", "the sender has noticed")
    go_on(pid)


def _no_room(case: Case, pair: AgentPair, struck: int, disk: Path) -> None:
    if case.when in ("before_offer", "mid_transfer"):
        eventually(lambda: pair.code() == "no-room", "the sender was told that there is no room")
    else:
        # What was acknowledged is there, room or not; and what is new says what is missing.
        assert pair.ask(0, do="flush", wait_s=100.0)["pending"] == 0
        if case.when == "after_ack":
            pair.came()
    if disk.name == "0":
        # What was delivered is not kept: there was room again.
        fill(disk)
        with pytest.raises(PeerError, match="make room"), pair.mailbox(0) as mailbox:
            mailbox.post(pair.letter(sequence=1), [1])
    make_room(disk)


class _Taking:
    """Node 1 takes what has come, to mix it, in a thread."""

    def __init__(self, pair: AgentPair) -> None:
        self._pair = pair
        self.letters: list[Letter] = []
        self.error: PeerError | None = None
        self._thread = threading.Thread(target=self._take, daemon=True)
        self.start, self._join = self._thread.start, self._thread.join

    def _take(self) -> None:
        try:
            with self._pair.mailbox(1) as mailbox:
                self.letters = list(mailbox.collect(self._pair.round, [0]).values())
        except PeerError as error:
            self.error = error

    def check(self, case: Case) -> None:
        """It has the letter, or was told at once that its agent is gone."""
        self._join(100.0)
        if case.how == "kill":
            assert self.error is not None
            assert "agent" in str(self.error)
        else:
            assert [letter.packet for letter in self.letters] == [self._pair.letter()]
