"""`BridgeTier`: edges behind a socket give the models of edges in this process; and what becomes of trouble."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from bridge_cases import TERMINALS, edge_at, edge_hosts, inner, members, terminal_app, two_edges
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from toy import initial_model, same_model

from flower_edge.cli.table import final_table
from flower_edge.clients import bridge_app
from flower_edge.errors import ConfigError
from flower_edge.monitoring.attendance import attendance
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.bridge.host import HostSettings
from flower_edge.store import RunFolder
from flower_edge.strategies import BridgeTier, Hierarchical, Layered, blocks
from flower_edge.strategies.filtering.filtered import Filtered

RUN: dict[str, Any] = {"run-name": "one"}


def through_bridge(folder: Path, *, rounds: int = 3, patience_s: float = 60.0, **options: Any) -> Any:
    """A centre and the hosts of two edges that run already."""
    strategy = Hierarchical(tier=BridgeTier(), edge_rounds=2, seed=5, **options)
    app = bridge_app(patience_s=patience_s)
    with LocalGrid(app, edge_hosts(folder), run_config=RUN, pool="threads") as local:
        return strategy.start(GridProxy(local), initial_model(), num_rounds=rounds, timeout=60.0)


def in_process(factory: Any = inner, rounds: int = 3, **options: Any) -> Any:
    with LocalGrid(terminal_app(), TERMINALS) as grid:
        strategy = Hierarchical(edge=factory, cells=blocks(2), edge_rounds=2, seed=5, **options)
        return strategy.start(grid, initial_model(), num_rounds=rounds)


def adam(cell: str) -> Strategy:
    return FedAdam(eta=0.05, fraction_train=0.7, min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1)


@pytest.mark.parametrize("factory", [inner, adam, lambda cell: Layered(inner(cell), Filtered())])
def test_models_and_metrics_are_those_of_edges_in_the_server_app_bit_for_bit(tmp_path: Path, factory: Any) -> None:
    with two_edges(tmp_path, factory=factory):
        outside = through_bridge(tmp_path)
    inside = in_process(factory)
    assert same_model(outside.arrays, inside.arrays)
    assert outside.evaluate_metrics_clientapp == inside.evaluate_metrics_clientapp
    assert outside.train_metrics_clientapp == inside.train_metrics_clientapp


def test_an_edge_that_is_ended_and_started_between_rounds_goes_on_with_its_momentum(tmp_path: Path) -> None:
    """FedAdam's moments are on the disk; without them the second run of two rounds would go another way."""
    with two_edges(tmp_path, factory=adam) as (first, _):
        strategy = Hierarchical(tier=BridgeTier(), edge_rounds=2, seed=5)
        seen: list[int] = []

        def between(number: int, arrays: ArrayRecord) -> None:
            seen.append(number)
            if number == 2:
                first.end()
                # The terminals of this edge, with what they remember, are as they were.
                restarted = threading.Thread(target=again)
                restarted.start()
                threads.append(restarted)

        threads: list[threading.Thread] = []
        done = threading.Event()

        def again() -> None:
            # Before it answers: the order that waits for it is for them.
            kept = first.grid.state_dict()
            with edge_at(tmp_path / "edge-0", members(0), factory=adam, remembered=kept):
                done.wait(120)

        with LocalGrid(bridge_app(), edge_hosts(tmp_path), run_config=RUN, pool="threads") as local:
            result = strategy.start(GridProxy(local), initial_model(), num_rounds=4, timeout=60.0, evaluate_fn=between)
        done.set()
        threads[0].join()
    assert seen == [0, 1, 2, 3, 4]
    assert same_model(result.arrays, in_process(adam, rounds=4).arrays)


@pytest.mark.slow
def test_an_edge_that_is_away_costs_the_round_its_time_and_the_others_go_on(tmp_path: Path) -> None:
    with edge_at(tmp_path / "edge-1", members(1)):
        result = through_bridge(tmp_path, rounds=1, patience_s=6.0)
    with LocalGrid(terminal_app(), TERMINALS) as grid:
        nodes = list(grid.get_node_ids())
        alone = Hierarchical(edge=inner, cells=lambda g, r: {"edge-1": nodes[3:]}, edge_rounds=2, seed=5)
        expected = alone.start(grid, initial_model(), num_rounds=1)
    assert same_model(result.arrays, expected.arrays)


def test_a_centre_that_was_away_is_told_what_the_edge_has_learned_alone(tmp_path: Path) -> None:
    settings = HostSettings(alone_after_s=0.5, alone_rounds=3)
    with two_edges(tmp_path, settings=settings) as edges:
        before = through_bridge(tmp_path, rounds=1)
        for edge in edges:
            edge.wait_until(lambda status: status.alone == 3 and status.state == "waiting")
        strategy = Hierarchical(tier=BridgeTier(), edge_rounds=2, seed=5)
        with LocalGrid(bridge_app(), edge_hosts(tmp_path), run_config=RUN, pool="threads") as local:
            after = strategy.start(GridProxy(local), before.arrays, num_rounds=1, timeout=60.0)
        assert [edge.status().alone for edge in edges] == [0, 0]
        # Bounded: three rounds alone and no more, however long nobody comes.
        calls = [edge.grid.context_of(1000).state["calls"]["n"] for edge in edges]
    assert not same_model(before.arrays, after.arrays)
    assert all(2 <= count <= 2 + 3 + 2 for count in calls)


def test_another_run_of_the_centre_begins_anew_at_the_edge(tmp_path: Path) -> None:
    with two_edges(tmp_path, factory=adam) as edges:
        through_bridge(tmp_path, rounds=2)
        assert {edge.status().run for edge in edges} == {"one"}
        strategy = Hierarchical(tier=BridgeTier(), edge_rounds=2, seed=5)
        config = {"run-name": "two"}
        for edge, own in zip(edges, (members(0), members(1)), strict=True):
            with LocalGrid(terminal_app(), own) as fresh:
                edge.grid.load_state_dict(fresh.state_dict())
        with LocalGrid(bridge_app(), edge_hosts(tmp_path), run_config=config, pool="threads") as local:
            result = strategy.start(GridProxy(local), initial_model(), num_rounds=2, timeout=60.0)
        assert {edge.status().run for edge in edges} == {"two"}
    assert same_model(result.arrays, in_process(adam, rounds=2).arrays)


def test_a_terminal_that_moved_is_counted_once_at_the_edge_it_came_to(tmp_path: Path) -> None:
    """It was in the first edge round of one edge, and is at the other since: attached for the second time."""
    here = [{"partition-id": i, "num-partitions": 4, "attachment": 1} for i in (0, 1)]
    there = [{"partition-id": i, "num-partitions": 4, "attachment": 2 if i == 1 else 1} for i in (1, 2, 3)]
    weights = {i: 20 + 3 * i for i in range(4)}

    def everybody(cell: str) -> Strategy:
        return FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0)

    with (
        edge_at(tmp_path / "edge-0", here, factory=everybody),
        edge_at(tmp_path / "edge-1", there, factory=everybody),
        LocalGrid(bridge_app(), edge_hosts(tmp_path), run_config=RUN, pool="threads") as local,
    ):
        rows: list[dict[str, Any]] = []
        strategy = Hierarchical(tier=BridgeTier(), edge_rounds=1, seed=5)
        from flower_edge.store import RunFolder

        with RunFolder.create("moved", config={}, seed=1, root=tmp_path / "runs") as run:
            strategy.start(GridProxy(local), initial_model(), num_rounds=1, timeout=60.0, run=run)
            rows = [dict(row.values) | {"cell": row.cell} for row in run.rows("train") if row.cell]
    counted = {row["cell"]: row["num-examples"] for row in rows}
    assert counted == {"edge-0": weights[0], "edge-1": weights[1] + weights[2] + weights[3]}


def test_an_edge_that_evaluates_nothing_is_not_sent_a_model_for_it(tmp_path: Path) -> None:
    def trains_only(cell: str) -> Strategy:
        return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)

    with two_edges(tmp_path, factory=trains_only) as edges:
        outside = through_bridge(tmp_path, rounds=2)
        assert [edge.status().handled for edge in edges] == [2, 2]
    inside = in_process(trains_only, rounds=2)
    assert same_model(outside.arrays, inside.arrays)
    assert outside.evaluate_metrics_clientapp == inside.evaluate_metrics_clientapp == {}


def test_without_node_properties_the_fix_is_named(tmp_path: Path) -> None:
    with (
        LocalGrid(bridge_app(), edge_hosts(tmp_path)) as local,
        pytest.raises(ConfigError, match=r"GridProxy\(grid, expected_nodes"),
    ):
        Hierarchical(tier=BridgeTier()).start(local, initial_model(), num_rounds=1)


def test_an_edge_whose_terminals_have_the_names_of_another_s_is_told_of_loudly_until_the_last_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two edges that number their terminals each from 0, and no node keys: one of them counts in no round."""

    def all_of_them(cell: str) -> Strategy:
        return FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0)

    caplog.set_level("WARNING", "flwr.edge")
    strategy = Hierarchical(tier=BridgeTier(), edge_rounds=2, seed=5)
    with (
        edge_at(tmp_path / "edge-0", members(0), factory=all_of_them),
        edge_at(tmp_path / "edge-1", members(0), factory=all_of_them),
        RunFolder.create("twice", config={}, seed=0, path=tmp_path / "run") as run,
        LocalGrid(bridge_app(patience_s=60.0), edge_hosts(tmp_path), run_config=RUN, pool="threads") as local,
    ):
        strategy.start(GridProxy(local), initial_model(), num_rounds=2, timeout=60.0, run=run)
    (lost,) = [one for one in attendance(RunFolder.open(run.path)) if not one.counted]
    kept = "edge-0" if lost.cell == "edge-1" else "edge-1"
    said = f"{lost.cell} counted in 0 of 2 rounds: its terminals moved on, and all of them are counted at {kept}."
    assert str(lost).startswith(said)
    assert "(partition-0, partition-1" in lost.why
    assert "give each terminal a node-key of its own in its node config" in lost.why
    assert caplog.messages[-1].strip() == str(lost)
    assert sum(f"cell {lost.cell} skipped" in message for message in caplog.messages) == 2
    assert final_table(RunFolder.open(run.path)).splitlines()[-1] == str(lost)
    again = Hierarchical(tier=BridgeTier())
    again.load_state_dict(strategy.state_dict())
    assert again.progress.attended == strategy.progress.attended
