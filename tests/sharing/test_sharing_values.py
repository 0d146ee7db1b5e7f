"""Cards, sets, policies, parts and the book: a rule sees what is there, and what comes from outside is bounded."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, DataError, WireError
from flower_edge.rules import Rule
from flower_edge.sharing import (
    DataCard,
    Part,
    SetSpec,
    ShareBook,
    SharePolicy,
    TrainingSet,
    check_part,
    draw,
    k_anonymity,
    share_rule,
    waves,
)
from flower_edge.store import tree_from_bytes, tree_to_bytes

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80), st.binary(max_size=4))
NAMES = st.sampled_from([*vars(DataCard("x")), "else"])


# -- k-anonymity -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from("ab")), min_size=1, max_size=25))
def test_k_is_the_smallest_count_of_equal_rows(rows: list[tuple[int, int, str]]) -> None:
    table = {name: np.array(column) for name, column in zip("pqr", zip(*rows, strict=True), strict=True)}
    assert k_anonymity(table, "pqr") == min(rows.count(row) for row in rows)


def test_more_quasi_identifiers_never_raise_k() -> None:
    rng = np.random.default_rng(0)
    table = {name: rng.integers(0, 3, 60) for name in "abc"}
    found = [k_anonymity(table, "abc"[:most]) for most in range(4)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 60


def test_a_part_of_an_anonymous_table_is_measured_anew() -> None:
    x = np.repeat(np.arange(3.0, dtype=np.float32), 2)[:, None]
    whole = TrainingSet.of(x, np.zeros(6, np.int64), columns=["age"], quasi_identifiers=["age"])
    assert whole.card.k == 2
    assert whole.rows(np.array([0, 1, 2])).card.k == 1


def test_pictures_have_no_k_and_a_rule_on_k_refuses_them() -> None:
    pictures = TrainingSet.of(np.zeros((4, 2, 2), np.float32), np.zeros(4, np.int64), anonymous=True)
    assert pictures.card.k is None
    assert SharePolicy("anonymous").decide(pictures.card).agreed
    assert not SharePolicy("anonymous and k >= 2").decide(pictures.card).agreed


def test_a_quasi_identifier_that_is_no_column_is_named() -> None:
    with pytest.raises(DataError, match="town are not columns of the table; it has age"):
        k_anonymity({"age": np.zeros(2)}, ["town"])
    with pytest.raises(DataError, match="shapes"):
        k_anonymity({"age": np.zeros(2), "town": np.zeros(3)}, ["age"])


# -- cards -----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.one_of(ANYTHING, st.dictionaries(NAMES, ANYTHING, max_size=10)))
def test_reading_a_card_never_raises_and_what_is_read_can_be_made(told: Any) -> None:
    card = DataCard.read(told)
    assert card is None or DataCard(**vars(card)) == card


def test_a_card_survives_its_mapping() -> None:
    card = DataCard(
        "own", "7", 3, 60, "2x2", 4, 5.0, 1.5, 2, True, True, quasi_identifiers=("age", "town"), k=3, origin="shared"
    )
    assert DataCard.read(card.to_mapping()) == card


@pytest.mark.parametrize(
    "odd",
    [
        {"samples": -1},
        {"age_s": -1.0},
        {"public": 1},
        {"k": 1.5},
        {"origin": "stolen"},
        {"owner": "x" * 65},
        {"name": ""},
    ],
)
def test_a_card_out_of_its_bounds_is_refused_in_code_and_careful_from_outside(odd: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(odd))):
        DataCard(**{"name": "own", "samples": 1, **odd})
    read = DataCard.read({"name": "own", "samples": 1, **odd})
    assert read is None or read == DataCard("own", samples=1)


# -- sets ------------------------------------------------------------------------------------------------------------


def test_a_set_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(DataError, match="2 samples, 3 targets"):
        TrainingSet(np.zeros(2), np.zeros(3), DataCard("own", samples=2))
    with pytest.raises(DataError, match="expected an array of numbers"):
        TrainingSet.of(np.array([object()]), np.zeros(1))
    with pytest.raises(DataError, match="column names"):
        TrainingSet.of(np.zeros((2, 3)), np.zeros(2), columns=["a"])


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (np.zeros((2, 3), np.float64), np.zeros(2, np.int64), "x is float64"),
        (np.zeros((2, 4), np.float32), np.zeros(2, np.int64), "expected float32"),
        (np.full((2, 3), np.nan, np.float32), np.zeros(2, np.int64), "not finite"),
        (np.zeros((2, 3), np.float32), np.array([0, 9]), "targets 0..9, expected 0..3"),
        (np.zeros((2, 3), np.float32), np.zeros(3, np.int64), "2 samples and 3 targets"),
    ],
)
def test_a_spec_names_what_is_wrong(x: Any, y: Any, why: str) -> None:
    assert why in SetSpec((3,), classes=4).wrong(x, y)


def test_a_spec_takes_what_is_like_it() -> None:
    one = TrainingSet.of(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), classes=4)
    assert SetSpec.like(one).wrong(one.x, one.y) == ""
    assert SetSpec.like(one).row_bytes == 20
    with pytest.raises(ConfigError, match="not among"):
        SetSpec((1,), columns=("age",), quasi_identifiers=("town",))
    with pytest.raises(ConfigError, match="dtype 'object'"):
        SetSpec((1,), "object")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.floats(0, 1), st.one_of(st.none(), st.integers(0, 50)), st.integers(0, 5))
def test_a_draw_is_without_replacement_in_bounds_and_the_same_again(
    samples: int, share: float, most: int | None, seed: int
) -> None:
    drawn = draw(samples, share, most, seed)
    assert len(set(drawn.tolist())) == len(drawn) <= (samples if most is None else min(most, samples))
    assert all(0 <= row < samples for row in drawn)
    assert (drawn == draw(samples, share, most, seed)).all()


def test_five_per_cent_of_780_are_39() -> None:
    assert len(draw(780, 0.05, None, 0)) == 39


# -- policies --------------------------------------------------------------------------------------------------------


def test_without_a_rule_only_public_sets_are_shared_and_the_refusal_says_why() -> None:
    assert SharePolicy().decide(DataCard("own", public=True)).agreed
    no = SharePolicy().decide(DataCard("own", anonymous=True))
    assert (no.agreed, no.why) == (False, "rule public does not hold: public = False")


@pytest.mark.parametrize(
    ("asked", "good", "bad"),
    [
        ({"size_bytes_at_most": 100}, {"size_bytes": 100}, {"size_bytes": 101}),
        ({"anonymous": True}, {"anonymous": True}, {}),
        ({"k_at_least": 5}, {"k": 5}, {"k": 4}),
        ({"age_s_at_most": 60.0}, {"age_s": 60.0}, {}),
        ({"uses_at_most": 3}, {"uses": 3}, {"uses": 4}),
        ({"uses_at_least": 1}, {"uses": 1}, {"uses": 0}),
        ({"anonymous": True, "or_public": True}, {"public": True}, {}),
    ],
)
def test_each_property_of_the_source_gates(asked: Any, good: Any, bad: Any) -> None:
    policy = SharePolicy(share_rule(**asked))
    assert policy.decide(DataCard("own", **good)).agreed
    assert policy.decide(DataCard("own", **bad)).why


def test_a_rule_may_look_at_the_receiver_who_cannot_pose_as_a_card() -> None:
    policy = SharePolicy("receiver == '8' and not public")
    assert policy.decide(DataCard("own"), {"receiver": "8"}).agreed
    assert not policy.decide(DataCard("own"), {"receiver": "9"}).agreed
    assert not policy.decide(DataCard("own", public=True), {"receiver": "8", "public": False}).agreed


def test_no_condition_is_no_rule() -> None:
    with pytest.raises(ConfigError, match="name one"):
        share_rule()
    assert share_rule(or_public=True) == Rule("public")


# -- parts -----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=5), st.integers(1, 9), st.integers(1, 40))
def test_parts_cover_every_row_once_in_order_within_the_bound(sizes: list[int], row: int, piece: int) -> None:
    samples = {str(place): size for place, size in enumerate(sizes)}
    planned = waves(samples, row, piece)
    rows = [(part.key, place) for wave in planned for part in wave for place in range(part.start, part.stop)]
    assert rows == [(key, place) for key, size in samples.items() for place in range(size)]
    assert all(sum(part.stop - part.start for part in wave) * row <= max(piece, row) for wave in planned)


@pytest.mark.parametrize("part", [Part("a", 4, 6, 10), Part("a", 0, 0, 10), Part("a", 3, 11, 10), Part("a", 2, 5, 10)])
def test_a_part_that_does_not_go_on_is_refused(part: Part) -> None:
    with pytest.raises(WireError, match="'a'"):
        check_part(part, held=3)


# -- the book --------------------------------------------------------------------------------------------------------


def _book() -> ShareBook:
    book = ShareBook().handed("7/own", "7", "edge", samples=2, size_bytes=8, round=1, time_s=0.5)
    book = book.handed("7/own", "7", "8", samples=2, size_bytes=8, round=1, time_s=0.5)
    return book.handed("7/own", "7", "8", samples=2, size_bytes=8, round=3, time_s=9.5)


def test_the_book_tells_what_whom_when_and_how_often(tmp_path: Path) -> None:
    book = _book().used("8", {"7/own": 4}).used("7", {"7/own": 5}).refused()
    assert book.total_uses("7/own") == 9
    book.write_csv(tmp_path / "shares.csv")
    rows = list(csv.DictReader((tmp_path / "shares.csv").read_text().splitlines()))
    assert rows[1] == {
        "key": "7/own",
        "owner": "7",
        "receiver": "8",
        "times": "2",
        "samples": "4",
        "size_bytes": "16",
        "first_round": "1",
        "last_round": "3",
        "last_s": "9.5",
        "uses": "4",
    }
    ShareBook().write_csv(tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text().startswith("key,owner,receiver,times")


def test_a_use_count_never_falls_and_the_book_survives_a_checkpoint() -> None:
    book = _book().used("8", {"7/own": 4}).used("8", {"7/own": 1})
    assert book.total_uses("7/own") == 4
    assert ShareBook.load(tree_from_bytes(tree_to_bytes(book.dump()))) == book
    with pytest.raises(ConfigError, match="expected 0 or more"):
        book.handed("a", "b", "c", samples=-1, size_bytes=0, round=0, time_s=0.0)
