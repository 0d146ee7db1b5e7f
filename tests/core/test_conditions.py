"""Conditions: what is believed of what a terminal tells."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.conditions import BOUNDS, LONGEST_TEXT, MOST_ENTRIES, Conditions, columns_of, plain_values
from flower_edge.errors import ConfigError
from flower_edge.rules import Rule

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.floats(0, 1).map(np.float32),
    st.integers(0, 100).map(np.int64),
)
names = st.one_of(st.sampled_from([*BOUNDS, *(name.replace("_", "-") for name in BOUNDS)]), st.text(max_size=8))


def test_every_field_has_its_bounds() -> None:
    assert set(BOUNDS) == {f.name for f in fields(Conditions)} - {"extra", "dropped"}


@settings(max_examples=300)
@given(st.dictionaries(names, anything, max_size=12))
def test_whatever_is_told_is_read_without_raising_and_what_is_kept_is_in_bounds(told: dict[str, Any]) -> None:
    read = Conditions.read(told)
    for name, value in read.to_mapping().items():
        if name in BOUNDS:
            kind, low, high = BOUNDS[name]
            assert type(value) is kind
            assert kind is bool or low <= value <= high
    kept = {name.replace("-", "_") if name.replace("-", "_") in BOUNDS else name for name in told}
    assert kept == set(read.to_mapping()) | {
        name.replace("-", "_") if name.replace("-", "_") in BOUNDS else name for name in read.dropped
    }
    assert Conditions.read(read.to_mapping()) == read
    assert Conditions.read(read.to_mapping()).dropped == ()


@pytest.mark.parametrize("told", [None, 3, "load", [("load", 1)], b"x"])
def test_what_is_no_mapping_tells_nothing(told: Any) -> None:
    assert Conditions.read(told) == Conditions()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("load", 1.01),
        ("load", -0.01),
        ("load", float("nan")),
        ("load", True),
        ("load", "0.5"),
        ("battery", 80),
        ("charging", 1),
        ("cpu_count", 0),
        ("cpu_count", 2.5),
        ("num_examples", -1),
        ("up_bps", float("inf")),
        ("memory_free_bytes", 10**30),
        ("step_s", -1e-9),
    ],
)
def test_what_is_out_of_bounds_is_left_out_by_name_and_refused_in_code(name: str, value: Any) -> None:
    read = Conditions.read({name: value, "load" if name != "load" else "battery": 0.5})
    assert getattr(read, name) is None
    assert read.dropped == (name,)
    assert len(read.to_mapping()) == 1
    with pytest.raises(ConfigError, match=rf"Conditions\({name}=.*expected (a number from|True or False)"):
        Conditions(**{name: value})


def test_numbers_of_numpy_and_whole_floats_become_plain_ones() -> None:
    read = Conditions.read(
        {"load": np.float32(0.5), "cpu-count": np.int64(4), "num_examples": 120.0, "charging": np.True_}
    )
    assert (read.load, read.cpu_count, read.num_examples, read.charging) == (0.5, 4, 120, True)
    assert [type(value) for value in read.to_mapping().values()] == [float, int, bool, int]


def test_an_owners_own_attributes_are_bounded_in_number_and_length() -> None:
    told = {f"attribute {i}": i for i in range(MOST_ENTRIES + 30)}
    read = Conditions.read({**told, "load": 0.5})
    assert len(read.extra) == MOST_ENTRIES
    assert read.load is not None or "load" in read.dropped
    long = Conditions.read({"text": "x" * (LONGEST_TEXT + 1), "n" * 200: 1, "blob": b"x", 7: 1, "site": "hall"})
    assert dict(long.extra) == {"site": "hall"}
    assert len(long.dropped) == 4
    assert max(map(len, long.dropped)) <= 128
    with pytest.raises(ConfigError, match=r"extra=…\): blob"):
        Conditions(extra={"blob": b"x"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"extra=…\): num-examples"):
        Conditions(extra={"num-examples": 3})


def test_of_two_spellings_the_first_counts() -> None:
    read = Conditions.read({"step-s": 0.5, "step_s": 0.25})
    assert read.step_s == 0.5
    assert read.dropped == ("step_s",)


def test_conditions_are_values_that_travel() -> None:
    conditions = Conditions(load=0.5, extra={"site": "hall"})
    assert pickle.loads(pickle.dumps(conditions)) == conditions  # noqa: S301  our own bytes
    assert hash(conditions) == hash(Conditions(load=0.5, extra={"site": "hall"}))
    assert replace(conditions, load=None).to_mapping() == {"site": "hall"}
    with pytest.raises(TypeError):
        conditions.extra["site"] = "cellar"  # type: ignore[index]


def test_a_rule_reads_conditions_of_one_and_columns_of_many_alike() -> None:
    rows = [
        Conditions(load=0.5, charging=True, extra={"site": "hall"}),
        None,
        {"load": 0.9, "num-examples": 10, "site": "zoo"},
        Conditions(charging=False),
    ]
    columns = columns_of(rows)
    assert columns["load"].dtype == columns["charging"].dtype == np.float64
    for text in ("load < 0.8", "charging", "site == 'hall'", "unknown(load)", "num_examples >= 10", "site != 'hall'"):
        rule = Rule(text)
        one_by_one = [rule.holds({} if r is None else r.to_mapping() if isinstance(r, Conditions) else r) for r in rows]
        assert rule.mask(columns, len(rows)).tolist() == one_by_one
    assert columns_of([]) == {}
    assert columns_of([None, Conditions()]) == {}


def test_values_that_cannot_travel_are_left_out_and_named() -> None:
    assert plain_values({"big": 2**63, "small": -(2**63) + 1, "none": None, "list": [1]}) == (
        {"small": -(2**63) + 1},
        ["big", "none", "list"],
    )
    assert plain_values({"a": 1, "b": 2}, most=1) == ({"a": 1}, ["b"])
