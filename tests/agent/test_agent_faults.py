"""An agent is killed, hangs, or cannot be reached: nothing acknowledged is lost, and it goes on where it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from agent_cases import LIMITS, RUN, AgentProcesses, Group, eventually, packet

from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.direct import DirectMailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.round_table import RoundTable
from flower_edge.runtime.agent.settings import AgentLimits

pytestmark = pytest.mark.slow

LETTER = Packet(1, 0, 0, "identity", os.urandom(3_000_000))


class Pair:
    """Two agents, each in a process of its own: node 0 posts, node 1 hears it."""

    def __init__(self, processes: AgentProcesses) -> None:
        self.processes = processes

    def table(self, node: int, round: int = 1, **changed: Any) -> RoundTable:
        other = 1 - node
        told = {"neighbours": {other: self.processes.card(other)}, "hears": [other], "owed": [(1, other)]}
        return RoundTable(run=RUN, round=round, node=node, **{**told, **changed})

    def mailbox(self, node: int, **changed: Any) -> DirectMailbox:
        return DirectMailbox(node, self.table(node, **changed), self.processes.socket(node), wait_s=120.0)

    def ask(self, node: int, **head: Any) -> dict[str, Any]:
        with AgentClient(self.processes.socket(node)) as client:
            return client.call({"run": RUN, **head}, wait_s=120.0)[0]

    def status(self, node: int) -> dict[str, Any]:
        with AgentClient(self.processes.socket(node)) as client:
            return client.status()

    def under_way(self) -> bool:
        """Whether a part of the letter, and not the whole, is at node 1."""
        parts = list((self.processes.folder / "1" / "runs").glob("*/part/*"))
        return any(path.stat().st_size > 300_000 for path in parts)


@contextmanager
def two(folder: Path) -> Iterator[Pair]:
    with AgentProcesses(folder, [0, 1]) as processes:
        yield Pair(processes)


def came(pair: Pair) -> None:
    with pair.mailbox(1) as mailbox:
        assert mailbox.collect(1, [0])[0].packet == LETTER


@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.full), 1], ids=["sender", "receiver"])
def test_an_agent_killed_in_the_middle_of_a_letter_goes_on_where_it_was(tmp_path: Path, killed: int) -> None:
    with two(tmp_path) as pair:
        pair.mailbox(1).close()
        # 3 MB at 1 Mbit/s are 24 s: long enough to be killed in the middle of.
        with pair.mailbox(0, rates_bps={1: 1e6}) as mailbox:
            mailbox.post(LETTER, [1])
        assert eventually(pair.under_way)
        pair.processes.kill(killed)
        pair.processes.start(killed)
        # Faster from here on: what was said before the kill is known without being told again.
        pair.ask(0, do="pace", rates_bps={"1": None})
        assert pair.ask(0, do="flush", wait_s=120.0)["pending"] == 0
        came(pair)
        assert pair.status(0)["counters"].get("resumed", 0) >= 1


def test_a_letter_that_was_acknowledged_is_there_when_its_agent_was_killed(tmp_path: Path) -> None:
    with two(tmp_path) as pair:
        pair.mailbox(1).close()
        with pair.mailbox(0) as mailbox:
            mailbox.post(LETTER, [1])
            assert mailbox.flush(120.0) == 0
        for node in (0, 1):
            pair.processes.kill(node)
        pair.processes.start(1)
        came(pair)


def test_a_packet_that_was_posted_is_delivered_by_the_next_agent(tmp_path: Path) -> None:
    with two(tmp_path) as pair:
        pair.mailbox(1).close()
        card = pair.processes.card(1)
        pair.processes.kill(1)
        with DirectMailbox(0, pair.table(0), pair.processes.socket(0)) as mailbox:
            mailbox.post(LETTER, [1])
            assert mailbox.flush(0.0) == 1
        pair.processes.kill(0)
        for node in (1, 0):
            pair.processes.start(node)
        # The same key and certificate, at the same address: it is who it was.
        assert pair.processes.card(1) == card
        came(pair)


def test_an_agent_that_hangs_in_the_middle_of_a_letter_gets_the_rest_when_it_is_back(tmp_path: Path) -> None:
    with two(tmp_path) as pair:
        pair.mailbox(1).close()
        with pair.mailbox(0, rates_bps={1: 1e6}) as mailbox:
            mailbox.post(LETTER, [1])
        assert eventually(pair.under_way)
        hung = pair.processes.processes[1]
        hung.send_signal(signal.SIGSTOP)
        try:
            assert eventually(lambda: pair.status(0)["runs"][0]["links"][0]["state"] != "connected")
            assert pair.status(0)["runs"][0]["pending"] == 1
        finally:
            hung.send_signal(signal.SIGCONT)
        pair.ask(0, do="pace", rates_bps={"1": None})
        assert pair.ask(0, do="flush", wait_s=120.0)["pending"] == 0
        came(pair)


# -- in one process ----------------------------------------------------------------------------------------------------


def test_a_rate_that_is_changed_in_the_middle_of_a_letter_counts_from_there(tmp_path: Path) -> None:
    with Group(tmp_path, [0, 1]) as group:
        group.begin(1)
        begun_s = time.monotonic()
        with group.mailbox(0, rates_bps={1: 1e5}) as mailbox:
            # At 100 kbit/s it would take four minutes.
            mailbox.post(LETTER, [1])
            part = group.folder / "1" / "runs"
            assert eventually(lambda: any(part.glob("*/part/*")))
            group.agents[0].run(RUN).pace({1: 1e8})
            assert mailbox.flush(120.0) == 0
            entry = mailbox.report()["to"]["1"]
        assert entry["rate_bps"] == 1e8
        assert time.monotonic() - begun_s < 200.0
        assert entry["first_to_ack_s"] >= 8 * 2_000_000 / 1e8


def test_where_two_cannot_reach_each_other_letters_go_through_the_relay_and_count_twice(tmp_path: Path) -> None:
    with Group(tmp_path, [0, 1], relay=True) as group:
        nowhere = group.cards[1].model_copy(update={"address": "127.0.0.1:9"})
        group.begin(1)
        with group.mailbox(0, neighbours={1: nowhere}, direct_s=0.3) as mailbox:
            mailbox.post(LETTER, [1], processing_s=2.5)
            assert mailbox.flush(120.0) == 0
            entry = mailbox.report()["to"]["1"]
        with group.mailbox(1, owed=[(1, 0)]) as other:
            letter = other.collect(1, [0])[0]
        size = len(LETTER.to_bytes())
        assert (letter.packet, letter.processing_s, letter.via) == (LETTER, 2.5, "agent-relay")
        assert letter.link_s is not None
        assert (entry["via"], entry["sent_bytes"], entry["charged_bytes"]) == ("agent-relay", size, 2 * size)
        assert group.relay is not None
        told = group.relay.counters.told()
        assert eventually(lambda: group.relay.counters.told().get("relayed_down_bits") == 8 * size)  # type: ignore[union-attr]
        assert told["relayed_up_bits"] == 8 * size
        assert eventually(lambda: group.relay.status()["runs"][0]["to_relay"] == 0)  # type: ignore[union-attr]


def test_a_relay_that_is_killed_hands_out_what_it_has_acknowledged(tmp_path: Path) -> None:
    with Group(tmp_path, [0, 1], relay=True) as group:
        relay = group.relay
        assert relay is not None
        nowhere = group.cards[1].model_copy(update={"address": "127.0.0.1:9"})
        # Node 1 is told of the round, and of no relay yet: what is for it waits there.
        group.begin(1, nodes=[0])
        group.agents[1].begin(group.table(1, relay=None))
        with group.mailbox(0, neighbours={1: nowhere}, direct_s=0.2) as mailbox:
            mailbox.post(packet(0), [1])
            assert mailbox.flush(120.0) == 0
        assert relay.status()["runs"][0]["to_relay"] == 1
        port = relay.port
        relay.close()
        group.restart_relay(port)
        assert group.relay is not None
        assert group.relay.status()["runs"][0]["to_relay"] == 1
        with group.mailbox(1, owed=[(1, 0)]) as other:
            assert other.collect(1, [0])[0].packet == packet(0)


def test_letters_wait_for_the_round_that_the_receiver_has_not_begun(tmp_path: Path) -> None:
    with Group(tmp_path, [0, 1]) as group:
        group.begin(1)
        group.begin(2, nodes=[0])
        with group.mailbox(0, 2) as mailbox:
            mailbox.post(packet(0, round=2), [1])
            run = group.agents[0].run(RUN)
            assert eventually(lambda: run.report(2)["to"].get("1", {}).get("code") == "not-yet")
            assert group.agents[1].run(RUN).fetch(2, 0) is None
            group.begin(2, nodes=[1])
            assert mailbox.flush(120.0) == 0
        assert group.agents[1].run(RUN).fetch(2, 0) is not None


def test_an_agent_without_room_refuses_and_takes_the_letter_when_there_is_some(tmp_path: Path) -> None:
    with Group(tmp_path, [0, 1], limits=AgentLimits(spare_bytes=1 << 52, retry_s=0.2)) as group:
        group.begin(1)
        with group.mailbox(0) as mailbox:
            mailbox.post(packet(0), [1])
            run = group.agents[0].run(RUN)
            assert eventually(lambda: run.report(1)["to"].get("1", {}).get("code") == "no-room")
            object.__setattr__(group.limits, "spare_bytes", 1)
            assert mailbox.flush(120.0) == 0


@pytest.mark.full
def test_memory_of_an_agent_is_bounded_by_its_connections_and_not_by_letters(tmp_path: Path) -> None:
    """A letter of 200 MB goes through agents that hold two megabytes of it at a time, and gRPC's buffers."""
    with AgentProcesses(tmp_path, [0, 1]) as processes:
        pair = Pair(processes)
        pair.mailbox(1).close()
        big = Packet(1, 0, 0, "identity", bytes(200_000_000))
        before = [_rss_bytes(processes.processes[node].pid) for node in (0, 1)]
        with pair.mailbox(0) as mailbox:
            mailbox.post(big, [1])
            assert mailbox.flush(120.0) == 0
        after = [_rss_bytes(processes.processes[node].pid) for node in (0, 1)]
        assert all(b - a < 120_000_000 for a, b in zip(before, after, strict=True))
        with pair.mailbox(1) as other:
            assert other.collect(1, [0])[0].packet == big


def _rss_bytes(pid: int) -> int:
    """The most that it has held."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_another_agent_of_the_same_folder_is_refused_and_a_socket_that_is_too_long_too(tmp_path: Path) -> None:
    from agent_cases import credentials, pair

    from flower_edge.errors import ConfigError
    from flower_edge.runtime.agent.agent import Agent

    with Group(tmp_path, [0]) as group:
        with pytest.raises(ConfigError, match="an agent runs with the folder"):
            Agent(group.folder / "0", credentials(pair("node 0")))
        other = Agent(tmp_path / "other", credentials(pair("node 1")), socket=tmp_path / ("x" * 120), limits=LIMITS)
        with pytest.raises(ConfigError, match="longer than the system takes"):
            other.open()
        other.close()
        (tmp_path / "open").mkdir(mode=0o755)
        with pytest.raises(ConfigError, match="chmod 700"):
            Agent(tmp_path / "open", credentials(pair("node 1")))
