"""What a node was given, as a value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from update_cases import SPEC, cut, manifests, mask, model

from flower_edge.errors import ModelMismatch
from flower_edge.updates.manifest import ArrayPart, Manifest, part_manifest, same_part, whole_manifest
from flower_edge.updates.update import moving


@settings(max_examples=30)
@given(manifests(), st.integers(0, 99))
def test_a_part_has_the_shapes_that_its_places_say(manifest: Manifest, seed: int) -> None:
    part = cut(model(np.random.default_rng(seed)), manifest)
    assert {name: array.shape for name, array in part.items()} == {n: p.shape for n, p in manifest.arrays.items()}


@settings(max_examples=30)
@given(manifests(), manifests())
def test_two_parts_are_the_same_exactly_if_they_hold_the_same_coordinates(one: Manifest, other: Manifest) -> None:
    first, second = mask(one), mask(other)
    alike = one.arrays.keys() == other.arrays.keys() and all(np.array_equal(first[n], second[n]) for n in SPEC)
    empty = any(0 in part.shape for manifest in (one, other) for part in manifest.arrays.values())
    assert same_part(one, other) == alike or (empty and alike)


def test_naming_every_place_is_the_whole_array() -> None:
    named = part_manifest(SPEC, {**dict.fromkeys(SPEC), "a": (np.arange(4), np.arange(5))})
    assert named.is_whole
    assert same_part(named, whole_manifest(SPEC))


def test_the_order_of_names_and_the_dtypes_do_not_make_another_part() -> None:
    turned = dict(reversed(SPEC.items()))
    doubles = {name: (shape, "float64") for name, (shape, _) in SPEC.items()}
    assert same_part(whole_manifest(turned), whole_manifest(SPEC))
    assert same_part(whole_manifest(doubles), whole_manifest(SPEC))


def test_a_piece_is_another_part_than_the_whole() -> None:
    assert not same_part(part_manifest(SPEC, {"a": None}), whole_manifest(SPEC))


def test_the_dtypes_of_the_runs_first_model_are_fine_too() -> None:
    now = {"w": ((2,), "float32"), "n": ((), "float64")}
    first = {"w": ((2,), "float32"), "n": ((), "int64")}
    manifest = whole_manifest(now, first, most_steps=5)
    assert manifest.arrays["w"].dtypes == ("float32",)
    assert manifest.arrays["n"].dtypes == ("float64", "int64")
    assert manifest.most_steps == 5


def test_another_model_as_the_first_is_refused() -> None:
    with pytest.raises(ModelMismatch, match="`also` is of another model"):
        whole_manifest(SPEC, {"a": ((4, 5), "float32")})


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"z": None}, "not in the model"),
        ({"a": (np.array([0]),)}, "array 'a': an index of 1 axes"),
        ({"a": (np.array([1, 1]), None)}, "have to ascend"),
        ({"a": (np.array([2, 1]), None)}, "have to ascend"),
        ({"a": (np.array([3, 4]), None)}, "from 0 to 3 at most"),
        ({"a": (np.array([-1, 2]), None)}, "have to ascend"),
        ({"a": (np.array([0.0, 1.0]), None)}, "whole numbers"),
        ({"a": (np.array([[0]]), None)}, "whole numbers"),
    ],
)
def test_places_that_the_model_does_not_have_are_refused(index: dict, message: str) -> None:
    with pytest.raises(ModelMismatch, match=message):
        part_manifest(SPEC, index)


def test_a_part_of_another_shape_than_its_places_is_refused() -> None:
    with pytest.raises(ModelMismatch, match=r"places in \(4, 3\) are \(2, 3\)"):
        ArrayPart((3, 3), ("float32",), (4, 3), (np.array([0, 1]), None))


def test_the_places_are_the_manifests_own() -> None:
    given_places = np.array([0, 1])
    manifest = part_manifest(SPEC, {"b": (given_places,)})
    given_places[:] = 3
    index = manifest.arrays["b"].index
    assert index is not None
    assert index[0] is not None
    assert index[0].tolist() == [0, 1]


def test_counters_do_not_move_and_a_node_cannot_make_them() -> None:
    first = {"w": ((2,), "float32"), "n": ((), "int64")}
    later = {"w": ((2,), "float32"), "n": ((), "float64")}
    assert moving(whole_manifest(first)) == ("w",)
    assert moving(whole_manifest(later, first)) == ("w",)


def test_a_model_of_whole_numbers_moves_with_all_of_them() -> None:
    assert moving(whole_manifest({"trees": ((9,), "uint8")})) == ("trees",)
