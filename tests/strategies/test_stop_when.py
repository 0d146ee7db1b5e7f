"""The whole training ends at the first limit that is reached; time counts over a resume."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum, Result, Strategy
from laws.layer_laws import NeutralLayerLaws
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ConfigError, RoundFailed
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, blocks
from flower_edge.strategies.stop_when import StopWhen
from flower_edge.termination import Limits, NoImprovement, Score

NODES = 3


class Ticks:
    """A clock that a test moves."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.time_s, self.step_s = 100.0, step_s

    def __call__(self) -> float:
        self.time_s += self.step_s
        return self.time_s


def clocked(local: LocalGrid, seconds: float = 10.0) -> VirtualClock:
    return VirtualClock(local, [Device(fixed_s=seconds)] * NODES, [Link()] * NODES)


def rounds_of(strategy: Strategy, *, virtual: bool = False, rounds: int = 9, **options: Any) -> Result:
    random.seed(1)
    with LocalGrid(toy_app(), NODES) as local:
        grid = clocked(local) if virtual else local
        return strategy.start(grid, initial_model(), num_rounds=rounds, **options)


class TestStopWhen(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return StopWhen(Limits(wall_s=1e9, score=Score("accuracy", 2.0), no_improvement=NoImprovement("loss", 99)))


@pytest.mark.parametrize("make", [FedAvg, FedAdam, lambda: Krum(num_malicious_nodes=0)], ids=["FedAvg", "Adam", "Krum"])
def test_two_lines_end_a_flower_strategy_where_it_would_have_been_after_those_rounds(
    make: Callable[[], Strategy],
) -> None:
    stopped = rounds_of(Layered(make(), StopWhen(Limits(rounds=2))))
    assert sorted(stopped.train_metrics_clientapp) == [1, 2]
    assert same_model(stopped.arrays, rounds_of(make(), rounds=2).arrays)


def test_a_virtual_budget_ends_after_the_round_that_uses_it_up() -> None:
    # Training takes 10 s a round and evaluation as long again.
    result = rounds_of(Layered(FedAvg(), StopWhen(Limits(virtual_s=50.0))), virtual=True)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]
    without_evaluation = FedAvg(fraction_evaluate=0.0)
    result = rounds_of(Layered(without_evaluation, StopWhen(Limits(virtual_s=50.0))), virtual=True)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3, 4, 5]


def test_a_virtual_budget_begins_when_the_training_does() -> None:
    with LocalGrid(toy_app(), NODES) as local:
        clock = clocked(local)
        clock.wait_until(1000.0)
        result = Layered(FedAvg(fraction_evaluate=0.0), StopWhen(Limits(virtual_s=20.0))).start(
            clock, initial_model(), num_rounds=9
        )
    assert sorted(result.train_metrics_clientapp) == [1, 2]


def test_around_a_hierarchy_it_reads_the_same_clock_or_the_one_it_is_given() -> None:
    def run(**options: Any) -> Result:
        with LocalGrid(toy_app(), NODES) as local:
            clock = clocked(local)
            now = {name: (lambda: clock.now_s) for name in options}
            edges = Hierarchical(edge=lambda cell: FedAvg(fraction_evaluate=0.0), cells=blocks(2), edge_rounds=2)
            return Layered(edges, StopWhen(Limits(virtual_s=50.0), **now)).start(clock, initial_model(), num_rounds=9)

    assert sorted(run().train_metrics_clientapp) == sorted(run(now=True).train_metrics_clientapp) == [1, 2, 3]


def test_a_virtual_budget_without_a_virtual_clock_is_refused_after_one_round() -> None:
    with pytest.raises(ConfigError, match="put VirtualClock around the grid"):
        rounds_of(Layered(FedAvg(), StopWhen(Limits(virtual_s=5.0))))


def test_a_score_that_the_centre_finds_is_enough() -> None:
    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"accuracy": number / 10})

    result = rounds_of(Layered(FedAvg(), StopWhen(Limits(score=Score("accuracy", 0.3)))), evaluate_fn=evaluate)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]


def test_without_one_the_scores_are_those_of_the_clients() -> None:
    losses = [metrics["loss"] for metrics in rounds_of(FedAvg(), rounds=4).evaluate_metrics_clientapp.values()]
    goal = Score("loss", float(losses[2]), higher_is_better=False)  # type: ignore[arg-type]
    assert sorted(rounds_of(Layered(FedAvg(), StopWhen(Limits(score=goal)))).train_metrics_clientapp) == [1, 2, 3]


def test_no_improvement_ends_it_after_its_patience(tmp_path: Path) -> None:
    scores = {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.5, 5: 0.45}

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        return MetricRecord({"accuracy": scores[number]}) if number else None

    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        watch = StopWhen(Limits(no_improvement=NoImprovement("accuracy", 3)))
        rounds_of(Layered(FedAvg(), watch), evaluate_fn=evaluate, run=folder)
        event = folder.rows("event")[-1]
        stale = [row.values["stale_evaluations"] for row in folder.rows("traffic")]
    assert (event.round, event.values["what"]) == (5, "stopped")
    assert event.values["text"] == "stopped: accuracy has not improved on 0.5 for 3 evaluations"
    assert stale == [0, 0, 1, 2, 3]


def test_a_rule_over_conditions_of_the_servers_own_ends_it() -> None:
    free = iter([0.9, 0.5, 0.05, 0.9])
    watch = StopWhen(Limits(when=Rule("disk_free < 0.1")), conditions=lambda: {"disk_free": next(free)})
    assert sorted(rounds_of(Layered(FedAvg(), watch)).train_metrics_clientapp) == [1, 2, 3]


def test_real_time_counts_over_a_resume_without_the_time_in_between(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Kills(Layer[None]):
        active = True

        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            if self.active and round.cloud == 4:
                raise Killed
            return messages, state

    class Slow(Layer[None]):
        """Ten seconds pass in every round."""

        def merged(
            self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord
        ) -> tuple[ArrayRecord, None]:
            ticks.time_s += 10.0
            return after, state

    ticks, kills = Ticks(), Kills()

    def start(folder: RunFolder, resume: bool = False) -> Result:
        watch = StopWhen(Limits(wall_s=60.0), clock=ticks)
        strategy = Layered(FedAvg(), kills, Slow(), watch)
        with LocalGrid(toy_app(), NODES) as grid:
            return strategy.start(grid, initial_model(), num_rounds=20, run=folder, resume=resume)

    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=1, root=tmp_path) as killed:
        start(killed)
    ticks.time_s += 5000.0
    kills.active = False
    with RunFolder.create("resumed", config={}, seed=1, root=tmp_path) as again:
        again.continue_from(RunFolder.open(killed.path))
        result = start(again, resume=True)
        assert sorted(result.train_metrics_clientapp) == [1, 2, 3, 4, 5, 6]
        # Resumed once more it says at once that there is nothing left to do.
        assert sorted(start(again, resume=True).train_metrics_clientapp) == [1, 2, 3, 4, 5, 6]


def test_inside_an_edge_it_is_refused_and_told_where_it_belongs() -> None:
    edges = Hierarchical(edge=lambda cell: Layered(FedAvg(), StopWhen(Limits(rounds=1))), cells=blocks(2))
    with pytest.raises(RoundFailed, match=r"write Layered\(Hierarchical\(\.\.\.\), StopWhen"):
        rounds_of(edges)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StopWhen(Limits(trained_s=5.0)), r"write Retire\(Limits\(trained_s=5\.0\)\)"),
        (lambda: StopWhen(Limits(when=Rule("load > 1"))), "give both or none"),
        (lambda: StopWhen(Limits(), conditions=dict), "give both or none"),
    ],
)
def test_limits_that_cannot_work_here_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
