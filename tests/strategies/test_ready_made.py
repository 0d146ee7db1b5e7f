"""The ready-made classes are their compositions, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Result, Strategy
from toy import initial_model, same_model, toy_app

from flower_edge.coverage import ByFunction
from flower_edge.errors import ConfigError, NestingError, RoundFailed
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layered, blocks
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.ready_made import CoverageFedAvg, HierarchicalFedAvg

NODES = 6


def run(strategy: Strategy, **options: Any) -> Result:
    random.seed(4)
    with LocalGrid(toy_app(), NODES) as local:
        clock = VirtualClock(local, [Device(fixed_s=1.0)] * NODES, [Link()] * NODES)
        return strategy.start(clock, initial_model(), num_rounds=3, **options)


def moving() -> Coverage:
    """Node k begins at edge k % 2 and changes it every 3 seconds; node 5 is nowhere at first."""

    def where(time_s: float) -> list[str | None]:
        return [f"edge-{(k + int(time_s // 3)) % 2}" if k < 5 or time_s >= 2 else None for k in range(NODES)]

    return Coverage(ByFunction(["edge-0", "edge-1"], NODES, where))


def test_hierarchical_fedavg_is_its_composition() -> None:
    options = {"fraction_train": 0.7, "fraction_evaluate": 0.0}
    ready = run(HierarchicalFedAvg(blocks(2), edge_rounds=2, seed=7, **options))
    by_hand = run(Hierarchical(edge=lambda cell: FedAvg(**options), cells=blocks(2), edge_rounds=2, seed=7))
    assert same_model(ready.arrays, by_hand.arrays)
    assert not same_model(ready.arrays, initial_model())


def test_coverage_fedavg_is_its_composition() -> None:
    options = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    ready = run(CoverageFedAvg(moving(), edge_rounds=2, seed=7, **options))
    coverage = moving()
    by_hand = run(
        Hierarchical(
            edge=lambda cell: Layered(FedAvg(**options), Covered(coverage)), cells=coverage, edge_rounds=2, seed=7
        )
    )
    assert same_model(ready.arrays, by_hand.arrays)
    assert not same_model(ready.arrays, initial_model())


def test_nobody_in_coverage_is_an_error_unless_time_may_pass() -> None:
    def nowhere() -> Coverage:
        return Coverage(ByFunction(["edge-0"], NODES, lambda time_s: [None] * NODES))

    with pytest.raises(RoundFailed, match="idle_s= lets time pass"):
        run(CoverageFedAvg(nowhere()))
    assert not run(CoverageFedAvg(nowhere(), idle_s=5.0)).train_metrics_clientapp


def test_each_can_be_recorded_and_taken_up_again(tmp_path: Path) -> None:
    options = {"min_train_nodes": 1, "min_available_nodes": 1}
    for make in (lambda: HierarchicalFedAvg(blocks(2), **options), lambda: CoverageFedAvg(moving(), **options)):
        with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
            whole = run(make(), run=folder)
            again = run(make(), run=folder, resume=True)
        assert same_model(whole.arrays, again.arrays)


def test_layers_go_around_it_and_flowers_wrappers_do_not() -> None:
    ready = HierarchicalFedAvg(blocks(2))
    Layered(ready)
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(NestingError, match="wrap the inner strategies"):
        DifferentialPrivacyServerSideFixedClipping(ready, 0.1, 1.0, 2).start(grid, initial_model(), num_rounds=1)
    with pytest.raises(ConfigError, match="edge_rounds = 0"):
        HierarchicalFedAvg(blocks(2), edge_rounds=0)
