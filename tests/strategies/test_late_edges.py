"""Edges that the centre does not wait for: merged as they come, however late, or dropped."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from seeking_toy import START, away, goal, one_each, recorded, run, seeking_app, w

from flower_edge.clients import edge_app
from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Fault, Link, LocalGrid, VirtualClock
from flower_edge.store import RunFolder
from flower_edge.strategies import (
    FedAsync,
    FedBuff,
    Hierarchical,
    Layer,
    Layered,
    LocalTier,
    Metered,
    blocks,
    constant,
)


def asynchronous(
    seconds: list[float], buffer: int, mixing: float, against: str, rounds: int, s: Any
) -> tuple[np.ndarray, float]:
    """The thirty-line version: one terminal per edge, an event queue, the equations of the papers."""
    now, model, version, busy = 0.0, np.zeros(2), 0, {}
    queue: list[tuple[float, int]] = []
    for _ in range(rounds):
        for edge, took in enumerate(seconds):
            if edge not in busy:
                busy[edge] = (version, model.copy())
                heapq.heappush(queue, (now + took, edge))
        came = []
        while len(came) < buffer and queue:
            now, edge = heapq.heappop(queue)
            came.append((edge, *busy.pop(edge)))
        total = sum(edge + 1 for edge, _, _ in came)
        mean = np.zeros(2)
        for edge, began, base in came:
            own = base + (goal(edge) - base) / 3
            step = own - (base if against == "version" else model)
            mean += (edge + 1) / total * (model + s(version - began) * step)
        model, version = model + mixing * (mean - model), version + 1
    return model, now


#: No two edges ever come at the same moment.
SECONDS = [1.0, 2.3, 7.01, 3.17]


@pytest.mark.parametrize("against", ["version", "current"])
@pytest.mark.parametrize(("buffer", "mixing"), [(1, 1.0), (1, 0.3), (2, 1.0), (3, 0.5)])
def test_late_edges_are_merged_as_the_equations_say(buffer: int, mixing: float, against: Any) -> None:
    strategy = Hierarchical(one_each, cells=blocks(4), asynchronous=FedBuff(buffer, mixing, against=against))
    result, grid = run(strategy, rounds=9, seconds=SECONDS)
    model, now_s = asynchronous(SECONDS, buffer, mixing, against, 9, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(result), model, rtol=1e-12)
    assert isinstance(grid, VirtualClock)
    assert grid.now_s == pytest.approx(now_s)


def test_fedbuff_with_a_buffer_of_one_is_fedasync() -> None:
    one, _ = run(
        Hierarchical(one_each, cells=blocks(4), asynchronous=FedBuff(1, 0.6, against="current")), 4, 9, SECONDS
    )
    other, _ = run(Hierarchical(one_each, cells=blocks(4), asynchronous=FedAsync(0.6)), 4, 9, SECONDS)
    np.testing.assert_array_equal(w(one), w(other))
    # w <- w + α s(τ) (w_e − w), one edge at a time
    model, _ = asynchronous(SECONDS, 1, 0.6, "current", 9, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(other), model, rtol=1e-12)


@pytest.mark.parametrize("seconds", [None, SECONDS])
def test_a_buffer_of_all_edges_is_the_synchronous_merge_bit_for_bit(seconds: list[float] | None) -> None:
    sync, _ = run(Hierarchical(one_each, cells=blocks(4), edge_rounds=2), seconds=seconds)
    buffered, _ = run(Hierarchical(one_each, cells=blocks(4), edge_rounds=2, asynchronous=FedBuff(4)), seconds=seconds)
    np.testing.assert_array_equal(w(buffered), w(sync))


def test_a_slow_edge_holds_nobody_up() -> None:
    seconds = [1.0, 1.0, 1.0, 100.0]
    _, waited = run(Hierarchical(one_each, cells=blocks(4)), rounds=5, seconds=seconds)
    _, went_on = run(Hierarchical(one_each, cells=blocks(4), asynchronous=FedBuff(3)), rounds=5, seconds=seconds)
    assert isinstance(waited, VirtualClock)
    assert isinstance(went_on, VirtualClock)
    assert (waited.now_s, went_on.now_s) == (500.0, 5.0)


def test_an_edge_that_is_too_late_is_dropped_by_name_and_begins_anew(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1, max_staleness=2, staleness=constant()))
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=8, seconds=[1.0, 3.5])
    dropped = [row for row in folder.rows("event") if row.values["what"] == "cell-skipped"]
    assert dropped
    assert {row.cell for row in dropped} == {"edge-1"}
    assert "began 3 versions ago, and at most 2 are merged" in str(dropped[0].values["text"])


def test_how_late_an_edge_was_and_what_it_counted_is_recorded(tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1))
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=6, seconds=[1.0, 3.5])
    late = [row for row in folder.rows("event") if row.values["what"] == "late-merged"]
    assert late
    assert late[0].cell == "edge-1"
    assert late[0].values["scale"] == pytest.approx((1 + int(late[0].values["staleness"])) ** -0.5)


def test_edges_in_clientapps_are_merged_as_they_come() -> None:
    def members(cell: str, context: Context) -> list[dict[str, int]]:
        return [{"partition-id": int(context.node_config["partition-id"]), "num-partitions": 4}]

    strategy = Hierarchical(tier=LocalTier(), asynchronous=FedBuff(1))
    with LocalGrid(edge_app(seeking_app(), one_each, members), 4) as local:
        clock = VirtualClock(local, [Device(step_s=s) for s in SECONDS], [Link()] * 4)
        result = strategy.start(clock, START, num_rounds=9)
    model, now_s = asynchronous(SECONDS, 1, 1.0, "version", 9, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(result), model, rtol=1e-12)
    assert clock.now_s == pytest.approx(now_s)


def test_layers_of_the_centre_see_late_edges_too() -> None:
    strategy = Layered(Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1)), Metered())
    result, _ = run(strategy, nodes=2, rounds=5, seconds=[1.0, 3.5])
    model, _ = asynchronous([1.0, 3.5], 1, 1.0, "version", 5, lambda tau: (1 + tau) ** -0.5)
    np.testing.assert_allclose(w(result), model, rtol=1e-12)


def test_an_asynchronous_run_can_be_stopped_and_goes_on(tmp_path: Path) -> None:
    def strategy() -> Hierarchical:
        return Hierarchical(one_each, cells=blocks(3), asynchronous=FedBuff(1))

    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        run(strategy(), nodes=3, rounds=4, seconds=SECONDS[:3], run=folder)
        went_on = strategy()
        result, _ = run(went_on, nodes=3, rounds=8, seconds=SECONDS[:3], run=folder, resume=True)
    assert went_on.progress.version == 8
    assert np.isfinite(w(result)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer": 0}, "buffer = 0"),
        ({"buffer": 1, "mixing": 0.0}, "mixing = 0.0"),
        ({"buffer": 1, "max_staleness": -1}, "max_staleness = -1"),
        ({"buffer": 1, "against": "both"}, "against = 'both'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FedBuff(**options)


def test_an_edge_whose_reply_comes_when_its_cell_is_not_listed_is_merged_and_asked_again() -> None:
    asked: list[tuple[int, str]] = []

    class Told(Layer[None]):
        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            asked.extend((round.cloud, round.cell) for _ in messages[:1])
            return messages, state

    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        fast, slow = list(grid.get_node_ids())
        return {"fast": [fast]} if 2 <= round.cloud <= 4 else {"fast": [fast], "slow": [slow]}

    strategy = Hierarchical(
        lambda cell: Layered(one_each(cell), Told()), cells=cells, asynchronous=FedBuff(1, staleness=constant())
    )
    run(strategy, nodes=2, rounds=8, seconds=[1.0, 2.5])
    assert [number for number, cell in asked if cell == "slow"][:2] == [1, 5]


@pytest.mark.parametrize("direction", ["outbound", "inbound"])
def test_a_layer_that_drops_an_edge_once_does_not_lose_it_for_good(direction: str, tmp_path: Path) -> None:
    class Drops(Layer[int]):
        def init(self) -> int:
            return 0

        def _without_first(self, state: int, round: Round, messages: list[Message]) -> tuple[list[Message], int]:
            if round.cloud == 1 and round.kind == "train" and messages:
                return messages[1:], state + 1
            return messages, state

    setattr(Drops, direction, Drops._without_first)
    strategy = Layered(Hierarchical(one_each, cells=blocks(2), asynchronous=FedBuff(1), idle_s=0.5), Drops())
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=6, seconds=[1.0, 1.3])
    replied = {row.cell for row in folder.rows("train") if row.cell and row.number("num-examples")}
    assert replied == {"edge-0", "edge-1"}


def edges_of_one(app: ClientApp) -> ClientApp:
    def members(cell: str, context: Context) -> list[dict[str, int]]:
        return [{"partition-id": int(context.node_config["partition-id"]), "num-partitions": 3}]

    return edge_app(app, one_each, members)


def test_a_silent_edge_is_given_up_and_asked_again() -> None:
    strategy = Hierarchical(tier=LocalTier(poll_s=0.01), asynchronous=FedBuff(3))
    silent = [Fault(2, "silent", at=1)]
    begun_s = time.monotonic()
    with LocalGrid(edges_of_one(seeking_app()), 3, script=silent) as grid:
        strategy.start(grid, START, num_rounds=4, timeout=1.0)
    assert strategy.progress.under_way == {}
    assert time.monotonic() - begun_s < 8, "one wait, and not one per round"


def test_an_edge_away_beyond_the_limit_is_not_merged_and_its_lateness_is_the_true_one(tmp_path: Path) -> None:
    def strategy(limit: int | None) -> Hierarchical:
        return Hierarchical(
            one_each, cells=blocks(2), reachable=away({2, 3, 4}), asynchronous=FedBuff(2, max_staleness=limit)
        )

    _, late = recorded(tmp_path / "late", strategy(None), nodes=2, rounds=5)
    (event,) = [row.values for row in late.rows("event") if row.values["what"] == "late-merged"]
    assert event["staleness"] == 4
    _, dropped = recorded(tmp_path / "dropped", strategy(2), nodes=2, rounds=5)
    assert not [row for row in dropped.rows("event") if row.values["what"] == "late-merged"]
    assert any("began 4 versions ago" in str(row.values["text"]) for row in dropped.rows("event"))
