"""The ready-made classes are their compositions, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Result, Strategy
from toy import initial_model, same_model, toy_app

from flower_edge.coverage import ByFunction
from flower_edge.errors import ConfigError, NestingError, RoundFailed
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layered, blocks
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.filtering.admitted import Admitted
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.ready_made import CoverageFedAvg, FilteredFedAvg, HierarchicalFedAvg, RewardedFedAvg

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


def held_out(arrays: Mapping[str, np.ndarray]) -> EvalResult:
    """The toy's task on data of its own."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(200, 6)) + 0.2 * rng.integers(0, NODES, size=(200, 1))
    error = x @ arrays["weight"].astype(float) + arrays["bias"].astype(float) - x @ np.arange(1.0, 7.0) - 0.5
    return EvalResult(float(np.mean(error**2)), float(np.mean(np.abs(error) < 1.0)), len(x))


def test_filtered_fedavg_with_honest_nodes_is_fedavg_bit_for_bit() -> None:
    options = {"fraction_train": 0.7, "fraction_evaluate": 0.5}
    plain = run(FedAvg(**options))
    for ready in (FilteredFedAvg(**options), FilteredFedAvg(most_examples=40, accept="reliability >= 0", **options)):
        done = run(ready)
        assert same_model(done.arrays, plain.arrays)
        assert done.train_metrics_clientapp == plain.train_metrics_clientapp


def test_filtered_and_rewarded_fedavg_are_their_compositions() -> None:
    filtered = run(FilteredFedAvg(held_out, most_examples=30, seed=3, fraction_evaluate=0.0))
    by_hand = run(
        Layered(FedAvg(fraction_evaluate=0.0), Filtered(evaluate=held_out, seed=3), Admitted(most_examples=30, seed=3))
    )
    rewarded = run(RewardedFedAvg(held_out, enrolled=Enrolment(30), seed=3, fraction_evaluate=0.0))
    assert same_model(filtered.arrays, by_hand.arrays)
    assert same_model(rewarded.arrays, by_hand.arrays)
    assert not same_model(filtered.arrays, run(FedAvg(fraction_evaluate=0.0)).arrays), "who has 32 or 35 is refused"


def test_rewarded_fedavg_pays_its_whole_budget_and_nobody_who_was_refused(tmp_path: Path) -> None:
    with RewardBook(tmp_path / "rewards.sqlite") as book:
        run(RewardedFedAvg(held_out, budget=Budget(1000), book=book, run="r", enrolled=Enrolment(30), seed=3))
        settlements = list(book.settlements())
        assert [settlement.pot for settlement in settlements] == [1000, 1000, 1000]
        refused = {node for one in settlements for node, details in one.details.items() if "refused" in details}
        assert {"4", "5"} <= refused, "they have 32 and 35 examples"
        assert book.balances()["4"] == book.balances()["5"] == 0
        assert sum(book.balances().values()) == 3000


def test_both_refuse_what_fedavg_does_not_know_and_can_be_an_edge() -> None:
    with pytest.raises(TypeError, match="fraction"):
        FilteredFedAvg(fraction=0.5)
    with pytest.raises(TypeError, match="fraction"):
        RewardedFedAvg(held_out, fraction=0.5)
    one = run(Hierarchical(edge=lambda cell: FilteredFedAvg(), cells=blocks(2), seed=1))
    two = run(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2), seed=1))
    assert same_model(one.arrays, two.arrays)
