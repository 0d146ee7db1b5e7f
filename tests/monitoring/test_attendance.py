"""Edges that counted in few rounds or in none are seen by who looks at a run's last lines only."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flower_edge.cli.main import app
from flower_edge.cli.report import write_report
from flower_edge.cli.table import final_table
from flower_edge.events import Event
from flower_edge.monitoring import RunState
from flower_edge.monitoring.attendance import Attendance, attendance, sentences
from flower_edge.monitoring.rounds import cells_of
from flower_edge.store import RunFolder


def a_run(root: Path, rounds: int = 4, counted: dict[str, int] | None = None) -> RunFolder:
    """A run of some edges that counted in so many of its rounds, the last ones."""
    with RunFolder.create("edges", config={}, seed=1, root=root) as run:
        for at in range(1, rounds + 1):
            run.record("central", at, {"accuracy": at / 10})
            for cell, times in (counted or {"edge-0": rounds, "edge-1": 0, "edge-2": rounds - 1}).items():
                here = at > rounds - times
                run.record("train", at, {"num-examples": 30.0 if here else 0.0}, cell=cell)
                if not here:
                    told = Event("cell-skipped", f"cell {cell} skipped: <b>no reply</b> in {at}", cell=cell)
                    run.record("event", at, told.row(), cell=cell)
        run.finish({"accuracy": 0.4})
    return RunFolder.open(run.path)


SAID = "edge-1 counted in 0 of 4 rounds: <b>no reply</b> in 4"


def test_an_edge_that_never_counted_is_the_last_line_of_the_table_and_of_watch(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    lines = final_table(run).splitlines()
    assert lines[-1] == SAID
    assert lines[-2].startswith("total")
    assert "edge-2" not in final_table(run)
    shown = CliRunner().invoke(app, ["watch", str(run.path)])
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-2:] == [SAID, f"{run.path.name}: finished"]


def test_the_page_says_so_beside_the_table_of_cells(tmp_path: Path) -> None:
    text = write_report(a_run(tmp_path))[0].read_text("utf-8")
    assert '<p class="notice">edge-1 counted in 0 of 4 rounds: &lt;b&gt;no reply&lt;/b&gt; in 4</p>' in text


def test_a_follower_tells_what_the_folder_tells(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    state = RunState()
    state.add(run.rows())
    assert state.attendance() == attendance(run)
    assert [edge.counted for edge in state.attendance()] == [4, 0, 3]
    assert [(cell.cell, cell.rounds) for cell in cells_of(run)] == [("edge-0", 4), ("edge-1", 0), ("edge-2", 3)]


def test_a_run_without_edges_has_no_such_lines(tmp_path: Path) -> None:
    with RunFolder.create("flat", config={}, seed=1, root=tmp_path) as run:
        run.record("train", 1, {"num-examples": 0.0}, node="7")
        run.record("central", 1, {"accuracy": 0.5})
    assert attendance(RunFolder.open(run.path)) == []
    assert final_table(RunFolder.open(run.path)).splitlines()[-1].startswith("total")


def test_the_worst_come_first_and_no_more_than_can_be_read(tmp_path: Path) -> None:
    edges = [Attendance(f"edge-{n}", 100, n, "why" * 500) for n in range(60)]
    told = sentences(reversed(edges))
    assert [line.split()[0] for line in told[:10]] == [f"edge-{n}" for n in range(10)]
    assert told[10:] == ["and 40 more edges that counted in less than half of their rounds"]
    assert max(map(len, told)) < 500


@pytest.mark.parametrize(("asked", "counted", "told"), [(1, 0, True), (1, 1, False), (10, 5, False), (10, 4, True)])
def test_half_of_the_rounds_is_enough(asked: int, counted: int, told: bool) -> None:
    assert bool(sentences([Attendance("edge-0", asked, counted, "it was away")])) == told
