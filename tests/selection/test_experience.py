"""What is learned of nodes is kept by node, through checkpoints and to another edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.selection import Experience, Job, known_of
from flower_edge.store import tree_from_bytes, tree_to_bytes

ENTRIES = st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["loss", "load"]), st.floats(0, 9)), max_size=30)


@given(ENTRIES)
def test_it_remembers_what_a_dictionary_would(entries: list[tuple[int, str, float]]) -> None:
    seen, book = Experience(), {}
    for node, name, value in entries:
        seen = seen.noted(name, {node: value})
        book[node, name] = value
    table = seen.of(np.arange(25))
    for name in ("loss", "load"):
        for node in range(25):
            np.testing.assert_equal(table.column(name)[node], book.get((node, name), np.nan))
    assert seen.nodes.tolist() == sorted({node for node, _, _ in entries})


def test_a_change_leaves_the_value_before_it_alone() -> None:
    before = Experience().noted("loss", {1: 0.5})
    before.noted("loss", {1: 9.0, 2: 1.0}).counted("picks", np.array([1]))
    assert before.row(1) == {"loss": 0.5}
    assert before.nodes.tolist() == [1]


def test_counts_grow_by_one_and_marks_are_set() -> None:
    seen = (
        Experience().counted("picks", np.array([5, 3])).counted("picks", np.array([3])).marked("last", np.array([3]), 7)
    )
    assert (seen.row(3), seen.row(5)) == ({"picks": 2.0, "last": 7.0}, {"picks": 1.0})


def test_numbers_texts_and_both_in_one_column_survive_a_checkpoint_file() -> None:
    seen = Experience().noted("load", {1: 0.5, 2: True}).noted("site", {2: "hall"}).noted("odd", {1: 1, 2: "one"})
    seen = seen.noted("odd", {3: 2.0})
    saved = tree_from_bytes(tree_to_bytes({"seen": seen.dump()}))["seen"]
    loaded = Experience.load(saved)
    for node in (1, 2, 3, 4):
        assert loaded.row(node) == seen.row(node)
    assert loaded.row(2) == {"load": 1.0, "site": "hall", "odd": "one"}
    assert loaded.noted("load", {9: 1.0}).row(9) == {"load": 1.0}


ROWS = st.dictionaries(
    st.sampled_from(["loss", "load", "picks", "site"]), st.one_of(st.floats(0, 9), st.sampled_from(["hall", "yard"]))
)


@given(ENTRIES, st.integers(0, 20), ROWS)
def test_a_row_in_one_go_is_the_node_forgotten_and_every_value_noted_again(
    entries: list[tuple[int, str, float]], node: int, row: dict[str, float | str]
) -> None:
    seen = Experience()
    for other, name, value in entries:
        seen = seen.noted(name, {other: value})
    one_by_one = seen.without(node)
    for name, told in row.items():
        one_by_one = one_by_one.noted(name, {node: told})
    at_once = seen.with_row(node, row)
    assert node in at_once
    assert at_once.nodes.tolist() == sorted({*seen.nodes.tolist(), node})
    for other in range(22):
        assert at_once.row(other) == one_by_one.row(other)
        assert at_once.row(other) == (row if other == node else seen.row(other))
    assert {name: values.dtype for name, values in at_once.columns.items() if name in row} == {
        name: values.dtype for name, values in one_by_one.columns.items() if name in row
    }


def test_a_forgotten_node_is_unknown_and_the_others_are_not() -> None:
    seen = Experience().noted("loss", {1: 0.5, 2: 0.7}).without(1)
    assert (seen.row(1), seen.row(2)) == ({}, {"loss": 0.7})


def test_what_was_learned_goes_before_what_was_told_and_that_before_estimates() -> None:
    told = Experience().noted("step_s", {1: 0.1, 2: 0.1}).noted("up_bps", {1: 1e6, 2: 1e6})
    told = told.noted("num_examples", {1: 50, 2: 60})
    learned = Experience().noted("compute_s", {2: 7.0}).noted("up_s", {2: 2.0}).noted("duration_s", {2: 9.5})
    learned = learned.noted("num_examples", {2: 61})
    table = known_of(np.array([1, 2, 3]), learned, told, Job(steps=20, up_bits=3e6))
    np.testing.assert_allclose(table.column("compute_s"), [2.0, 7.0, np.nan])
    np.testing.assert_allclose(table.column("up_s"), [3.0, 2.0, np.nan])
    np.testing.assert_allclose(table.column("duration_s"), [5.0, 9.5, np.nan])
    np.testing.assert_allclose(table.column("num_examples"), [50, 61, np.nan])
    np.testing.assert_allclose(table.column("picks"), [0, 0, 0])


@pytest.mark.parametrize("up_bps", [0.0, 1e6])
def test_a_whole_duration_alone_is_split_by_what_was_told_of_the_uplink(up_bps: float) -> None:
    table = known_of(
        np.array([1]),
        Experience().noted("duration_s", {1: 9.0}),
        Experience().noted("up_bps", {1: up_bps}),
        Job(up_bits=2e6),
    )
    assert table.column("compute_s")[0] == (9.0 if up_bps == 0.0 else 7.0)
