"""Links within the cells of a hierarchy reach the run folder, and what is told of them: bounded, whatever comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bridge_cases import TERMINALS, edge_hosts, members, two_edges
from flwr.serverapp.strategy import Strategy
from hypothesis import given
from hypothesis import strategies as st
from test_gossip import Drawn, make_app, model

from flower_edge.clients import answer_properties, bridge_app, edge_app
from flower_edge.monitoring import Link, RunExporter, RunFollower
from flower_edge.monitoring.links import MOST_LINKS, MOST_LINKS_UP, LinkTable, links_of, told_in_full
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.edge_messages import EDGE_RECORD, LINKS_KEY
from flower_edge.store import RunFolder
from flower_edge.strategies import BridgeTier, Gossip, Hierarchical, Layered, LocalTier, Metered, blocks
from flower_edge.topology.set_ups import set_up

CELL = TERMINALS // 2
ROUNDS = 2


def cell(name: str) -> Strategy:
    """Gossip over modelled links, so that what they take is the same wherever an edge runs."""
    return Gossip(Drawn(1), world=set_up("nlos", 1, nodes=CELL), payload_bits=1e6, fraction_evaluate=0.0)


def terminals() -> Any:
    return answer_properties(make_app())


def members_of(name: str, context: Any) -> list[dict[str, Any]]:
    return members(int(name.removeprefix("edge-")))


def in_the_server_app(folder: Path, run: RunFolder) -> None:
    with LocalGrid(terminals(), TERMINALS) as grid:
        strategy = Hierarchical(edge=lambda name: Layered(cell(name), Metered()), cells=blocks(2), edge_rounds=2)
        strategy.start(grid, model(), ROUNDS, run=run)


def in_edge_apps(folder: Path, run: RunFolder) -> None:
    with LocalGrid(edge_app(terminals(), cell, members_of), 2) as grid:
        Hierarchical(tier=LocalTier(), edge_rounds=2).start(grid, model(), ROUNDS, run=run)


def behind_sockets(folder: Path, run: RunFolder) -> None:
    config = {"run-name": "one"}
    with (
        two_edges(folder, factory=cell, app=terminals()),
        LocalGrid(bridge_app(patience_s=120.0), edge_hosts(folder), run_config=config, pool="threads") as grid,
    ):
        Hierarchical(tier=BridgeTier(), edge_rounds=2).start(GridProxy(grid), model(), ROUNDS, timeout=120.0, run=run)


@pytest.mark.parametrize("through", [in_the_server_app, in_edge_apps, behind_sockets])
def test_links_of_every_cell_are_recorded_in_every_round_whatever_the_tier(
    tmp_path: Path, through: Callable[[Path, RunFolder], None]
) -> None:
    with RunFolder.create("links", config={}, seed=0, path=tmp_path / "run") as run:
        through(tmp_path, run)
    state = RunFollower(tmp_path / "run").look()
    rows = RunFolder.open(tmp_path / "run").rows("links")
    assert [(row.round, row.cell) for row in rows] == [(n, f"edge-{i}") for n in (1, 2) for i in (0, 1)]
    expected = gossiped()
    for row in rows:
        found = [(one.sender, one.receiver) for one in links_of(str(row.values["table"]), row.round)]
        assert len(found) == row.values["links"] == row.values["timed"] > 0
    links = state.links_now()
    for name in ("edge-0", "edge-1"):
        assert [one.delay_s for one in links if one.cell == name] == pytest.approx(expected, rel=1e-4)
    assert state.links_total() == 2 * len(expected)
    line = state.lines[-1]
    assert line.links == 2 * len(expected)
    assert line.link_slowest_s == pytest.approx(max(expected), rel=1e-4)
    assert line.link_mean_s == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    text = RunExporter(tmp_path / "run").metrics.text()
    assert text.count('flower_edge_link_delay_seconds{cell="edge-1"') == len(expected)


def gossiped() -> list[float]:
    """Delays after the edge rounds of both cloud rounds, of such a cell by itself, the least bandwidth first."""
    strategy = Gossip(Drawn(1), world=set_up("nlos", 1, nodes=CELL), payload_bits=1e6, fraction_evaluate=0.0)
    with LocalGrid(terminals(), CELL) as grid:
        strategy.start(grid, model(), 2 * ROUNDS)
    return [one.delay_s or 0.0 for one in LinkTable.of(strategy.links()).links]


def test_what_nobody_models_and_no_mailbox_times_is_not_told() -> None:
    strategy = Gossip(Drawn(1), fraction_evaluate=0.0)
    with LocalGrid(terminals(), CELL) as grid:
        strategy.start(grid, model(), 2)
    assert strategy.links()
    assert {(one.bandwidth_bps, one.delay_s) for one in strategy.links()} == {(None, None)}


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_an_edge_sends_up_its_slowest_links_and_how_many_there_are() -> None:
    links = [Link(f"device-{n}", "another", 1e6 * (n + 1), 1.0 / (n + 1), 0.123456789) for n in range(5000)]
    told = LinkTable.of(links, MOST_LINKS_UP)
    text = told.to_json()
    assert len(text) < 60 * MOST_LINKS_UP
    back = LinkTable.from_json(text, 3, "edge-1")
    assert back is not None
    assert (back.counted, back.timed, back.slowest_s, back.least_bps) == (5000, 5000, 1.0, 1e6)
    assert [one.sender for one in back.links] == [f"device-{n}" for n in range(MOST_LINKS_UP)]
    assert {(one.round, one.cell) for one in back.links} == {(3, "edge-1")}
    assert len(LinkTable.of(links).links) == MOST_LINKS


def test_a_long_run_tells_links_word_by_word_in_some_rounds_and_in_a_few_numbers_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [n for n in range(1, 2000) if told_in_full(n)] == [
        *range(1, 101),
        *range(110, 1001, 10),
        *range(1100, 2000, 100),
    ]
    monkeypatch.setattr("flower_edge.strategies.run_session.told_in_full", lambda round: round % 3 == 1)

    class Linked(Gossip):
        def links(self) -> tuple[Link, ...]:
            return (Link("0", "1", 1e6, 0.5),)

    strategy = Linked(fraction_evaluate=0.0, mean_every=1)
    with RunFolder.create("long", config={}, seed=0, path=tmp_path / "run") as run, LocalGrid(make_app(), 2) as grid:
        strategy.start(grid, model(), 6, run=run)
    rows = RunFolder.open(tmp_path / "run").rows("links")
    assert [row.round for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.round for row in rows if "table" in row.values] == [1, 4, 6]
    assert {row.values["slowest_s"] for row in rows} == {0.5}
    (link,) = RunFollower(tmp_path / "run").look().links_now()
    assert link.round == 6


ANYTHING = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=12)


@given(st.text(max_size=40) | ANYTHING.map(json.dumps) | ANYTHING)
def test_a_table_that_is_none_is_left_out_whatever_it_is(value: object) -> None:
    table = LinkTable.from_json(value)
    assert table is None or table.row(1).values["links"] == table.counted


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[[1,1,null,null,null]," + "[" * 50_000,
        f"[[{10**400},1,null,null,null],[]]",
        "[[-1,0,null,null,null],[]]",
        "[[true,0,null,null,null],[]]",
        '[[1,1,null,null,null],[["a","b",1]]]',
        json.dumps([[1, 1, None, None, None], [["a", "b", None, None, None]] * 20_000]),
    ],
)
def test_tables_that_an_edge_should_not_have_sent_are_refused(text: str) -> None:
    assert LinkTable.from_json(text) is None


def test_numbers_of_hundreds_of_digits_and_long_names_are_cut() -> None:
    table = LinkTable.from_json(f'[[1,1,{10**400},1e400,null],[["{"x" * 9999}","b",{10**400},NaN,1]]]')
    assert table is not None
    assert table.links == (Link("x" * 40, "b", None, None, 1.0),)
    assert (table.mean_s, table.slowest_s) == (None, None)


def test_an_edge_that_sends_nonsense_about_its_links_is_merged_all_the_same(tmp_path: Path) -> None:
    def lies(message: Any, context: Any, call_next: Any) -> Any:
        reply = call_next(message, context)
        reply.content[EDGE_RECORD][LINKS_KEY] = "[" * 100_000
        return reply

    app = edge_app(terminals(), cell, members_of, mods=[lies])
    with RunFolder.create("lies", config={}, seed=0, path=tmp_path / "run") as run, LocalGrid(app, 2) as grid:
        result = Hierarchical(tier=LocalTier()).start(grid, model(), 1, run=run)
    assert result.arrays
    assert RunFolder.open(tmp_path / "run").rows("links") == []
