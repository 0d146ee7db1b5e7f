"""An edge whose model a layer at the centre refuses is not merged, and what has happened there is told still."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, same_model, toy_app

from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import error_in_place
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import FedBuff, Hierarchical, Layer, Layered, Metered, blocks


class Told(Layer[int]):
    """At an edge: tells one event for each training round."""

    def init(self) -> int:
        return 0

    def inbound(self, state: int, round: Round, replies: list[Message]) -> tuple[list[Message], int]:
        return replies, state + (round.kind == "train")

    def events(self, state: int) -> tuple[list[Event], int]:
        return [Event("seen", "an edge has seen its replies")] * state, 0


class Refusing(Layer[None]):
    """At the centre: an error in place of one edge's model."""

    def __init__(self, cell: str) -> None:
        self.cell = cell

    def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
        if round.kind != "train":
            return replies, state
        return [
            error_in_place(reply, REFUSED, "refused (norm): too far")
            if not reply.has_error() and reply.content.config_records[EDGE_RECORD]["cell"] == self.cell
            else reply
            for reply in replies
        ], state


def run_with(folder: Path, refused: str, **options: Any) -> tuple[RunFolder, Any]:
    random.seed(4)
    strategy = Layered(
        Hierarchical(
            edge=lambda cell: Layered(FedAvg(fraction_evaluate=0.0), Told(), Metered()),
            cells=blocks(3),
            seed=1,
            **options,
        ),
        Refusing(refused),
    )
    with RunFolder.create("refused", config={}, seed=1, root=folder) as run, LocalGrid(toy_app(), 6) as grid:
        result = strategy.start(grid, initial_model(), num_rounds=2, timeout=30, run=run)
        run.finish({})
    return run, result.arrays


def seen(run: RunFolder) -> list[tuple[int, str]]:
    return sorted({(row.round, row.cell) for row in run.rows("event") if row.values.get("what") == "seen"})


@pytest.mark.parametrize("options", [{}, {"asynchronous": FedBuff(2)}], ids=["all at once", "asynchronous"])
def test_events_of_a_refused_edge_are_recorded_and_its_model_is_not_merged(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    run, model = run_with(tmp_path / "refused", "edge-1", **options)
    everybody, other = run_with(tmp_path / "nobody", "nobody", **options)
    assert not same_model(model, other)
    assert {cell for _, cell in seen(run)} == {"edge-0", "edge-1", "edge-2"}
    skipped = [str(row.values["text"]) for row in run.rows("event") if row.values.get("what") == "cell-skipped"]
    assert skipped
    assert all(text == "cell edge-1 skipped: refused (norm): too far" for text in skipped)
    assert not [row for row in everybody.rows("event") if row.values.get("what") == "cell-skipped"]


def test_nodes_and_traffic_below_a_refused_edge_are_counted(tmp_path: Path) -> None:
    run, _ = run_with(tmp_path / "refused", "edge-1")
    everybody, _ = run_with(tmp_path / "nobody", "nobody")
    assert seen(run) == seen(everybody) == [(n, f"edge-{k}") for n in (1, 2) for k in range(3)]
    for kind in ("nodes", "traffic"):
        one = {(row.round, row.cell): row.values for row in run.rows(kind)}
        other = {(row.round, row.cell): row.values for row in everybody.rows(kind)}
        assert set(one) == set(other)
    for row in run.rows("nodes"):
        assert row.values["nodes_sampled"] == row.values["nodes_replied"] == 6
        assert row.values["cells_skipped"] == 1
