"""Paths from files: what is written reads back exactly, and a line that is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.coverage import ByTrace, PositionTrace, RandomWalk, write_trace
from flower_edge.errors import DataError

HEADER = "time_s,node,x_m,y_m\n"


def test_a_mobility_written_to_a_file_reads_back_bit_for_bit(tmp_path: Path) -> None:
    walk = RandomWalk(7, (100.0, 100.0), 3.0, 5.0, 1)
    times_s = [0.0, 0.1, 3.3, 17.0]
    again = PositionTrace.read(write_trace(tmp_path / "new" / "walk.csv", walk, times_s))
    for time_s in times_s:
        np.testing.assert_array_equal(again.positions_m(time_s), walk.positions_m(time_s))
    np.testing.assert_array_equal(again.positions_m(500.0), walk.positions_m(17.0))


@given(st.integers(0, 2**32 - 1), st.floats(0, 120))
def test_between_two_rows_a_node_goes_straight_and_outside_of_them_it_stands(seed: int, time_s: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 6, 4)
    node = np.repeat(np.arange(4), rows)
    times_s = np.concatenate([rng.choice(100, count, replace=False) for count in rows]).astype(float)
    at_m = rng.random((len(node), 2)) * 50
    shuffled = rng.permutation(len(node))
    found = PositionTrace(node[shuffled], times_s[shuffled], at_m[shuffled]).positions_m(time_s)
    for i in range(4):
        mine = np.flatnonzero(node == i)[np.argsort(times_s[node == i])]
        expected = [np.interp(time_s, times_s[mine], at_m[mine, axis]) for axis in (0, 1)]
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t,n,x,y\n", "line 1: 't,n,x,y'; begin the file with 'time_s,node,x_m,y_m'"),
        ("", "line 1"),
        (HEADER, "no rows"),
        (HEADER + "0,0,1,2\n\n5,0,far,2\n", "line 4: x_m = 'far'; give a number of metres"),
        (HEADER + "0,0,1\n", "line 2: 3 fields; give 4"),
        (HEADER + "-1,0,1,2\n", "line 2: time_s = '-1'"),
        (HEADER + "nan,0,1,2\n", "line 2: time_s = 'nan'"),
        (HEADER + "0,car,1,2\n", "line 2: node = 'car'; give the node's partition-id"),
        (HEADER + "0,0,1,2\n1,0,1,2\n0,0,3,4\n", "line 4: node 0 at 0.0 s is in line 2 already"),
        (HEADER + "0,2,1,2\n", "trace.csv: node 0 has no row, and nodes go from 0 to 2"),
        (HEADER + "0,0,1,inf\n", "line 2: y_m = 'inf'"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_what_to_write(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        PositionTrace.read(path)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv cannot be read"):
        ByTrace.read(tmp_path / "absent.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match=r"picture\.csv cannot be read"):
        ByTrace.read(tmp_path / "picture.csv")


def test_spaces_empty_lines_and_the_mark_of_spreadsheets_are_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "attached.csv"
    path.write_bytes(b"\xef\xbb\xbftime_s, node, cell\r\n0, 0, hall\r\n\r\n9, 0,\r\n")
    located = ByTrace.read(path)
    assert located.cells == ("hall",)
    assert [located.where(time_s).tolist() for time_s in (0.0, 9.0)] == [[0], [-1]]
