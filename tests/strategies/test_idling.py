"""A flat round to which nobody can contribute: with `idle_s` time passes and the model stays, else it is waited for."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from toy import same_model, toy_app
from travellers import CONFIG, ONE, app, clock, start_model, world

from flower_edge.errors import ConfigError, NotEnoughNodes, RoundFailed
from flower_edge.runtime import SteppedGrid, VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical, Layered
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.mid_round import MidRound, OnExit
from flower_edge.strategies.idling import let_pass

#: Three terminals that are all away from 3 s to 30 s.
TUNNEL: list[dict[float, str | None]] = [{0.0: "home", 3.0: None, 30.0: "home"}] * 3


def go(
    folder: Path,
    *,
    on_exit: OnExit | None = "stop",
    rounds: int = 4,
    paths: list[dict[float, str | None]] = TUNNEL,
    script: list[Fault] | None = None,
    evaluate: float = 0.0,
    timeout: float = 3.0,
    **options: Any,
) -> tuple[Result, list[tuple[int, str, str]], float]:
    """A flat run; its events as (round, what, text), and when it ended."""
    coverage = Coverage(world(["home"], paths))
    with (
        LocalGrid(app(), len(paths), script=script or []) as local,
        RunFolder.create("idle", config={}, seed=0, root=folder) as run,
    ):
        base: Grid = clock(local, [1.0] * len(paths))
        grid = base
        if on_exit is not None:
            grid = SteppedGrid(base, 2, MidRound(coverage, on_exit=on_exit), reachable=coverage.reachable)
        strategy = Layered(FedAvg(fraction_evaluate=evaluate, **ONE), Covered(coverage))
        config = ConfigRecord(dict(CONFIG))
        result = strategy.start(grid, start_model(), rounds, timeout, config, run=run, **options)
        assert isinstance(base, VirtualClock)
        rows = [row for row in run.rows() if row.kind == "event"]
        told = [(row.round, str(row.values["what"]), str(row.values["text"])) for row in rows]
        return result, told, base.now_s


@pytest.mark.parametrize(("on_exit", "let_go_s"), [("stop", 4.0), ("keep", 4.0), ("new-data", 6.0)])
def test_a_round_that_everybody_leaves_keeps_the_model_and_time_passes(
    tmp_path: Path, on_exit: OnExit, let_go_s: float
) -> None:
    result, told, ended_s = go(tmp_path, on_exit=on_exit, idle_s=10.0)
    idle = [(number, text) for number, what, text in told if what == "idle"]
    assert [number for number, _ in idle] == [1, 2, 3]
    assert "3 of the 3 terminals asked were let go" in idle[0][1]
    assert "0 of the 1 terminals its FedAvg needs are there" in idle[1][1]
    # Three idle rounds, and one of eight steps; who kept training was done with it by then.
    assert ended_s == let_go_s + 3 * 10.0 + 8.0
    assert ("late-merged" in [what for _, what, _ in told]) is (on_exit != "stop")
    assert result.arrays["w"].numpy().any()


@pytest.mark.parametrize("on_exit", ["stop", "keep"])
def test_without_it_a_round_that_everybody_leaves_raises_and_says_how_to_go_on(tmp_path: Path, on_exit: OnExit) -> None:
    with pytest.raises(RoundFailed, match=r"3 were let go in mid-round; .* idle_s= lets time pass"):
        go(tmp_path, on_exit=on_exit)


def test_a_round_that_fails_for_another_reason_raises_with_it_too(tmp_path: Path) -> None:
    stays: list[dict[float, str | None]] = [{0.0: "home"}] * 2
    script = [Fault(node, "raise", 1) for node in (0, 1)]
    with pytest.raises(RoundFailed, match="scripted"):
        go(tmp_path, paths=stays, script=script, idle_s=10.0)


def test_nobody_in_coverage_lets_time_pass_and_evaluation_is_left_out(tmp_path: Path) -> None:
    away: list[dict[float, str | None]] = [{0.0: None, 25.0: "home"}] * 2
    result, told, ended_s = go(tmp_path, on_exit=None, paths=away, rounds=3, idle_s=10.0, evaluate=1.0)
    assert [(number, what) for number, what, _ in told if what in ("idle", "evaluation-failed")] == [
        (1, "idle"), (1, "evaluation-failed"), (2, "idle"), (2, "evaluation-failed"), (3, "idle")
    ]  # fmt: skip
    assert ended_s >= 30.0
    assert not result.arrays  # nobody trained
    assert list(result.evaluate_metrics_clientapp) == [3]


def test_without_it_nobody_in_coverage_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughNodes):
        go(tmp_path, on_exit=None, paths=[{0.0: None}] * 2, timeout=0.2)


def test_where_somebody_is_there_it_changes_nothing() -> None:
    def result(**options: Any) -> Result:
        random.seed(3)
        coverage = Coverage(world(["home"], [{0.0: "home"}] * 4))
        with LocalGrid(app(), 4) as local:
            grid = clock(local, [1.0] * 4)
            strategy = Layered(FedAvg(fraction_train=0.5), Covered(coverage))
            return strategy.start(grid, start_model(), 3, 60.0, ConfigRecord(dict(CONFIG)), **options)

    one, other = result(), result(idle_s=5.0)
    assert same_model(one.arrays, other.arrays)
    assert one.evaluate_metrics_clientapp == other.evaluate_metrics_clientapp


def test_a_run_that_idled_resumes_as_the_uninterrupted_one(tmp_path: Path) -> None:
    """The coverage's own time goes on: it stops inside the tunnel and is continued there."""

    def run_to(rounds: int, folder: RunFolder, resume: bool) -> Result:
        coverage = Coverage(world(["home"], TUNNEL))
        random.seed(999 if resume else 1)
        with LocalGrid(app(), 3) as local:
            strategy = Layered(FedAvg(fraction_evaluate=0.0, **ONE), Covered(coverage))
            config = ConfigRecord(dict(CONFIG))
            return strategy.start(
                clock(local, [1.0] * 3), start_model(), rounds, 9.0, config, run=folder, resume=resume, idle_s=10.0
            )

    with RunFolder.create("whole", config={}, seed=0, root=tmp_path) as folder:
        whole = run_to(6, folder, resume=False)
        told = [row.values["text"] for row in folder.rows() if row.kind == "event"]
    with RunFolder.create("halves", config={}, seed=0, root=tmp_path) as folder:
        run_to(2, folder, resume=False)
        halves = run_to(6, folder, resume=True)
        assert [row.values["text"] for row in folder.rows() if row.kind == "event"] == told
    assert same_model(whole.arrays, halves.arrays)


def test_without_a_virtual_clock_real_time_passes() -> None:
    with LocalGrid(ClientApp(), 1) as local:
        begun_s = time.monotonic()
        assert (
            let_pass(local, 0.02, "nobody is there").text
            == "nobody contributed (nobody is there); the model stays, 0.02 s pass"
        )
        assert time.monotonic() - begun_s >= 0.02


@pytest.mark.parametrize("idle_s", [0, -1.0, True, "soon", float("inf"), float("nan")])
def test_what_is_no_time_is_refused(idle_s: Any) -> None:
    with LocalGrid(toy_app(), 1) as local, pytest.raises(ConfigError, match="idle_s = "):
        Layered(FedAvg()).start(local, start_model(), 1, idle_s=idle_s)


def test_around_a_hierarchy_it_is_refused_with_the_place_where_it_belongs() -> None:
    tiers = Layered(Hierarchical(edge=lambda cell: FedAvg()))
    with LocalGrid(toy_app(), 2) as local, pytest.raises(ConfigError, match=r"Hierarchical\(\.\.\., idle_s=\.\.\.\)"):
        tiers.start(local, start_model(), 1, idle_s=1.0)
