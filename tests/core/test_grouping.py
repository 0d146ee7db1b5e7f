"""Groups are functions of what is known; names keep their meaning, and what is unknown harms nobody."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_edge.errors import ConfigError
from flower_edge.grouping import by_levels, by_models, by_similarity, by_value, standardised

LOADS = hnp.arrays(np.float64, st.integers(1, 25), elements=st.floats(-1e6, 1e6) | st.just(np.nan))


def texts(*values: Any) -> Any:
    return np.array(values, dtype=object)


def test_by_value_reads_texts_numbers_and_both_and_finds_either_spelling() -> None:
    mixed = {"data-site": texts("hall", None, 3.0, True)}
    assert by_value("data_site")(mixed, 4) == ["hall", "unknown", "3", "True"]
    assert by_value("owner", unknown="others")({}, 2) == ["others", "others"]


@given(LOADS)
def test_levels_are_ordered_as_the_values_are(values: Any) -> None:
    labels = ["a", "b", "c"]
    found = by_levels("load", [0.3, 0.7], labels)({"load": values}, len(values))
    known = sorted((value, labels.index(name)) for value, name in zip(values, found, strict=True) if name != "unknown")
    assert [level for _, level in known] == sorted(level for _, level in known)
    assert [name == "unknown" for name in found] == np.isnan(values).tolist()


@example(np.array([0.0, 5e-324]))
@given(LOADS)
def test_standardised_features_have_mean_0_and_deviation_1_of_what_is_known(values: Any) -> None:
    points, filled = standardised({"load": values}, ["load"], len(values))
    known = points[~np.isnan(values), 0]
    assert filled == np.isnan(values).sum()
    assert (points[np.isnan(values), 0] == 0).all()
    if len(known):
        assert abs(known.mean()) < 1e-6
        assert known.std() == pytest.approx(1.0, abs=1e-6) or (known == 0).all()
    if len(known) and known.any():
        assert np.ptp(values[~np.isnan(values)]) > 0


def test_bytes_of_memory_weigh_no_more_than_load() -> None:
    memory = np.array([1e18, 1e18, 9e17, 9e17])
    points, _ = standardised({"memory": memory, "load": np.array([0.1, 0.9, 0.1, 0.9])}, ["memory", "load"], 4)
    np.testing.assert_allclose(points.std(axis=0), [1.0, 1.0])


@settings(max_examples=40)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 15), st.just(2)), elements=st.floats(-3, 3) | st.just(np.nan)),
    st.integers(1, 5),
)
def test_similar_groups_are_the_same_again_and_follow_their_terminals_into_any_order(values: Any, groups: int) -> None:
    alike = by_similarity(["x", "y"], groups, seed=3)
    found = alike({"x": values[:, 0], "y": values[:, 1]}, len(values))
    assert found == alike({"x": values[:, 0], "y": values[:, 1]}, len(values))
    assert len(set(found)) <= min(groups, len(values))
    assert set(found) == {f"group-{number}" for number in range(len(set(found)))}
    equal = {tuple(row): name for row, name in zip(np.nan_to_num(values, nan=99.0).tolist(), found, strict=True)}
    for row, name in zip(np.nan_to_num(values, nan=99.0).tolist(), found, strict=True):
        assert equal[tuple(row)] == name, "equal terminals are in one group"


def test_three_kinds_of_hardware_are_found_whatever_the_seed_and_numbered_from_the_smallest() -> None:
    rng = np.random.default_rng(0)
    cores = np.repeat([2.0, 8.0, 32.0], 20)
    columns = {"cores": cores + rng.normal(0, 0.2, 60), "memory": cores * 1e9 + rng.normal(0, 1e7, 60)}
    shuffled = rng.permutation(60)
    for seed in range(5):
        alike = by_similarity(["cores", "memory"], 3, seed=seed, prefix="kind")
        assert alike(columns, 60) == ["kind-0"] * 20 + ["kind-1"] * 20 + ["kind-2"] * 20
        mixed = alike({name: column[shuffled] for name, column in columns.items()}, 60)
        assert [mixed[k] for k in np.argsort(shuffled)] == alike(columns, 60)


def test_what_is_unknown_is_filled_in_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = by_similarity(["load", "absent"], 2)({"load": np.array([0.1, 0.9, np.nan, 0.9])}, 4)
    assert found[0] != found[1] == found[3]
    assert "5 of 8 values of ['load', 'absent'] are not known" in caplog.text


def test_nobody_makes_no_groups() -> None:
    assert by_value("a")({}, 0) == by_similarity(["a"], 3)({}, 0) == by_models([], 3) == []
    assert by_levels("a", [1.0], ["x", "y"])({}, 0) == []


def test_updates_that_point_the_same_way_are_one_group_whatever_their_length() -> None:
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(2, 50))
    updates = [rng.uniform(0.1, 100) * (directions[k % 2] + rng.normal(0, 0.2, 50)) for k in range(10)]
    assert by_models(updates, 2) == ["group-0", "group-1"] * 5


def test_updates_without_length_are_alike_and_fewer_terminals_make_fewer_groups() -> None:
    updates = [np.zeros(3), np.array([1.0, 0.0, 0.0]), np.zeros(3), np.array([2.0, 0.1, 0.0])]
    assert by_models(updates, 2) == ["group-0", "group-1", "group-0", "group-1"]
    assert by_models([np.ones(3)], 5) == ["group-0"]
    assert len(set(by_models([np.ones(3), -np.ones(3)], 5))) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: by_levels("load", [0.7, 0.3], ["a", "b", "c"]), "each above the one before"),
        (lambda: by_levels("load", [0.3], ["a"]), "1 edges make 2 levels"),
        (lambda: by_levels("load", [0.3], ["a", "a"]), "each once"),
        (lambda: by_similarity("load", 2), "expected names of columns"),
        (lambda: by_similarity(["load"], 0), "at least 1"),
        (lambda: by_models([np.ones(2)], 0), "at least 1"),
        (lambda: by_models([np.ones(2), np.ones(3)], 2), "of the shapes"),
        (lambda: by_models([np.ones(2), np.full(2, np.nan)], 2), "not finite"),
    ],
)
def test_what_makes_no_groups_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
