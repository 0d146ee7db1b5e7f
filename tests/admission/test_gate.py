"""`Gate` by itself: a function of an offer and an assignment, as an edge, a centre and a peer ask it."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.admission.assignment import Assignment, needed_bytes, stamp
from flower_edge.admission.gate import Gate, Offer
from flower_edge.admission.refusal import CODES
from flower_edge.errors import ConfigError
from flower_edge.updates.manifest import Manifest, whole_manifest


@dataclass(frozen=True)
class Packed:
    """An array of a peer's packet; the gate does not know Flower."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    stype: str = "numpy.ndarray"


def packed(array: Any) -> Packed:
    file = io.BytesIO()
    np.save(file, array)
    return Packed(str(array.dtype), array.shape, file.getvalue())


MANIFEST = whole_manifest({"w": ((2,), "float32"), "n": ((1,), "int64")})
ASKED = Assignment("7", MANIFEST)
GOOD = {"w": packed(np.ones(2, np.float32)), "n": packed(np.ones(1, np.int64))}
COUNT = {"metrics": {"num-examples": 5}}


def code(offer: Offer, asked: Assignment = ASKED, gate: Gate | None = None) -> str:
    refusal = (gate or Gate()).refusal(offer, asked)
    return "" if refusal is None else refusal.code


def test_a_reply_to_its_assignment_passes_in_any_order_of_names() -> None:
    assert code(Offer({"arrays": GOOD}, COUNT)) == ""
    assert code(Offer({"arrays": dict(reversed(list(GOOD.items())))}, COUNT)) == ""


def test_dtypes_are_those_of_the_assignment_and_of_the_runs_first_model() -> None:
    sent = {"w": ((2,), "float64"), "n": ((1,), "float64")}
    first = {"w": ((2,), "float32"), "n": ((1,), "int64")}
    offer = Offer({"arrays": GOOD}, COUNT)
    assert code(offer, Assignment("7", whole_manifest(sent))) == "dtype"
    assert code(offer, Assignment("7", whole_manifest(sent, first))) == ""


def test_a_string_of_bytes_has_any_length_and_is_still_one() -> None:
    asked = Assignment("7", whole_manifest({"0": ((0,), "uint8")}))
    assert code(Offer({"arrays": {"0": packed(np.zeros(900, np.uint8))}}, COUNT, 1200), asked) == ""
    assert code(Offer({"arrays": {"0": packed(np.zeros((3, 3), np.uint8))}}, COUNT), asked) == "shape"
    assert code(Offer({"arrays": {"0": packed(np.zeros(3, np.int8))}}, COUNT), asked) == "dtype"


def test_an_edge_may_have_nothing_to_say_and_may_send_a_difference() -> None:
    edge, nothing = replace(ASKED, edge=True), {"metrics": {"num-examples": 0.0}}
    assert code(Offer({}, nothing), edge) == ""
    assert code(Offer({}, nothing)) == "no-arrays"
    assert code(Offer({}, COUNT), edge) == "no-arrays"
    moved = {"w": packed(np.ones(2, np.float32)), "n": packed(np.array([-1.0]))}
    assert code(Offer({"arrays": moved}, COUNT), edge) == "dtype"
    assert code(Offer({"arrays": moved}, COUNT, difference=True), edge) == ""


def test_a_stamp_comes_back_as_it_was_sent() -> None:
    told = stamp(7, "3", "v", "n")
    asked, offer = replace(ASKED, stamp=told), Offer({"arrays": GOOD}, COUNT)
    always, where_there = Gate(echo="required"), Gate(echo="if there")
    assert code(replace(offer, stamp=told), asked, always) == ""
    assert code(offer, asked, always) == "wrong-version"
    assert code(offer, asked, where_there) == ""
    assert code(replace(offer, stamp={**told, "nonce": "m"}), asked, where_there) == "wrong-version"
    assert code(replace(offer, stamp={**told, "run": "8"}), asked, where_there) == "wrong-run"
    assert code(replace(offer, stamp={"nonce": 7.0}), asked, where_there) == "wrong-version"


def test_what_it_may_weigh_is_what_it_needs_and_some_room() -> None:
    most = needed_bytes(MANIFEST)
    assert code(Offer({"arrays": GOOD}, COUNT, size_bytes=most)) == ""
    assert code(Offer({"arrays": GOOD}, COUNT, size_bytes=most + 1)) == "too-large"
    assert code(Offer({"arrays": GOOD}, COUNT, size_bytes=500), replace(ASKED, most_bytes=499)) == "too-large"


def test_without_finite_numbers_are_not_looked_at() -> None:
    arrays = {**GOOD, "w": packed(np.full(2, np.nan, np.float32))}
    assert code(Offer({"arrays": arrays}, COUNT)) == "not-finite"
    assert code(Offer({"arrays": arrays}, COUNT), gate=Gate(finite=False)) == ""


@pytest.mark.parametrize("value", [0, 0.5, -1, 11, True, "5", None, [5], 2**60, float("nan"), 1e300, 10**400])
def test_a_count_is_a_number_from_one_to_the_enrolled(value: Any) -> None:
    asked = Assignment("7", Manifest({}), training=False, most_examples=10)
    assert code(Offer({}, {"metrics": {"num-examples": value}}), asked) == "num-examples"


@pytest.mark.parametrize("value", [1, 10, 1.0, 9.5])
def test_counts_up_to_the_enrolled_pass(value: Any) -> None:
    asked = Assignment("7", Manifest({}), training=False, most_examples=10)
    assert code(Offer({}, {"metrics": {"num-examples": value}}), asked) == ""


def test_what_a_sender_chose_does_not_fill_the_log() -> None:
    long = "x" * 10_000
    for offer in (
        Offer({"arrays": {**GOOD, long: GOOD["w"]}}, COUNT),
        Offer({"arrays": {**GOOD, "w": replace(GOOD["w"], dtype=long)}}, COUNT),
        Offer({"arrays": {**GOOD, "w": replace(GOOD["w"], stype=long)}}, COUNT),
        Offer({"arrays": GOOD}, {"metrics": {"num-examples": 5, "x": long}}),
        Offer({"arrays": GOOD}, {"metrics": {"num-examples": 10**5000}}),
    ):
        refusal = Gate().refusal(offer, ASKED)
        assert refusal is not None
        assert len(str(refusal)) < 400


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
ARRAYS = st.dictionaries(
    st.sampled_from(["w", "n", "x"]),
    st.one_of(
        st.sampled_from(list(GOOD.values())),
        st.builds(
            Packed,
            st.one_of(st.sampled_from(["float32", "int64", "bool"]), st.text(max_size=9)),
            st.lists(st.integers(-2, 2**62), max_size=3).map(tuple),
            st.binary(max_size=90),
            st.just("numpy.ndarray"),
        ),
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), ARRAYS, max_size=2),
    st.dictionaries(
        st.text(max_size=3),
        st.dictionaries(st.sampled_from(["num-examples", "steps", "x"]), ANYTHING),
        max_size=2,
    ),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_offered_the_answer_is_a_code_or_nothing(
    arrays: Any, metrics: Any, training: bool, edge: bool
) -> None:
    asked = Assignment("7", replace(MANIFEST, most_steps=3), training, edge, most_examples=100)
    found = code(Offer(arrays, metrics, 500), asked)
    assert found in {"", *CODES}
    if not found and training and any(arrays.values()):
        ((_, sent),) = arrays.items()
        assert set(sent) == {"w", "n"}


@pytest.mark.parametrize("options", [{"weighted_by": ""}, {"echo": "yes"}, {"most_metrics": 0}, {"longest_list": 1.5}])
def test_an_argument_that_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Gate(**options)
