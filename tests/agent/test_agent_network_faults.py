"""What the network does to two agents: cut, cut one way, lossy, late, slow, flapping. Nothing posted is lost.

The agents are in namespaces of their own, see `wire_cases`; the letters are of a size that takes a while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from agent_cases import RUN, AgentProcesses, authority, eventually
from wire_cases import Wire, needs_namespaces

from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.direct import DirectMailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.round_table import RoundTable
from flower_edge.transport.certificates import issue

pytestmark = [pytest.mark.slow, pytest.mark.netns]


class Apart(AgentProcesses):
    """Two agents, each in a namespace."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        self.wire = wire
        super().__init__(folder, [0, 1])

    def _start(self, node: int) -> None:
        own = issue(authority(), [self.wire.addresses[node]], name=f"node {node}")
        (self.folder / f"{node}.pem").write_bytes(own.certificate_pem)
        (self.folder / f"{node}.key").write_bytes(own.key_pem)
        super()._start(node)

    def command(self, node: int) -> list[str]:
        words = super().command(node)
        words[words.index("--listen") + 1] = f"{self.wire.addresses[node]}:9301"
        return self.wire.command(node, words)

    def table(self, node: int) -> RoundTable:
        other = 1 - node
        return RoundTable(
            run=RUN, round=1, node=node, neighbours={other: self.card(other)}, hears=[other], owed=[(1, other)]
        )

    def mailbox(self, node: int) -> DirectMailbox:
        return DirectMailbox(node, self.table(node), self.socket(node), wait_s=200.0)

    def status(self, node: int) -> dict[str, Any]:
        with AgentClient(self.socket(node)) as client:
            return client.status()

    def under_way(self) -> bool:
        """Whether part of a letter is at node 1."""
        return any(path.stat().st_size > 100_000 for path in (self.folder / "1" / "runs").glob("*/part/*"))


@contextmanager
def apart(folder: Path) -> Iterator[Apart]:
    needs_namespaces()
    with Wire() as wire, Apart(folder, wire) as agents:
        yield agents


def cut(seconds_s: float) -> Callable[[Wire], None]:
    def happens(wire: Wire) -> None:
        wire.both(open=False)
        time.sleep(seconds_s)
        wire.both(open=True)

    return happens


def one_way(wire: Wire) -> None:
    # What is sent arrives; that it has, does not.
    wire.ways[1].open = False
    time.sleep(5.0)
    wire.ways[1].open = True


def is_so(**way: Any) -> Callable[[Wire], None]:
    return lambda wire: wire.both(**way)


#: What happens in the middle of a letter, and how many bytes the letter has.
FAULTS: dict[str, tuple[Callable[[Wire], None], int]] = {
    "cut for 3 s": (cut(3.0), 1_000_000),
    "cut for 30 s": (cut(30.0), 1_000_000),
    "cut one way for 5 s": (one_way, 1_000_000),
    "5 % of packets lost": (is_so(loss=0.05, bps=0.0), 1_000_000),
    "200 ms late": (is_so(delay_s=0.2, bps=0.0), 1_000_000),
    "0.1 Mbit/s": (is_so(bps=1e5), 300_000),
    "1 s there, 1 s away": (is_so(flaps_s=1.0), 1_000_000),
}
#: On each commit; the others in the whole matrix.
SAMPLED = ("cut for 3 s", "5 % of packets lost")


@pytest.mark.parametrize(
    "name", [name if name in SAMPLED else pytest.param(name, marks=pytest.mark.full) for name in FAULTS]
)
def test_a_letter_arrives_whole_whatever_the_network_does_in_the_middle_of_it(tmp_path: Path, name: str) -> None:
    happens, size = FAULTS[name]
    letter = Packet(1, 0, 0, "identity", os.urandom(size))
    with apart(tmp_path) as agents:
        agents.wire.both(bps=1e6)
        agents.mailbox(1).close()
        with agents.mailbox(0) as mailbox:
            mailbox.post(letter, [1])
        assert eventually(agents.under_way)
        assert not agents.status(1)["counters"].get("received_letters")
        happens(agents.wire)
        with agents.mailbox(1) as mailbox:
            assert mailbox.collect(1, [0])[0].packet == letter
        assert eventually(lambda: agents.status(0)["runs"][0]["pending"] == 0)
        told = agents.status(1)["counters"]
        assert told["received_letters"] == 1  # and once, however often it was begun
        if "cut" in name or "lost" in name or "away" in name:
            assert agents.wire.lost > 0  # it did happen


@pytest.mark.full
def test_a_wire_does_what_it_says() -> None:
    needs_namespaces()
    with Wire() as wire, wire.socket(0) as one, wire.socket(1) as other:

        def came() -> float:
            """Seconds that a datagram took."""
            begun_s = time.monotonic()
            one.sendto(b"x", (wire.addresses[1], 9000))
            assert other.recv(10) == b"x"
            return time.monotonic() - begun_s

        assert came() < 2.0
        wire.both(delay_s=0.5)
        assert came() >= 0.5
        wire.ways[0].open = False
        other.settimeout(1.0)
        with pytest.raises(TimeoutError):
            came()
        wire.ways[0].open, wire.ways[1].open = True, False
        other.settimeout(5.0)
        assert came() >= 0.5  # the other way is cut
        wire.both(open=True, delay_s=0.0, loss=0.5)
        for _ in range(400):
            one.sendto(b"y", (wire.addresses[1], 9000))
            time.sleep(0.001)
        other.settimeout(1.0)
        arrived = 0
        with suppress(TimeoutError):
            while True:
                other.recv(10)
                arrived += 1
        assert 140 < arrived < 260
