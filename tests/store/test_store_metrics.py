"""Metric rows come back as they were recorded, from either file, also from a run that was killed."""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, DataError
from flower_edge.store.metrics import MetricLog, Row, Value, parse_lines, read_rows

NAMES = st.text(min_size=1, max_size=8)
TEXTS = st.text(max_size=8).filter(lambda text: text not in ("NaN", "Infinity", "-Infinity"))
VALUES = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats() | TEXTS
ROWS = st.builds(
    Row,
    kind=st.sampled_from(["train", "central", "event"]),
    round=st.integers(0, 1000),
    values=st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    cell=st.text(max_size=4),
    node=st.text(max_size=4),
    edge_round=st.integers(0, 9),
    wall_s=st.none() | st.floats(0, 1e6),
    virtual_s=st.none() | st.floats(0, 1e6),
)


def spelled(row: Row) -> str:
    """A row as text in which NaN equals NaN, 1 differs from 1.0 and -0.0 from 0.0."""
    return repr((row.kind, row.round, row.cell, row.node, row.edge_round, row.wall_s, row.virtual_s, dict(row.values)))


def write(folder: Path, rows: list[Row]) -> tuple[Path, Path]:
    lines, database = folder / "metrics.jsonl", folder / "metrics.sqlite"
    writer = MetricLog(lines, database)
    for row in rows:
        writer.append([row])
    writer.close()
    return lines, database


@given(st.lists(ROWS, max_size=5))
@settings(max_examples=40, deadline=None)
def test_both_files_tell_what_was_recorded(rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines, database = write(Path(folder), rows)
        assert list(map(spelled, read_rows(lines, database))) == list(map(spelled, rows))
        database.unlink()
        assert list(map(spelled, read_rows(lines, database))) == list(map(spelled, rows))


def test_the_three_texts_for_what_json_lacks_are_numbers_in_both_files(tmp_path: Path) -> None:
    row = Row("central", 1, {"loss": math.inf, "gain": "-Infinity", "accuracy": math.nan, "said": "NaN", "n": "none"})
    lines, database = write(tmp_path, [row])
    entry = json.loads(lines.read_text())
    assert entry["values"] == {"loss": "Infinity", "gain": "-Infinity", "accuracy": "NaN", "said": "NaN", "n": "none"}
    for _ in ("database", "lines"):
        (came,) = read_rows(lines, database)
        assert came.values["loss"] == math.inf
        assert came.values["gain"] == -math.inf
        assert [name for name, value in came.values.items() if value != value] == ["accuracy", "said"]
        assert came.values["n"] == "none"
        database.unlink(missing_ok=True)


def test_a_curve_is_one_line_of_sql_and_averages_leave_nan_out(tmp_path: Path) -> None:
    rows = [Row("central", at, {"accuracy": math.nan if at == 2 else at / 4, "loss": 9}) for at in (1, 2, 3)]
    _, database = write(tmp_path, rows)
    connection = sqlite3.connect(database)
    try:
        curve = "SELECT round, value FROM metrics WHERE kind = 'central' AND name = 'accuracy' ORDER BY round"
        assert connection.execute(curve).fetchall() == [(1, 0.25), (2, None), (3, 0.75)]
        assert connection.execute("SELECT avg(value) FROM metrics WHERE name = 'accuracy'").fetchone() == (0.5,)
        assert connection.execute("SELECT DISTINCT typeof(value) FROM metrics WHERE name = 'loss'").fetchall() == [
            ("integer",)
        ]
    finally:
        connection.close()


def test_numpy_scalars_and_booleans_become_plain_numbers(tmp_path: Path) -> None:
    lines, database = write(tmp_path, [Row("x", 1, {"a": np.float32(0.5), "b": np.int64(3), "c": True})])  # type: ignore[dict-item]
    (row,) = read_rows(lines, database)
    assert [(type(value), value) for value in row.values.values()] == [(float, 0.5), (int, 3), (int, 1)]


@pytest.mark.parametrize("value", [[1, 2], None, {"a": 1}, 1j, 2**63, np.zeros(2), b"x"])
def test_what_is_no_metric_is_refused_by_name_and_nothing_is_written(tmp_path: Path, value: Value) -> None:
    writer = MetricLog(tmp_path / "metrics.jsonl", tmp_path / "metrics.sqlite")
    with pytest.raises(ConfigError, match="metric 'odd' of kind 'train' in round 4"):
        writer.append([Row("train", 3, {"fine": 1.0}), Row("train", 4, {"odd": value})])
    writer.close()
    assert read_rows(tmp_path / "metrics.jsonl", tmp_path / "metrics.sqlite") == []


def test_a_row_without_values_is_left_out(tmp_path: Path) -> None:
    assert read_rows(*write(tmp_path, [Row("train", 1, {}), Row("train", 2, {"a": 1})])) == [Row("train", 2, {"a": 1})]


def test_half_a_surrogate_pair_is_written_escaped(tmp_path: Path) -> None:
    lines, database = write(tmp_path, [Row("event", 1, {"message": "file \udcff"})])
    assert read_rows(lines, database)[0].values == {"message": "file \\udcff"}


def test_a_torn_last_line_is_ignored_and_a_torn_line_before_it_is_not(tmp_path: Path) -> None:
    lines, database = write(tmp_path, [Row("central", at, {"accuracy": 0.5}) for at in (1, 2)])
    database.unlink()
    lines.write_bytes(lines.read_bytes()[:-9])
    assert [row.round for row in read_rows(lines, database)] == [1]
    lines.write_bytes(lines.read_bytes() + b"\n" + b'{"kind": "central"}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        read_rows(lines, database)


def test_a_damaged_database_sends_the_reader_to_the_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [Row("central", at, {"accuracy": 0.5}) for at in (1, 2)]
    lines, database = write(tmp_path, rows)
    database.write_bytes(b"not a database" * 100)
    with caplog.at_level(logging.WARNING):
        assert read_rows(lines, database) == rows
    assert "reading metrics.jsonl instead" in caplog.text


def test_a_database_that_cannot_be_written_is_given_up_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines, database = tmp_path / "metrics.jsonl", tmp_path / "nowhere" / "metrics.sqlite"
    with caplog.at_level(logging.WARNING):
        writer = MetricLog(lines, database)
    writer.append([Row("central", 1, {"accuracy": 0.5})])
    writer.close()
    assert "metrics go to the .jsonl beside it only" in caplog.text
    assert read_rows(lines, database) == [Row("central", 1, {"accuracy": 0.5})]


def test_one_kind_is_asked_for_and_only_that_comes(tmp_path: Path) -> None:
    rows = [Row("train", 1, {"loss": 1.0}, node="3"), Row("central", 1, {"loss": 2.0})]
    lines, database = write(tmp_path, rows)
    assert read_rows(lines, database, "central") == rows[1:]
    database.unlink()
    assert read_rows(lines, database, "train") == rows[:1]


def test_readers_beside_a_writer_see_whole_rows_in_order(tmp_path: Path) -> None:
    lines, database = tmp_path / "metrics.jsonl", tmp_path / "metrics.sqlite"
    writer = MetricLog(lines, database)
    done = threading.Event()

    def write_all() -> None:
        for at in range(200):
            writer.append([Row("central", at, {"a": at, "b": at})])
        done.set()

    thread = threading.Thread(target=write_all)
    thread.start()
    seen = 0
    while not done.is_set():
        for rows in (read_rows(lines, database), list(parse_lines(whole(lines), source="lines"))):
            assert [row.values for row in rows] == [{"a": at, "b": at} for at in range(len(rows))]
            seen = max(seen, len(rows))
    thread.join()
    writer.close()
    assert len(read_rows(lines, database)) == 200
    assert not database.with_name("metrics.sqlite-wal").exists()


def whole(lines: Path) -> bytes:
    return lines.read_bytes().rpartition(b"\n")[0]


def test_many_threads_of_one_writer_lose_nothing(tmp_path: Path) -> None:
    lines, database = tmp_path / "metrics.jsonl", tmp_path / "metrics.sqlite"
    writer = MetricLog(lines, database)

    def write_fifty(at: int) -> None:
        for n in range(50):
            writer.append([Row("x", at, {"n": n})])

    threads = [threading.Thread(target=write_fifty, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    rows = read_rows(lines, database)
    assert [[row.values["n"] for row in rows if row.round == at] for at in range(4)] == [list(range(50))] * 4
    assert list(parse_lines(whole(lines), source="lines")) == rows


KILLED = """
import os, signal, sys
from pathlib import Path
from flower_edge.store.metrics import MetricLog, Row
folder = Path(sys.argv[1])
writer = MetricLog(folder / "metrics.jsonl", folder / "metrics.sqlite")
for at in range(57):
    writer.append([Row("central", at, {"accuracy": at / 57})])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_loses_no_row_it_had_recorded(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    lines, database = tmp_path / "metrics.jsonl", tmp_path / "metrics.sqlite"
    assert len(read_rows(lines, database)) == 57
    assert len(list(parse_lines(whole(lines), source="lines"))) == 57
    again = MetricLog(lines, database)
    again.append([Row("central", 57, {"accuracy": 1})])
    again.close()
    assert [row.round for row in read_rows(lines, database)] == list(range(58))
