"""Gossip through agents, over real sockets with mutual TLS: the models of every other mailbox, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_cases import Group, eventually
from flwr.clientapp import ClientApp
from test_gossip import NODES, Drawn, make_app, model

from flower_edge.clients import answer_agent, answer_properties
from flower_edge.codecs import Delta, Half
from flower_edge.errors import PeerError
from flower_edge.peers.revoked import REVOKED_VARIABLE, RevokedPeers, revoked_as_bytes
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.store import RunFolder
from flower_edge.strategies import Direct, Gossip
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of

pytestmark = pytest.mark.slow


def app_with_agent() -> ClientApp:
    return answer_agent(answer_properties(make_app()))


def nodes_of(group: Group) -> list[dict[str, Any]]:
    return [
        {"partition-id": node, "num-partitions": NODES, "agent": str(agent.socket)}
        for node, agent in group.agents.items()
    ]


def through(mailbox: Any, group: Group, rounds: int = 5, **options: Any) -> list[bytes]:
    """The mean model's bytes after each round."""
    means: list[bytes] = []

    def look(number: int, arrays: Any) -> None:
        means.append(b"".join(array.tobytes() for array in arrays_of(arrays).values()))

    strategy = Gossip(Drawn(3), mailbox=mailbox, fraction_evaluate=0.0, **options)
    with LocalGrid(app_with_agent(), nodes_of(group), pool="threads", workers=2) as grid:
        result = strategy.start(RoundClock(grid), model(), rounds, evaluate_fn=look)
    assert not any("missing_packets" in told for told in result.train_metrics_clientapp.values())
    return means


@pytest.mark.parametrize("codec", [None, Delta(Half())], ids=["models", "changes"])
def test_agents_give_the_models_of_relay_and_shared_memory_byte_for_byte(tmp_path: Path, codec: Any) -> None:
    with Group(tmp_path, range(NODES), relay=True) as group:
        assert group.relay is not None
        direct = through(Direct(relay=str(group.relay.socket), wait_s=120.0), group, codec=codec)
        assert direct == through("relay", group, codec=codec)
        assert direct == through("shared-memory", group, codec=codec)
        assert len(set(direct)) == len(direct) == 6
        assert sum(told["received_letters"] for told in group.counters().values()) > 20
        assert all(
            told["refused"].keys() <= {"not-yet", "other-run", "not-neighbour"} for told in group.counters().values()
        )


def test_they_do_so_where_rounds_do_not_wait_for_everybody(tmp_path: Path) -> None:
    world = set_up("nlos-per-device", 3, nodes=NODES)
    with Group(tmp_path, range(NODES)) as group:
        direct = through(Direct(wait_s=120.0), group, world=world, staleness=2)
        assert direct == through("relay", group, world=world, staleness=2)


def test_a_resumed_run_finds_the_packets_at_the_agents(tmp_path: Path) -> None:
    with Group(tmp_path / "agents", range(NODES)) as group:
        whole = through("relay", group, 4)
        grids = [LocalGrid(app_with_agent(), nodes_of(group)) for _ in range(2)]
        with RunFolder.create("direct", config={}, seed=0, root=tmp_path) as folder:
            with grids[0] as grid:
                Gossip(Drawn(3), mailbox=Direct(wait_s=120.0)).start(RoundClock(grid), model(), 2, run=folder)
            for node in list(group.agents):
                port = group.agents[node].port
                group.stop(node)
                group.start(node, port)
            with grids[1] as grid:
                again = Gossip(Drawn(3), mailbox=Direct(wait_s=120.0)).start(
                    RoundClock(grid), model(), 4, run=folder, resume=True
                )
        assert b"".join(array.tobytes() for array in arrays_of(again.arrays).values()) == whole[-1]


def test_links_are_paced_at_their_share_and_measured(tmp_path: Path) -> None:
    with Group(tmp_path, range(NODES)) as group:
        strategy = Gossip(mailbox=Direct(capacity_bps=1e6, wait_s=120.0), fraction_evaluate=0.0)
        with LocalGrid(app_with_agent(), nodes_of(group)) as grid:
            strategy.start(RoundClock(grid), model(), 3)
        told = group.agents[0].status()["runs"][0]
        measured = group.agents[0].run(told["run"])
        # A letter may have been mixed before its sender has read the acknowledgement.
        assert eventually(lambda: sum("receiver_s" in one for one in measured.report(2)["to"].values()) == NODES - 1)
        report = measured.report(2)
        rates = {entry["rate_bps"] for entry in report["to"].values()}
        assert sorted(rates) == [pytest.approx(1e6 / (NODES - 1))]
        assert set(report["from"]) == {"1", "2", "3", "4"}
        for entry in report["from"].values():
            assert 0.0 < entry["link_s"] < 60.0
            assert 0.0 <= entry["decode_mix_s"] < 60.0
        for entry in report["to"].values():
            assert {"offer_s", "first_to_ack_s", "receiver_s"} <= entry.keys()
            # Each is a span of one clock: the receiver's lies within the sender's.
            assert 0.0 <= entry["receiver_s"] <= entry["first_to_ack_s"] + entry["offer_s"]


def test_nodes_without_an_agent_are_left_out_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Group(tmp_path, range(2)) as group:
        nodes = [*nodes_of(group), {"partition-id": 2, "num-partitions": 3}]
        strategy = Gossip(mailbox=Direct(wait_s=120.0), fraction_evaluate=0.0)
        with LocalGrid(app_with_agent(), nodes) as grid:
            result = strategy.start(RoundClock(grid), model(), 3)
        assert "no agent is known of 1 workers" in caplog.text
        assert result.arrays is not None
        assert np.isfinite(arrays_of(result.arrays)["weight"]).all()


def test_whose_certificate_is_revoked_is_in_no_table_from_the_next_round_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = tmp_path / "revoked.json"
    listed.write_bytes(revoked_as_bytes([]))
    with Group(tmp_path, range(3)) as group:
        out = group.cards[2].fingerprint
        tables: list[Any] = []

        def look(number: int, arrays: Any) -> None:
            if number == 2:
                listed.write_bytes(revoked_as_bytes([out]))
            runs = group.agents[0].status()["runs"]
            tables.extend(group.agents[0].run(run["run"]).standing.table for run in runs)

        nodes = [{**node, "num-partitions": 3} for node in nodes_of(group)]
        strategy = Gossip(mailbox=Direct(wait_s=120.0, revoked=str(listed)), fraction_evaluate=0.0)
        with LocalGrid(app_with_agent(), nodes) as grid:
            result = strategy.start(RoundClock(grid), model(), 4, evaluate_fn=look)
        assert [(table.round, sorted(table.neighbours), table.revoked) for table in tables] == [
            (1, [1, 2], []), (2, [1, 2], []), (3, [1], [out]), (4, [1], [out]),
        ]  # fmt: skip
        assert all(2 not in table.hears for table in tables[2:])
        assert all(sender != 2 for table in tables[2:] for _, sender in table.owed)
        assert "the certificate of node" in caplog.text
        assert result.arrays is not None


def test_a_list_that_was_read_holds_when_it_cannot_be_read_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "revoked.json"
    monkeypatch.setenv(REVOKED_VARIABLE, str(listed))
    revoked = RevokedPeers()
    # Named, and not there: with a mistyped path nobody would be revoked.
    with pytest.raises(PeerError, match="cannot be read"):
        revoked.now()
    listed.write_bytes(revoked_as_bytes(["ab" * 32, "cd" * 32]))
    assert revoked.now() == ("ab" * 32, "cd" * 32)
    listed.write_text('{"fingerprints": ["half')
    assert revoked.now() == ("ab" * 32, "cd" * 32)
    with pytest.raises(PeerError, match="cannot be read"):
        RevokedPeers().now()
    listed.unlink()
    assert revoked.now() == ("ab" * 32, "cd" * 32)
    monkeypatch.delenv(REVOKED_VARIABLE)
    assert RevokedPeers().now() == ()
