"""What travels: a report is written strictly and read without belief; the search tries what it says it tries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.tuning import (
    Choice,
    Count,
    LogScale,
    Value,
    hyperparameters_of,
    local_search,
    read_report,
    report_entries,
)

KINDS = {"lr": LogScale(1e-4, 1.0), "k": Count(1, 15), "loss": Choice(("ce", "mse"))}
START: dict[str, Value] = {"lr": 0.1, "k": 5, "loss": "ce"}
anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([*KINDS, "validation-score", "other"]), anything | st.lists(anything)), anything)
def test_whatever_comes_only_values_of_their_kinds_are_read(entries: dict[str, object], weight: object) -> None:
    told = read_report(entries, KINDS, weight)
    assert all(not KINDS[name].problem(value) for name, value in told.values.items())
    assert told.score is None or math.isfinite(told.score)
    names = entries.keys() - {"validation-score"}
    whole = {"weight", "score", "entries"} & told.left_out.keys()
    assert whole or len(told.values) + sum(told.left_out.values()) == len(names)


def test_a_report_that_is_written_is_read_as_it_was() -> None:
    told = read_report(report_entries(START, score=0.5), KINDS)
    assert (told.values, told.score, told.left_out) == (START, 0.5, {})


def test_a_record_with_more_than_128_entries_is_not_read() -> None:
    entries = {**START, **{f"x{i}": 1 for i in range(128)}}
    assert read_report(entries, KINDS).left_out == {"entries": 1}


def test_numpy_numbers_travel_as_plain_ones() -> None:
    entries = report_entries({"lr": np.float32(0.5), "k": np.int64(3)}, score=np.float32(0.25))
    assert [type(value) for value in entries.values()] == [float, int, float]


@pytest.mark.parametrize(
    ("values", "score", "words"),
    [
        ({"lr": None}, None, "lr"),
        ({"lr": True}, None, "lr"),
        ({"lr": np.array([0.1, 0.2])}, None, "lr"),
        ({"server-round": 1}, None, "something else"),
        ({"validation-score": 1}, None, "something else"),
        ({}, math.nan, "finite"),
        ({}, "good", "finite"),
        ({}, True, "finite"),
    ],
)
def test_a_report_that_cannot_travel_is_refused_where_it_is_written(values: Any, score: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        report_entries(values, score)


@pytest.mark.parametrize(
    ("kinds", "start", "words"),
    [
        ({}, {}, "a kind by name"),
        ({"lr": 0.1}, {"lr": 0.1}, "expected LogScale"),
        ({"server-round": Count(1, 3)}, {"server-round": 1}, "something else"),
        ({"": Count(1, 3)}, {"": 1}, "1 to 64"),
        (KINDS, 0.1, "start = 0.1: expected a value by name, for each of lr, k, loss"),
        (KINDS, {"lr": 0.1, "k": 5}, "loss is missing"),
        (KINDS, {**START, "momentum": 0.9}, "momentum is not among lr, k, loss"),
        (KINDS, {**START, "k": 16}, "k = 16 is not in"),
        ({f"x{i}": Count(1, 3) for i in range(128)}, {}, "fewer than 128"),
    ],
)
def test_hyperparameters_and_starts_that_are_none_are_refused_by_name(kinds: Any, start: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        hyperparameters_of(kinds, start)


def test_the_first_try_is_the_proposal_and_an_even_one_does_not_win() -> None:
    tried: list[dict[str, Value]] = []
    found = local_search(START, KINDS, lambda at: tried.append(at) or 0.5, np.random.default_rng(0), tries=6)  # type: ignore[func-returns-value]
    assert tried[0] == START
    assert (found.values, found.score, found.gain, found.tried) == (START, 0.5, 0.0, 6)
    assert len({tuple(at.values()) for at in tried}) == 6


def test_it_climbs_and_tells_what_it_cost() -> None:
    def near(at: dict[str, Value]) -> float:
        return -abs(math.log(float(at["lr"]) / 0.4))

    lr = {"lr": KINDS["lr"]}
    found = local_search({"lr": 0.05}, lr, near, np.random.default_rng(1), tries=8)
    assert found.values["lr"] == pytest.approx(0.4)
    assert found.gain == pytest.approx(math.log(8.0))
    assert found.tried <= 8


def test_a_trial_without_a_finite_score_never_wins() -> None:
    def broken(at: dict[str, Value]) -> float:
        return math.nan if at["lr"] != 0.1 else -5.0

    lr = {"lr": KINDS["lr"]}
    assert local_search({"lr": 0.1}, lr, broken, np.random.default_rng(0), 3).values == {"lr": 0.1}
    hopeless = local_search({"lr": 0.4}, lr, broken, np.random.default_rng(0), 1)
    assert (hopeless.values, hopeless.score, hopeless.gain) == ({"lr": 0.4}, None, None)


def test_what_is_not_searched_is_passed_on_as_it_is() -> None:
    seen: list[Value] = []
    local_search(START, {"k": KINDS["k"]}, lambda at: seen.append(at["loss"]) or 0.0, np.random.default_rng(0), 3)  # type: ignore[func-returns-value]
    assert seen == ["ce"] * 3


def test_a_search_ends_where_nothing_is_left_to_try() -> None:
    both = {"loss": KINDS["loss"]}
    assert local_search({"loss": "ce"}, both, lambda at: 0.0, np.random.default_rng(0), tries=9).tried == 2


@pytest.mark.parametrize(("proposed", "tries"), [({"k": 99}, 3), ({}, 3), ({"k": 5}, 0), ({"k": 5}, 2.0)])
def test_a_search_around_nothing_is_refused(proposed: Any, tries: Any) -> None:
    with pytest.raises(ConfigError):
        local_search(proposed, {"k": KINDS["k"]}, lambda at: 0.0, np.random.default_rng(0), tries)
