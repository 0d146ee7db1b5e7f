"""Rows of the last layer, each merged over the terminals that have its class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from flower_edge.errors import WireError
from flower_edge.submodels.classes import classes_from_values, classes_to_values, only_rows
from flower_edge.updates.manifest import part_manifest, whole_manifest
from flower_edge.updates.merges import Merges
from flower_edge.updates.update import Update

SPEC = {"body": ((4,), "float32"), "w": ((6, 3), "float32"), "b": ((6,), "float32")}
BASE = {name: np.zeros(shape, dtype) for name, (shape, dtype) in SPEC.items()}


def update_of(value: float, weight: float = 1.0, index: dict[str, Any] | None = None) -> Update:
    manifest = whole_manifest(SPEC) if index is None else part_manifest(SPEC, index)
    arrays = {name: np.full(part.shape, value, np.float32) for name, part in manifest.arrays.items()}
    return Update("0", arrays, BASE, weight, manifest)


@settings(max_examples=40, deadline=None)
@given(some.lists(some.integers(0, 30), max_size=12))
def test_what_is_told_is_read_again(labels: list[int]) -> None:
    assert classes_from_values(classes_to_values(np.array(labels, np.int64)), 31).tolist() == sorted(set(labels))


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (None, "expected a list"),
        (3, "expected a list"),
        (["a"], "expected a list"),
        ([True], "expected a list"),
        ([1.0], "expected a list"),
        ([2, 1], "ascending"),
        ([1, 1], "each once"),
        ([-1], "from 0 to 5"),
        ([6], "from 0 to 5"),
    ],
)
def test_what_are_no_classes_is_refused(told: Any, wanted: str) -> None:
    with pytest.raises(WireError, match=wanted):
        classes_from_values({"classes": told}, 6)


@settings(max_examples=40, deadline=None)
@given(some.lists(some.tuples(some.sets(some.integers(0, 5)), some.integers(1, 9)), min_size=1, max_size=5))
def test_a_row_is_the_mean_over_those_that_have_its_class_and_stays_where_nobody_has(
    nodes: list[tuple[set[int], int]],
) -> None:
    updates = [
        only_rows(update_of(place + 1.0, float(weight)), ["w", "b"], np.array(sorted(rows), np.intp))
        for place, (rows, weight) in enumerate(nodes)
    ]
    merged = Merges(BASE, updates).of(range(len(nodes)))
    for row in range(6):
        mine = [(place + 1.0, weight) for place, (rows, weight) in enumerate(nodes) if row in rows]
        wanted = np.average([v for v, _ in mine], weights=[w for _, w in mine]) if mine else 0.0
        np.testing.assert_allclose(merged["w"][row], wanted, rtol=1e-6)
        np.testing.assert_allclose(merged["b"][row], wanted, rtol=1e-6)
    everybody = np.average([place + 1.0 for place in range(len(nodes))], weights=[weight for _, weight in nodes])
    np.testing.assert_allclose(merged["body"], everybody, rtol=1e-6)


def test_all_rows_are_the_update_itself() -> None:
    update = update_of(1.0)
    assert only_rows(update, ["w", "b"], np.arange(6)) is update
    assert only_rows(update, [], np.array([1])) is update


def test_narrow_columns_stay_narrow_and_arrays_it_was_not_given_are_passed_over() -> None:
    narrow = update_of(5.0, index={"w": (None, np.array([0, 2])), "body": None})
    found = only_rows(narrow, ["w", "b"], np.array([1, 4]))
    assert found.arrays["w"].shape == (2, 2)
    assert "b" not in found.arrays
    merged = Merges(BASE, [found]).of([0])
    wanted = np.zeros((6, 3))
    wanted[np.ix_([1, 4], [0, 2])] = 5.0
    assert np.array_equal(merged["w"], wanted)
    assert narrow.arrays["w"].shape == (6, 2)


def test_rows_that_it_was_not_given_are_not_its_own() -> None:
    some_rows = update_of(5.0, index={"w": (np.array([0, 1, 4]), None)})
    some_rows.arrays["w"][:] = [[1.0], [2.0], [3.0]]
    found = only_rows(some_rows, ["w"], np.array([1, 2, 4]))
    assert found.arrays["w"][:, 0].tolist() == [2.0, 3.0]
    index = found.manifest.arrays["w"].index
    assert index is not None
    assert index[0] is not None
    assert index[0].tolist() == [1, 4]
