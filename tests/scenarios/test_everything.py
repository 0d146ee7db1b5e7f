"""The scenario in which everything is on: every part acts, and together they do nothing where they are neutral."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg
from scenario_run import declared, run_in_process

from flower_edge.config import read_config
from flower_edge.models import get_arrays
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.launching.launcher import launch
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder
from flower_edge.store.reward_book import RewardBook
from flower_edge.wire import arrays_of, record_of

APP = Path(__file__).parents[2] / "scenarios" / "everything"
TERMINALS = 18
#: Every part is there and has nothing to do: one edge that reaches all, all of them asked, one edge round, links of the
#: same weight, codes that change nothing, a gate and a filter that find nothing, rewards that are only booked.
NEUTRAL: dict[str, Any] = {
    "num-server-rounds": 3,
    "edge-rounds": 1,
    "area.edges": 1,
    "area.radius-m": 2000.0,
    "area.away-share": 0.0,
    "select.per-edge": 0,
    "select.eligible": "",
    # By lot, of which all win: others would be asked for their conditions first, and questions take time.
    "select.score": "random",
    "cells.controller": "equal",
    # A gossiping cell's mean is that of its models; FedAvg's is by examples: of these everybody has as many.
    "data.scheme": "iid",
    "train.steps": 4,
    "cells.codec": "identity",
    "centre.up": "identity",
    "centre.down": "identity",
    "faults.noise": "",
    "pictures": False,
}

RunIt = Callable[[dict[str, Any]], RunFolder]


@pytest.fixture
def run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunIt]:
    yield lambda config: run_in_process(APP, TERMINALS, tmp_path / "runs", monkeypatch, config)
    for name in [name for name in sys.modules if name.startswith("everything_app")]:
        del sys.modules[name]


def model_of(run: RunFolder) -> dict[str, np.ndarray]:
    return run.load_model("last")


def fedavg(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Flower's own strategy, alone, with the scenario's terminals; their models come as late as they do there."""
    from everything_app import task, world
    from everything_app.client_app import app
    from everything_app.config import Everything

    whole = {**declared(APP), **config}
    keys = read_config(Everything, whole)
    first: ArrayRecord = record_of(get_arrays(task.model(keys)))
    with (
        LocalGrid(app, TERMINALS, run_config=whole) as local,
        GridProxy(local, expected_nodes=TERMINALS, seed=keys.seed) as proxy,
    ):
        clock = world.clock(keys, proxy, TERMINALS)
        result = FedAvg(fraction_evaluate=0.0).start(clock, first, num_rounds=keys.rounds)
    return dict(arrays_of(result.arrays))


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower draws the order in which it adds models up, and the last bits of a sum of floats depend on it."""
    monkeypatch.setattr(random, "sample", lambda population, k: list(population)[:k])


@pytest.mark.slow
@pytest.mark.usefixtures("in_order")
def test_with_every_part_neutral_it_is_fedavg_bit_for_bit(run_it: RunIt) -> None:
    config = {**NEUTRAL, "cells.kind": "fedavg"}
    run = run_it(config)
    expected = fedavg(config)
    for name, array in model_of(run).items():
        np.testing.assert_array_equal(array, expected[name])
    assert not [row for row in run.rows("event") if row.values.get("what") in ("refused", "handed-over")]


@pytest.mark.slow
@pytest.mark.usefixtures("in_order")
def test_with_every_part_neutral_gossiping_cells_are_fedavg_but_for_the_order_of_sums(run_it: RunIt) -> None:
    run = run_it({**NEUTRAL, "cells.kind": "gossip"})
    expected = fedavg(NEUTRAL)
    # A mean of 18 models in float64, cast once, and Flower's sum in float32: the last bits of float32 differ, and
    # training from there carries that on.
    apart = max(float(np.abs(array - expected[name]).max()) for name, array in model_of(run).items())
    assert apart < 1e-6


@pytest.mark.slow
def test_every_part_acts_in_one_run(run_it: RunIt) -> None:
    run = run_it({"num-server-rounds": 4})
    events = run.rows("event")
    happened = {str(row.values.get("what")) for row in events}
    assert {"handed-over", "refused", "settled"} <= happened
    assert {row.node for row in events if row.values.get("what") == "refused"} <= {"edge-0", "edge-1", "edge-2"}
    with RewardBook(run.path / "rewards.sqlite") as book:
        assert sum(book.balances().values()) == 4 * 3_000_000
        assert book.verify().ok
    cells = [row for row in run.rows("train") if row.cell]
    # Neighbours' packets were mixed: they went down through the edge.
    assert sum(float(row.values.get("relay_down_bits", 0.0)) > 0 for row in cells) >= 3
    (last,) = [row.values for row in run.rows("traffic") if row.round == 4 and not row.cell]
    assert float(last["total_round_trip_ratio"]) > 2.5
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    assert scores[4] > scores[0] + 0.3
    for name in ("map.png", "attachment.png", "everything.png"):
        assert (run.artifacts / name).stat().st_size > 0
    with (run.artifacts / "everything.csv").open(encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    assert [float(line["accuracy"]) for line in told] == pytest.approx(list(scores.values()), rel=1e-5)
    marked = {(int(line["round"]), f"edge-{n}") for line in told for n in range(3) if line[f"edge-{n} refused"]}
    assert marked == {(row.round, row.node) for row in events if row.values.get("what") == "refused"}
    assert run.summary["models refused"] >= 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(run_it: RunIt) -> None:
    first, second = (run_it({"num-server-rounds": 2, "pictures": False}) for _ in range(2))
    for name, array in model_of(first).items():
        np.testing.assert_array_equal(array, model_of(second)[name])


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.full
def test_it_runs_through_flwr_run_with_the_numbers_of_one_process(run_it: RunIt, tmp_path: Path) -> None:
    result = launch(APP, run_config={"quick": True}, runs=tmp_path / "flwr", timeout_s=500)
    assert result.status == "completed", result.details
    assert result.run_folder is not None
    there, here = RunFolder.open(result.run_folder), run_it({"quick": True})
    for name, array in model_of(here).items():
        np.testing.assert_array_equal(array, model_of(there)[name])
