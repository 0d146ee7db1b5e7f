"""An npy file as an array, without a copy, whoever wrote it."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_edge.errors import WireError
from flower_edge.updates.npy import npy_view

NUMBERS = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes(endianness="?")
)


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def with_header(header: str, rest: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin-1") + rest


@given(hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), st.booleans())
def test_any_array_of_numbers_comes_back_as_it_was_saved(array: np.ndarray, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran else array
    view = npy_view(saved(array), str(array.dtype), array.shape)
    assert view.dtype == array.dtype
    assert view.shape == array.shape
    assert view.tobytes() == array.tobytes()


def test_the_view_is_on_the_bytes_themselves_and_cannot_be_written() -> None:
    data = saved(np.arange(1000.0))
    view = npy_view(data, "float64", (1000,))
    assert np.shares_memory(view, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0


def test_a_buffer_that_can_be_written_gives_a_view_that_cannot() -> None:
    assert not npy_view(bytearray(saved(np.arange(3.0))), "float64", (3,)).flags.writeable  # type: ignore[arg-type]


@pytest.mark.parametrize("array", [np.float32([[1, 2], [3, 4]]), np.asfortranarray(np.eye(3)), np.array(7)])
def test_what_flower_sends_is_read(array: np.ndarray) -> None:
    sent = Array(array)
    assert np.array_equal(npy_view(sent.data, sent.dtype, tuple(sent.shape)), sent.numpy())


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int]) -> None:
    assert npy_view(saved(np.arange(4), version), "int64", (4,)).tolist() == [0, 1, 2, 3]


def test_a_big_endian_machine_may_call_its_own_order_float32() -> None:
    assert npy_view(saved(np.array([1.5], ">f4")), "float32", (1,)) == [1.5]


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        ("float64", (2, 3), "label says dtype float64, the bytes say '<f4'"),
        ("int32", (2, 3), "label says dtype int32"),
        ("float32", (3, 2), r"label says shape \(3, 2\), the bytes say \(2, 3\)"),
        ("float32", (6,), "label says shape"),
        ("float32", (-2, -3), "label says shape"),
        ("object", (2, 3), "'object' is not one of numbers"),
        ("V4", (2, 3), "not one of numbers"),
        ("f4,f4", (2, 3), "not one of numbers"),
        ("datetime64[s]", (2, 3), "not one of numbers"),
        ("", (2, 3), "not one of numbers"),
    ],
)
def test_a_label_that_is_not_what_the_bytes_say_is_refused(dtype: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(WireError, match=message):
        npy_view(saved(np.zeros((2, 3), np.float32)), dtype, shape)


def test_bytes_after_the_array_and_bytes_that_are_missing_are_refused() -> None:
    data = saved(np.zeros(4, np.float32))
    for wrong in (data + b"\0", data[:-1], data[:60], data[:9], b"", b"PK\3\4" + data[4:]):
        with pytest.raises(WireError):
            npy_view(wrong, "float32", (4,))


def test_pickled_objects_are_refused_and_not_read() -> None:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    for label in ("object", "float64", "|O"):
        with pytest.raises(WireError):
            npy_view(file.getvalue(), label, (1,))


@pytest.mark.parametrize(
    ("header", "shape"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", (10**12,)),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (0, " + "9" * 40 + "), }", (0, int("9" * 40))),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 70 + "), }", (1,) * 70),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", (-1,)),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': [2], }", (2,)),
        ("{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (), }", ()),
        ("{'descr': '<f8', 'descr': '<f8', 'shape': (), }", ()),
        ("{'descr': '<f8', 'fortran_order': 1, 'shape': (), }", ()),
        ("-" * 1900, ()),
        ("(" * 1900, ()),
        ("{[]: 1}", ()),
        ("__import__('os').abort()", ()),
        (" " * 3000, ()),
    ],
)
def test_a_hostile_header_costs_nothing(header: str, shape: tuple[int, ...]) -> None:
    data = with_header(header, bytes(8))
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            npy_view(data, "float64", shape)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_a_boolean_is_one_of_two_bytes() -> None:
    data = saved(np.array([True, False]))
    assert npy_view(data, "bool", (2,)).tolist() == [True, False]
    with pytest.raises(WireError, match="booleans"):
        npy_view(data[:-1] + b"\x02", "bool", (2,))


FILES = [saved(np.arange(3, dtype=np.float32)), saved(np.array([[True]])), saved(np.asfortranarray(np.eye(2)), (2, 0))]
LABELS = [("float32", (3,)), ("bool", (1, 1)), ("float64", (2, 2))]


@settings(max_examples=150)
@given(
    st.integers(0, 2), st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), max_size=4), st.integers(0, 2)
)
@example(0, [(10, b"{")], 0)
def test_damaged_bytes_are_refused_or_are_the_array_that_was_declared(
    which: int, damage: list[tuple[int, bytes]], label: int
) -> None:
    data = FILES[which]
    for place, new in damage:
        data = data[:place] + new + data[place + len(new) :]
    dtype, shape = LABELS[label]
    refused_or_declared(data, dtype, shape)


@given(st.binary(max_size=300), st.text(max_size=8), st.lists(st.integers(-5, 2**70), max_size=4).map(tuple))
def test_any_bytes_with_any_label_never_raise_anything_else(data: bytes, dtype: str, shape: tuple[int, ...]) -> None:
    refused_or_declared(data, dtype, shape)
    refused_or_declared(with_header(data.decode("latin-1"), data), dtype, shape)


def refused_or_declared(data: bytes, dtype: str, shape: tuple[Any, ...]) -> None:
    try:
        view = npy_view(data, dtype, shape)
    except WireError:
        return
    assert view.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    assert view.shape == shape
    assert view.nbytes <= len(data)
