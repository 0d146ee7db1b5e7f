"""What the agents of a gossiping cell measured, over real sockets, is what the run tells of its links afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent_cases import Group
from test_gossip import NODES, model
from test_gossip_direct import app_with_agent, nodes_of

from flower_edge.monitoring import RunFollower
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.store import RunFolder
from flower_edge.strategies import Direct, Gossip, Hierarchical, blocks

pytestmark = pytest.mark.slow

CLOUD_ROUNDS, EDGE_ROUNDS = 2, 2


def test_delays_that_agents_measured_in_the_cells_of_a_hierarchy_are_in_the_run_folder(tmp_path: Path) -> None:
    with (
        Group(tmp_path / "agents", range(NODES)) as group,
        RunFolder.create("cells", config={}, seed=0, path=tmp_path / "run") as run,
        LocalGrid(app_with_agent(), nodes_of(group)) as grid,
    ):
        strategy = Hierarchical(
            edge=lambda cell: Gossip(mailbox=Direct(capacity_bps=1e6, wait_s=120.0), fraction_evaluate=0.0),
            cells=blocks(2),
            edge_rounds=EDGE_ROUNDS,
        )
        strategy.start(RoundClock(grid), model(), CLOUD_ROUNDS, run=run)
        told = group.agents[0].status()["runs"][0]
        # In the last round the packets of the round before were read, and how long they had taken was told.
        measured = group.agents[0].run(told["run"]).report(CLOUD_ROUNDS * EDGE_ROUNDS - 1)["from"]
    links = RunFollower(tmp_path / "run").look().links_now()
    # Cells of three and two workers; everybody in a cell hears everybody.
    assert sorted(one.cell for one in links) == ["edge-0"] * 6 + ["edge-1"] * 2
    for one in links:
        assert one.round == CLOUD_ROUNDS
        assert one.delay_s is not None
        assert one.bandwidth_bps is not None
        assert 0.0 < one.delay_s < 60.0
    to_first = {one.sender: one.delay_s for one in links if one.receiver == "0"}
    assert to_first == {sender: pytest.approx(entry["link_s"], rel=1e-3) for sender, entry in measured.items()}
