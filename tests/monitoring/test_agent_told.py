"""A real agent's numbers, asked over its socket: what it sent is what its neighbour received."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_cases import Group, eventually, packet
from prometheus_client.parser import text_string_to_metric_families

from flower_edge.monitoring import AgentExporter

pytestmark = pytest.mark.slow


def told(exporter: AgentExporter) -> dict[str, float]:
    """By name, with the labels' values behind it."""
    return {
        ".".join([sample.name.removeprefix("flower_edge_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(exporter.metrics.text())
        for sample in family.samples
    }


def test_what_one_agent_sent_is_what_the_other_received_and_an_end_is_told(tmp_path: Path) -> None:
    payload = b"model" * 20_000
    with Group(tmp_path, (0, 1)) as group:
        one, other = (AgentExporter(group.agents[node].socket) for node in (0, 1))
        assert (told(one)["agent_up"], told(one)["peer_letters_total.sent"]) == (1.0, 0.0)
        group.begin()
        with group.mailbox(0) as mailbox:
            mailbox.post(packet(0, payload=payload), [1])
            assert eventually(lambda: told(one)["peer_letters_total.sent"] == 1.0)
        assert eventually(lambda: told(other)["peer_letters_total.received"] == 1.0)
        here, there = told(one), told(other)
        assert here["peer_sent_bytes_total"] >= there["peer_received_bytes_total"] >= len(payload)
        assert here["peer_round.run-7"] == 1.0
        assert sum(value for name, value in here.items() if name.startswith("peer_links.")) == 1.0
        group.stop(0)
        assert told(one) == {"agent_up": 0.0}
        assert told(other)["agent_up"] == 1.0


def test_from_inside_the_agent_the_same_is_told_and_what_lies_in_its_files_and_links(tmp_path: Path) -> None:
    payload = b"model" * 20_000
    with Group(tmp_path, (0, 1)) as group:
        inside = [AgentExporter(group.agents[node].status) for node in (0, 1)]
        assert told(inside[0])["agent_up"] == 1.0
        group.agents[0].begin(group.table(0, rates_bps={1: 80e6}))
        with group.mailbox(0, rates_bps={1: 80e6}) as mailbox:
            mailbox.post(packet(0, payload=payload), [1])
            # Node 1 has not been told of the round: the packet waits here.
            assert eventually(lambda: told(inside[0]).get("spool_bytes.posted", 0.0) >= len(payload))
            assert told(inside[0])["spool_letters.posted"] == 1.0
            group.agents[1].begin(group.table(1))
            assert mailbox.flush(60.0) == 0
        here, there = told(inside[0]), told(inside[1])
        assert here["spool_bytes.posted"] == here["spool_letters.posted"] == 0.0
        assert there["spool_bytes.received"] >= len(payload)
        assert there["spool_letters.received"] == 1.0
        assert here["peer_link_rate_bps.1.run-7"] == 80e6
        assert here["peer_link_bandwidth_bps.1.run-7"] > 0.0
        assert 0.0 < here["peer_link_offer_seconds.1.run-7"] < 60.0
        assert 0.0 < there["peer_link_delay_seconds.0.run-7"] < 60.0
        asked = told(AgentExporter(group.agents[1].socket))
        assert asked.keys() == there.keys()
        assert asked["spool_bytes.received"] == there["spool_bytes.received"]
