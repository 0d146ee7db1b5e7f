"""What the rows of a run say per round, and the small tables made of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from flower_edge.cli.columns import columns, count, ratio, seconds, traffic
from flower_edge.cli.table import final_table, took_s
from flower_edge.monitoring.rounds import RoundLine, cells_of, latest, round_lines, rounds_of, total
from flower_edge.store import Row, RunFolder


def test_the_centre_s_own_evaluation_is_believed_before_the_clients() -> None:
    clients = Row("evaluate", 1, {"accuracy": 0.4, "loss": 2.0})
    assert round_lines([clients])[0].accuracy == 0.4
    (line,) = round_lines([Row("central", 1, {"accuracy": 0.5}), clients])
    assert (line.accuracy, line.loss) == (0.5, 2.0)


def test_clients_evaluation_is_weighted_by_examples() -> None:
    rows = [
        Row("evaluate", 1, {"accuracy": 0.2, "num-examples": 1}, cell="a"),
        Row("evaluate", 1, {"accuracy": 0.6, "num-examples": 3}, cell="b"),
        Row("evaluate", 1, {"accuracy": 0.9, "num-examples": 100}, cell="b", node="7"),
    ]
    assert round_lines(rows)[0].accuracy == pytest.approx(0.5)
    assert round_lines(rows[2:])[0].accuracy == pytest.approx(0.9)


def test_the_names_of_flower_s_templates_are_understood() -> None:
    assert round_lines([Row("evaluate", 1, {"eval_acc": 0.4, "eval_loss": 2.0})]) == [
        RoundLine(1, accuracy=0.4, loss=2.0)
    ]


def test_cells_are_a_breakdown_of_the_federation_not_an_addition() -> None:
    cells = [Row("traffic", 1, {"up_bits": 8}, cell=cell) for cell in "abc"]
    assert round_lines(cells)[0].up_bits == 24
    assert round_lines([*cells, Row("traffic", 1, {"up_bits": 25})])[0].up_bits == 25


def test_edge_rounds_add_up_and_a_row_told_again_replaces_the_first() -> None:
    rows = [Row("traffic", 1, {"up_bits": 8}, edge_round=edge_round) for edge_round in (1, 2)]
    assert round_lines(rows)[0].up_bits == 16
    assert round_lines([*rows, *rows])[0].up_bits == 16


def test_rounds_come_in_order_and_each_ends_at_its_last_row() -> None:
    rows = [
        Row("central", 2, {"accuracy": 0.5}, wall_s=9.0, virtual_s=90.0),
        Row("central", 1, {"accuracy": 0.4}, wall_s=4.0),
        Row("traffic", 2, {"up_bits": 8}, wall_s=9.5),
    ]
    lines = round_lines(rows)
    assert [(line.round, line.wall_s, line.virtual_s) for line in lines] == [(1, 4.0, None), (2, 9.5, 90.0)]
    assert took_s(lines) == [4.0, 5.5]
    assert took_s([RoundLine(1), RoundLine(2, wall_s=3.0)]) == [None, None]
    assert (latest(lines, "up_bits"), total(lines, "down_bits")) == (8, None)


def write(tmp_path: Path, rounds: int, cells: int = 3) -> RunFolder:
    with RunFolder.create("demo", config={}, seed=1, root=tmp_path) as run:
        for at in range(1, rounds + 1):
            for cell in range(cells):
                took_part = 0 if (at, cell) == (1, 2) else 100 + cell
                run.record("train", at, {"train_loss": 9.0, "num-examples": took_part}, cell=f"edge-{cell}")
                run.record("evaluate", at, {"accuracy": cell / 10 + at / 100}, cell=f"edge-{cell}")
                run.record("traffic", at, {"up_bits": 8, "down_bits": 16}, cell=f"edge-{cell}")
            run.record("nodes", at, {"nodes_sampled": 12, "nodes_replied": 11, "nodes_failed": 1})
            run.record("traffic", at, {"up_bits": 8_000_000, "down_bits": 16_000})
            run.record("central", at, {"accuracy": 0.9 + at / 1000, "loss": 0.5}, wall_s=2.0 * at)
    return RunFolder.open(run.path)


def test_cells_have_a_line_each_in_natural_order(tmp_path: Path) -> None:
    lines = cells_of(write(tmp_path, rounds=2, cells=11))
    assert [line.cell for line in lines] == [f"edge-{cell}" for cell in range(11)]
    assert [line.rounds for line in lines[:3]] == [2, 2, 1]
    assert lines[1].accuracy == pytest.approx(0.12)
    assert (lines[1].examples, lines[1].loss, lines[1].up_bits, lines[1].down_bits) == (101, 9.0, 16, 32)


def test_the_final_table_has_a_line_per_round_and_one_of_totals(tmp_path: Path) -> None:
    text = final_table(write(tmp_path, rounds=3))
    assert text.splitlines() == [
        "round  accuracy    loss      up    down     nodes   time",
        "1        0.9010  0.5000  1.0 MB  2.0 kB  11 of 12  2.0 s",
        "2        0.9020  0.5000  1.0 MB  2.0 kB  11 of 12  2.0 s",
        "3        0.9030  0.5000  1.0 MB  2.0 kB  11 of 12  2.0 s",
        "-" * 56,
        "total    0.9030  0.5000  3.0 MB  6.0 kB  33 of 36  6.0 s",
    ]


def test_a_long_run_shows_its_first_and_last_rounds(tmp_path: Path) -> None:
    lines = final_table(write(tmp_path, rounds=30, cells=0), most=5).splitlines()
    assert [line.split()[0].strip("-") for line in lines] == ["round", "1", "2", "...", "28", "29", "30", "", "total"]


def test_a_run_without_rounds_has_a_table_that_says_so(tmp_path: Path) -> None:
    run = write(tmp_path, rounds=0)
    assert final_table(run) == "demo: no round was recorded"
    assert rounds_of(run) == []


def test_numbers_that_are_none_or_not_finite_are_still_text() -> None:
    assert [write(None) for write in (ratio, count, traffic, seconds)] == ["-"] * 4
    assert (ratio(math.nan), ratio(math.inf), traffic(math.inf), count(math.nan)) == ("nan", "inf", "inf", "nan")


def test_columns_line_up_under_their_head() -> None:
    assert columns(["a", "b"], []) == ["a  b"]
    assert columns(["a", "b"], [["x", "1"], ["long", "100"]], left=0) == ["   a    b", "   x    1", "long  100"]
