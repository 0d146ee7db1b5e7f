"""The run folder tells what became of partial work, once, and of what has not come back when the run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from travellers import CONFIG, ONE, app, clock, start_model

from flower_edge.coverage import Jumping
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Decision, Detach, Drop, Progress, Renew, Replace, Stop
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.period import UntilPeriodEnds
from flower_edge.selection import Oort, Pipeline
from flower_edge.store.rows import Row
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Layer, Layered
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.mid_round import MidRound
from flower_edge.strategies.selected import Selected

Policy = Callable[[Progress], Decision]


def at_four(node_id: int, decision: Decision, rounds: tuple[int, ...] = (1,)) -> Policy:
    """One decision about one node, after four steps."""

    def decide(progress: Progress) -> Decision:
        meant = (progress.node_id, progress.steps_done) == (node_id, 4) and progress.round in rounds
        return decision if meant else Continue()

    return decide


class Shown(Layer[None]):
    """Shows the strategy the first so many nodes, by round."""

    narrows = True

    def __init__(self, *counts: int) -> None:
        self.counts = counts

    def init(self) -> None:
        return None

    def narrow(self, state: None, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], None]:
        return nodes[: self.counts[round.cloud - 1]], None


class StopAfter(Layer[None]):
    """Ends the run after so many rounds."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def init(self) -> None:
        return None

    def stop(self, state: None, round: Round) -> str | None:
        return "enough" if round.cloud >= self.rounds else None


def run_of(
    folder: RunFolder,
    decide: Policy,
    *,
    step_s: tuple[float, ...] = (1.0, 1.0, 1.0),
    rounds: int = 1,
    resume: bool = False,
    script: tuple[Fault, ...] = (),
    clocked: bool = True,
    fraction: float = 1.0,
    layers: tuple[Layer[Any], ...] = (),
    steps: int = 8,
    **options: Any,
) -> SteppedGrid:
    with LocalGrid(app(), len(step_s), script=script) as local:
        inner = clock(local, step_s) if clocked else local
        grid = SteppedGrid(inner, 4, decide, poll_s=0.002, **options)
        strategy = Layered(FedAvg(fraction_train=fraction, fraction_evaluate=0.0, **ONE), *layers)
        config = ConfigRecord({**CONFIG, "local-steps": steps})
        strategy.start(grid, start_model(), rounds, 30.0, config, run=folder, resume=resume)
        return grid


def told(folder: RunFolder) -> list[Row]:
    return [row for row in folder.rows("event") if row.values["what"] != "found"]


NewFolder = Callable[[str], RunFolder]


@pytest.fixture
def new_folder(tmp_path: Path) -> Iterator[NewFolder]:
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(RunFolder.create(name, config={}, seed=0, root=tmp_path))


@pytest.fixture
def folder(new_folder: NewFolder) -> RunFolder:
    return new_folder("one")


@pytest.mark.parametrize(
    ("decision", "what", "work"),
    [
        (Stop(), "stopped-early", "returned"),
        (Drop(), "dropped", "discarded"),
        (Detach(), "detached", "kept on the node; nobody waits for it"),
    ],
)
def test_what_became_of_partial_work_is_in_the_run_folder(
    folder: RunFolder, decision: Decision, what: str, work: str
) -> None:
    run_of(folder, at_four(1001, decision), step_s=(1.0, 1.5, 1.0))
    row = told(folder)[0]
    assert (row.values["what"], row.node, row.round, row.virtual_s) == (what, "1", 1, 6.0)
    assert {name: row.values[name] for name in ("steps", "round", "work")} == {"steps": 4, "round": 1, "work": work}
    assert "terminal 1 " in str(row.values["text"])
    assert "after 4 steps of round 1" in str(row.values["text"])


def test_a_model_that_was_changed_is_told_with_the_reason_and_what_became_of_the_work(folder: RunFolder) -> None:
    decide = at_four(1001, Renew({"arrays": start_model()}, "load 0.97"))
    run_of(folder, lambda p: Continue() if p.renewals else decide(p))
    (row,) = told(folder)
    assert (row.values["what"], row.node, row.round) == ("changed-model", "1", 1)
    assert (row.values["reason"], row.values["work"], row.values["decision"]) == ("load 0.97", "returned", "renew")
    assert row.values["text"] == (
        "terminal 1 goes on with another model after 4 steps of round 1 (load 0.97); its work: returned"
    )


def test_work_of_a_changed_model_that_was_lost_is_told_in_the_same_event(folder: RunFolder) -> None:
    decide = at_four(1001, Renew({"arrays": start_model()}))
    fails = Fault(node=1, kind="raise", at=2, reason="disk full")
    run_of(folder, lambda p: Continue() if p.renewals else decide(p), script=(fails,))
    (row,) = told(folder)
    assert (row.values["what"], row.values["work"]) == ("changed-model", "lost: disk full")
    assert "reason" not in row.values


def test_a_replacement_and_who_is_enlisted_are_told_by_their_keys(folder: RunFolder) -> None:
    def decide(progress: Progress) -> Decision:
        if progress.steps_done == 4 and progress.node_id == 1000:
            return Continue(enlist=(1001,))
        return Replace(1002) if progress.steps_done == 4 and progress.node_id == 1001 else Continue()

    run_of(folder, decide, layers=(Shown(1),))
    enlisted, replaced = (row.values for row in told(folder))
    assert (enlisted["what"], enlisted["other"]) == ("enlisted", "0")
    assert enlisted["text"] == "terminal 1 begins beside terminal 0 in round 1"
    assert (replaced["what"], replaced["other"]) == ("replaced", "2")
    assert str(replaced["text"]).endswith("its work: discarded; terminal 2 begins anew")


def test_work_that_was_to_be_collected_and_is_not_is_told_as_lost(folder: RunFolder) -> None:
    fails = Fault(node=1, kind="raise", at=2, reason="disk full")
    run_of(folder, at_four(1001, Stop()), script=(fails,))
    assert [(row.values["what"], row.values["work"]) for row in told(folder)] == [("lost", "lost: disk full")]


def test_what_goes_on_and_what_ends_with_its_period_is_no_news(folder: RunFolder) -> None:
    run_of(folder, UntilPeriodEnds(12.0), steps=1000, rounds=2)
    assert told(folder) == []


def test_without_a_virtual_clock_an_event_has_no_virtual_time(folder: RunFolder) -> None:
    run_of(folder, at_four(1001, Stop()), clocked=False)
    assert [(row.values["what"], row.virtual_s) for row in told(folder)] == [("stopped-early", None)]


def test_detached_work_is_told_once_when_it_comes(folder: RunFolder) -> None:
    run_of(folder, at_four(1001, Detach()), step_s=(1.0, 3.0), rounds=4, fraction=1.0)
    whats = [row.values["what"] for row in told(folder) if row.node == "1"]
    assert whats == ["detached", "returned-late"]


@pytest.mark.parametrize("by_a_layer", [False, True])
def test_what_has_reached_nobody_by_the_end_of_the_run_is_told_with_its_last_round(
    folder: RunFolder, by_a_layer: bool
) -> None:
    def both(progress: Progress) -> Decision:
        return Detach() if progress.node_id > 1000 and progress.round == 1 else Continue()

    stop: tuple[Layer[Any], ...] = (StopAfter(2),) if by_a_layer else ()
    layers, rounds = (Shown(3, 1, 1, 1, 1), *stop), 5 if by_a_layer else 2
    step_s, reachable = (4.0, 1.0, 99.0), (1000).__eq__
    grid = run_of(folder, both, step_s=step_s, rounds=rounds, layers=layers, reachable=reachable)
    assert [(row.node, row.round, row.values["what"], row.values.get("work")) for row in told(folder)][2:4] == [
        ("1", 2, "not-handed-out", "not handed out by the end"),
        ("2", 2, "lost", "lost: still under way at the end"),
    ]
    assert [row.values["what"] for row in told(folder)][-1] == ("stopped" if by_a_layer else "lost")
    assert len(grid.lost_work()) == 2


def test_nothing_is_told_twice_after_a_resume(new_folder: NewFolder) -> None:
    def decide(progress: Progress) -> Decision:
        if progress.node_id == 1002 and progress.round == 1:
            return Detach()
        return at_four(1001, Stop(), rounds=(1, 2, 3, 4))(progress)

    whole = new_folder("whole")
    run_of(whole, decide, step_s=(1.0, 1.0, 9.0), rounds=4, fraction=1.0)
    parts = new_folder("parts")
    run_of(parts, decide, step_s=(1.0, 1.0, 9.0), rounds=2)
    run_of(parts, decide, step_s=(1.0, 1.0, 9.0), rounds=4, resume=True)
    stopped = [(row.round, row.values["steps"]) for row in told(parts) if row.values["what"] == "stopped-early"]
    assert stopped == [(number, 4) for number in (1, 2, 3, 4)]
    assert stopped == [(r.round, r.values["steps"]) for r in told(whole) if r.values["what"] == "stopped-early"]
    rows = [(row.node, str(row.values["what"]), str(row.values["text"])) for row in told(parts)]
    assert len({row for row in rows if "round 1" in row[2]}) == len([row for row in rows if "round 1" in row[2]])
    assert sum(what == "detached" for _, what, _ in rows) == 1


@pytest.mark.parametrize("moves", [False, True])
def test_a_run_that_cuts_off_slow_terminals_goes_on_from_its_checkpoint_as_if_it_had_never_stopped(
    new_folder: NewFolder, moves: bool
) -> None:
    def run(folder: RunFolder, rounds: int, resume: bool = False) -> tuple[np.ndarray, float, list[Any]]:
        coverage = Coverage(Jumping(["a", "b"], 6, 0.5, 5.0, 6))
        layers: tuple[Layer[Any], ...] = (Covered(coverage),) if moves else ()
        with LocalGrid(app(), 6) as local:
            devices = [Device(step_s=0.3 * (1 + at % 3)) for at in range(6)]
            time = VirtualClock(local, devices, [Link(latency_s=0.2 + 0.1 * (at % 2)) for at in range(6)])
            grid = SteppedGrid(time, 3, MidRound(coverage) if moves else None, reachable=coverage.reachable)
            selected = Selected(Pipeline(2, score=Oort(), over_select=1.5), seed=1, conditions="none")
            result = Layered(FedAvg(fraction_evaluate=0.0, **ONE), *layers, selected).start(
                grid, start_model(), rounds, 20.0, ConfigRecord({**CONFIG}), run=folder, resume=resume
            )
            assert result.arrays is not None
            texts = [(row.round, row.values["text"]) for row in folder.rows("event")]
            return result.arrays["w"].numpy(), time.now_s, texts

    whole_w, whole_s, whole_told = run(new_folder("whole"), 6)
    for cut in (1, 2, 3, 4):
        parts = new_folder(f"parts-{cut}")
        run(parts, cut)
        again_w, again_s, again_told = run(parts, 6, resume=True)
        assert np.array_equal(whole_w, again_w)
        assert again_s == whole_s
        assert again_told == whole_told
