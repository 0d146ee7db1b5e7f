"""What the round loop gives to who watches it: log lines with run, round and node, and an ear for a wish to stop."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.clients import logging_mod
from flower_edge.runtime import LocalGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import Layered
from flower_edge.telemetry import log_to_json
from flower_edge.wire import record_of

START = record_of({"w": np.zeros(3)})


def make_app(**options: Any) -> ClientApp:
    app = ClientApp(**options)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        logging.getLogger("flwr.test").warning("training")
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    return app


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in ("flwr", "flower_edge")]
    before = [(one, list(one.handlers), one.propagate, one.level) for one in loggers]
    stream = io.StringIO()
    for one in loggers:
        one.setLevel(logging.INFO)
    log_to_json(stream)
    yield stream
    for one, handlers, propagate, level in before:
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)


def fedavg() -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def test_lines_of_a_run_say_run_and_round_and_those_of_its_clients_the_node(tmp_path: Path, lines: io.StringIO) -> None:
    with (
        RunFolder.create("demo", config={}, seed=1, path=tmp_path / "demo") as run,
        LocalGrid(make_app(), nodes=2) as grid,
    ):
        Layered(fedavg()).start(grid, START, num_rounds=2, run=run)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {(line["run"], line["round"]) for line in told if line["message"].startswith("[ROUND")} == {
        ("demo", 1),
        ("demo", 2),
    }
    trained = sorted((line["round"], line["node"]) for line in told if line["message"] == "training")
    assert trained == [(1, 0), (1, 1), (2, 0), (2, 1)]
    logging.getLogger("flwr").info("afterwards")
    after = json.loads(lines.getvalue().splitlines()[-1])
    assert (after["run"], after["round"]) == (None, None)


def test_a_client_with_the_mod_says_so_by_itself(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_EDGE_LOG", "json")
    with LocalGrid(make_app(mods=[logging_mod]), nodes=1) as grid:
        Layered(fedavg()).start(grid, START, num_rounds=1)
        run_id = grid.run.run_id
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    (line,) = [line for line in told if line["message"] == "training"]
    assert (line["run"], line["round"], line["node"]) == (run_id, 1, 0)


def test_a_wish_to_stop_ends_the_run_after_its_round_and_it_goes_on_when_resumed(tmp_path: Path) -> None:
    asked: list[int] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number == 2 and not asked:
            asked.append(number)
            RunFolder.open(tmp_path / "first").ask_to_stop("enough for today")
        return MetricRecord({"accuracy": 0.5})

    with (
        RunFolder.create("demo", config={}, seed=1, path=tmp_path / "first") as run,
        LocalGrid(make_app(), nodes=2) as grid,
    ):
        result = Layered(fedavg()).start(grid, START, num_rounds=5, evaluate_fn=evaluate, run=run)
    assert max(result.evaluate_metrics_serverapp) == 2
    (row,) = run.rows("event")
    assert (row.round, row.values["text"]) == (2, "stopped: asked to: enough for today")
    with (
        RunFolder.create("demo", config={}, seed=1, path=tmp_path / "second") as again,
        LocalGrid(make_app(), nodes=2) as grid,
    ):
        again.continue_from(RunFolder.open(tmp_path / "first"))
        result = Layered(fedavg()).start(grid, START, num_rounds=5, evaluate_fn=evaluate, run=again, resume=True)
    assert max(result.evaluate_metrics_serverapp) == 5
