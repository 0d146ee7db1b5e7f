"""Trees come back exactly, and a reader never meets half a file."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_edge.errors import ConfigError, EdgeError, StateError
from flower_edge.store.tree import DTYPES, load_tree, save_tree, tree_from_bytes, tree_to_bytes

KNOWN_DTYPES = st.sampled_from([np.dtype(name) for name in DTYPES] + [np.dtype(">f4"), np.dtype(">i2")])
ARRAYS = KNOWN_DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text()
    | st.binary(max_size=40)
    | ARRAYS
    | ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.reshape(-1)[0])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def assert_same(came: Any, went: Any) -> None:
    assert type(came) is type(went)
    if isinstance(went, dict):
        assert list(came) == list(went)
        for key in went:
            assert_same(came[key], went[key])
    elif isinstance(went, list | tuple):
        assert len(came) == len(went)
        for one, other in zip(came, went, strict=True):
            assert_same(one, other)
    elif isinstance(went, np.ndarray | np.generic):
        assert came.dtype == went.dtype
        assert came.dtype.byteorder == went.dtype.byteorder
        assert came.shape == went.shape
        assert came.tobytes() == went.tobytes()
    elif isinstance(went, float):
        assert struct.pack(">d", came) == struct.pack(">d", went)
    else:
        assert came == went


@given(TREES)
@settings(deadline=None)
def test_any_tree_comes_back_exactly(tree: Any) -> None:
    assert_same(tree_from_bytes(tree_to_bytes(tree)), tree)


@given(TREES)
@settings(max_examples=30, deadline=None)
def test_the_same_tree_gives_the_same_bytes(tree: Any) -> None:
    assert tree_to_bytes(tree) == tree_to_bytes(tree_from_bytes(tree_to_bytes(tree)))


def test_the_sign_of_zero_and_the_bits_of_a_nan_survive() -> None:
    odd_nan = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
    array = np.array([-0.0, 0.0, np.inf, -np.inf], np.float16)
    assert_same(tree_from_bytes(tree_to_bytes([-0.0, odd_nan, -math.inf, array])), [-0.0, odd_nan, -math.inf, array])


def test_generators_go_on_where_they_were() -> None:
    generator, plain = np.random.default_rng(5), random.Random(5)
    saved = tree_to_bytes({"numpy": generator.bit_generator.state, "python": plain.getstate()})
    expected = generator.normal(size=3), plain.random()
    loaded = tree_from_bytes(saved)
    generator.bit_generator.state = loaded["numpy"]
    plain.setstate(loaded["python"])
    assert generator.normal(size=3).tolist() == expected[0].tolist()
    assert plain.random() == expected[1]


def test_integers_have_no_largest() -> None:
    for number in (2**53 - 1, 2**53, -(2**64), 10**6000):
        assert tree_from_bytes(tree_to_bytes(number)) == number


def test_fortran_order_and_strides_do_not_change_the_values() -> None:
    base = np.arange(24.0).reshape(4, 6)
    for view in (np.asfortranarray(base), base[::2, ::-3], base.T):
        came = tree_from_bytes(tree_to_bytes(view))
        np.testing.assert_array_equal(came, view)
        assert came.shape == view.shape


def test_loaded_arrays_can_be_trained_on_in_place() -> None:
    loaded = tree_from_bytes(tree_to_bytes({"w": np.ones(3), "big-endian": np.ones(2, ">f8"), "one": np.ones(())}))
    for array in loaded.values():
        array += 1.0
    assert loaded["w"].tolist() == [2.0, 2.0, 2.0]


def test_two_places_that_spell_alike_stay_apart() -> None:
    tree = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}, "__metadata__": np.full(1, 2.0), "": np.full(1, 3.0)}
    assert_same(tree_from_bytes(tree_to_bytes(tree)), tree)


def test_any_safetensors_reader_opens_the_arrays_by_their_place_in_the_tree(tmp_path: Path) -> None:
    save_tree(tmp_path / "x.safetensors", {"round": 3, "model": {"conv1.weight": np.ones((2, 3), np.float32)}})
    tensors = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert list(tensors) == ["model/conv1.weight"]
    assert tensors["model/conv1.weight"].shape == (2, 3)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"a": [1, {2, 3}]}, r"a builtins\.set at a/1"),
        ({"a": {None: 1}}, r"the key None \(NoneType\) at a"),
        ({True: 1}, r"the key True \(bool\) at the top"),
        ({"a": np.array(["x"])}, "dtype <U1 at a"),
        ({"a": np.zeros(2, np.complex128)}, "dtype complex128 at a"),
        ([np.array([object()])], "dtype object at 0"),
        (OrderedDict(a=1), r"a collections\.OrderedDict at the top"),
        (Path("x"), r"a pathlib\."),
        (np.ma.masked_array([1.0], mask=[True]), r"a numpy\.ma.* at the top"),
    ],
)
def test_what_would_not_come_back_is_refused_by_its_place(bad: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tree_to_bytes(bad)


def test_a_tree_that_contains_itself_is_refused() -> None:
    tree: dict[str, Any] = {}
    tree["me"] = tree
    with pytest.raises(ConfigError, match="me/me/me/me"):
        tree_to_bytes(tree)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_flipped_or_missing_byte_goes_unnoticed(data: st.DataObject) -> None:
    tree = {"model": np.arange(6.0), "round": 7, "none": None, "state": (1, b"abc", 0.5)}
    whole = tree_to_bytes(tree)
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    try:
        came = tree_from_bytes(damaged)
    except StateError:
        return
    assert_same(came, tree)  # a flip in the padding of the header changes nothing


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95pickle", os.urandom(4096), b"\0" * 64, b"{}" * 40])
def test_a_foreign_file_is_refused_by_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"foreign\.safetensors"):
        load_tree(path)


def test_a_safetensors_file_of_somebody_else_is_refused_with_its_reader_named(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"w": np.ones(2)}, path)
    with pytest.raises(StateError, match=r"read it with safetensors\.numpy"):
        load_tree(path)


def test_a_newer_format_is_refused_by_its_number() -> None:
    newer = tree_to_bytes(1).replace(b'"flower-edge.tree":"1 ', b'"flower-edge.tree":"2 ')
    with pytest.raises(StateError, match="tree format '2'"):
        tree_from_bytes(newer)


def test_a_missing_file_and_a_folder_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no such file"):
        load_tree(tmp_path / "nowhere")
    with pytest.raises(StateError, match="cannot be read"):
        load_tree(tmp_path)


def test_a_tree_that_is_refused_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tree(path, 1)
    with pytest.raises(ConfigError):
        save_tree(path, {1, 2})
    assert load_tree(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with pytest.raises(OSError, match="taken"):
        save_tree(tmp_path / "taken", 1)  # a folder of that name: the last step, the rename, fails
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_files_obey_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        save_tree(tmp_path / "x", 1)
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


WRITER = """
import sys
import numpy as np
from flower_edge.store.tree import save_tree
for number in range(10**9):
    save_tree(sys.argv[1], {"number": number, "w": np.full(200_000, float(number))})
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    moments = random.Random(11)
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            assert first == "0\n"
            end = time.monotonic() + moments.uniform(0.02, 0.3)
            while time.monotonic() < end:  # a reader beside the writer sees whole files only
                tree = load_tree(path)
                assert (tree["w"] == tree["number"]).all()
        finally:
            writer.kill()
            said = [0, *map(int, writer.stdout.read().split())] if writer.stdout else []
            writer.wait()
            if writer.stdout:
                writer.stdout.close()
        tree = load_tree(path)
        assert (tree["w"] == tree["number"]).all()
        assert tree["number"] in (said[-1], said[-1] + 1)


def test_every_refusal_is_an_error_of_ours() -> None:
    for data in (b"", b"\xff" * 9, json.dumps({}).encode()):
        with pytest.raises(EdgeError):
            tree_from_bytes(data)
