"""Agents of a group on this machine, with certificates of their own: the world of the tests of `runtime.agent`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

from ending import end_all

from flower_edge.errors import TransportError
from flower_edge.peers.direct import DirectMailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.round_table import Card, RoundTable
from flower_edge.runtime.agent.agent import Agent
from flower_edge.runtime.agent.settings import AgentLimits
from flower_edge.transport.certificates import KeyPair, issue, make_authority
from flower_edge.transport.credentials import MutualTls

RUN = "run-7"
#: Waits short enough for tests; nothing that works comes near them.
LIMITS = AgentLimits(spare_bytes=1, keepalive_s=2.0, retry_s=0.3, per_peer=64)


@cache
def authority() -> KeyPair:
    return make_authority("tests of agents")


@cache
def pair(name: str) -> KeyPair:
    return issue(authority(), ["127.0.0.1", "localhost"], name=name)


def credentials(own: KeyPair) -> MutualTls:
    return MutualTls(own.certificate_pem, own.key_pem, authority().certificate_pem)


class Group:
    """Agents by the index of their node, all in one folder, and the tables that a server would write for them."""

    def __init__(
        self, folder: Path, nodes: Iterable[int], *, limits: AgentLimits = LIMITS, relay: bool = False
    ) -> None:
        self.folder, self.limits, self.run = folder, limits, RUN
        self.agents: dict[int, Agent] = {}
        self.cards: dict[int, Card] = {}
        for node in nodes:
            self.start(node)
        self.relay: Agent | None = None
        if relay:
            self.restart_relay(0)

    def restart_relay(self, port: int) -> None:
        self.relay = self._open("relay", pair("relay"), port)

    def _open(self, name: str, own: KeyPair, port: int) -> Agent:
        """Where it listened before, as soon as the system has that port back."""
        until_s = time.monotonic() + 60.0
        while True:
            agent = Agent(self.folder / name, credentials(own), port=port, limits=self.limits)
            try:
                agent.open()
            except TransportError:
                agent.close()
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.05)
            else:
                return agent

    def start(self, node: int, port: int = 0) -> Agent:
        agent = self._open(str(node), pair(f"node {node}"), port)
        self.agents[node], self.cards[node] = agent, agent.card
        return agent

    def table(self, node: int, round: int = 1, **changed: Any) -> RoundTable:
        """Everybody hears everybody."""
        others = [other for other in self.cards if other != node]
        told = {
            "run": self.run,
            "round": round,
            "node": node,
            "neighbours": {other: self.cards[other] for other in others},
            "hears": others,
            "relay": None if self.relay is None else self.relay.card,
        }
        return RoundTable(**{**told, **changed})

    def begin(self, round: int = 1, nodes: Iterable[int] | None = None, **changed: Any) -> None:
        """Tell all, or these, that a round begins."""
        for node in self.agents if nodes is None else nodes:
            self.agents[node].begin(self.table(node, round, **changed))
        if self.relay is not None:
            links = [(a, b) for a in self.cards for b in self.cards if a != b]
            table = RoundTable(run=self.run, round=round, neighbours=dict(self.cards), links=links)
            self.relay.begin(table)

    def mailbox(self, node: int, round: int = 1, wait_s: float = 60.0, **changed: Any) -> DirectMailbox:
        return DirectMailbox(node, self.table(node, round, **changed), str(self.agents[node].socket), wait_s=wait_s)

    def stop(self, node: int) -> None:
        self.agents.pop(node).close()

    def counters(self) -> Mapping[int, dict[str, Any]]:
        return {node: agent.counters.told() for node, agent in self.agents.items()}

    def close(self) -> None:
        for agent in [*self.agents.values(), *([self.relay] if self.relay is not None else [])]:
            agent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def packet(sender: int, round: int = 1, sequence: int = 0, payload: bytes = b"model") -> Packet:
    return Packet(round, sender, sequence, "identity", payload)


class AgentProcesses:
    """`flower-edge agent` as processes of their own, with `more` options; ends those it started and no others."""

    def __init__(self, folder: Path, nodes: Iterable[int], *more: str) -> None:
        self.folder, self._more = folder, more
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.told: dict[int, dict[str, Any]] = {}
        (folder / "ca.pem").write_bytes(authority().certificate_pem)
        try:
            for node in nodes:
                own = pair(f"node {node}")
                (folder / f"{node}.pem").write_bytes(own.certificate_pem)
                (folder / f"{node}.key").write_bytes(own.key_pem)
                self._start(node)
            for node in self.processes:
                self._hear(node)
        except BaseException:
            # Nobody has entered it yet, who would leave it.
            self.__exit__()
            raise

    def command(self, node: int) -> list[str]:
        """Listens where it did before."""
        listen = self.told[node]["listening"] if node in self.told else "127.0.0.1:0"
        command = [sys.executable, "-m", "flower_edge.cli.main", "agent", "--json", "--listen", listen]
        command += ["--folder", str(self.folder / str(node)), *self._more]
        for option, name in (("certificate", f"{node}.pem"), ("key", f"{node}.key"), ("authority", "ca.pem")):
            command += [f"--{option}", str(self.folder / name)]
        return command

    def start(self, node: int) -> None:
        """Again, after it has ended."""
        self._start(node)
        self._hear(node)

    def _start(self, node: int) -> None:
        self.processes[node] = subprocess.Popen(self.command(node), stdout=subprocess.PIPE, text=True)

    def _hear(self, node: int) -> None:
        out = self.processes[node].stdout
        assert out is not None
        self.told[node] = json.loads(out.readline())

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self._close(node)

    def _close(self, node: int) -> None:
        """Of one that has been told to end."""
        process = self.processes.pop(node)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()

    def card(self, node: int) -> Card:
        return Card(**self.told[node]["card"])

    def socket(self, node: int) -> str:
        return str(self.told[node]["socket"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        end_all(self.processes.values())
        for node in list(self.processes):
            self._close(node)


def eventually(true: Callable[[], bool], within_s: float = 90.0) -> bool:
    """Whether it came true in time; other threads get to run meanwhile."""
    until_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True
