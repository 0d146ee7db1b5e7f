"""`npy_view`: the array in the bytes of an npy file, without a copy. Nothing in the bytes is evaluated or unpickled.

NumPy's own reader evaluates the header as a Python literal and allocates what it announces. Here the header is matched
against the one form that it may have, and nothing is allocated: a reply can lie only about numbers, never about size.

Source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays"; versions 1, 2 and 3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import WireError

__all__ = ["npy_view"]

_MAGIC: Final = b"\x93NUMPY"
#: More than the header of any array of numbers takes: 64 axes of 20 digits, and the padding.
_MOST_HEADER_BYTES: Final = 2048
#: Width in bytes of the length that comes after the version.
_LENGTH_BYTES: Final[Mapping[int, int]] = {1: 2, 2: 4, 3: 4}
#: No more than Python's own grammar allows: what passes here, others hand to NumPy, which evaluates it.
_SIZE: Final = r"(?:0|[1-9][0-9]*)"
_SHAPE: Final = rf"\(\)|\({_SIZE}, *\)|\({_SIZE}(?:, *{_SIZE})+(?:, *)?\)"
_ENTRY: Final = rf"'([a-z_]{{1,16}})' *: *('[^']{{0,16}}'|True|False|{_SHAPE})"
_HEADER: Final = re.compile(rf"\{{ *{_ENTRY} *, *{_ENTRY} *, *{_ENTRY} *(?:, *)?\}} *\n?")


def _numeric() -> dict[str, np.dtype[Any]]:
    """Every dtype of numbers by its names: `float32`, `<f4`, `>f4`."""
    native = [np.dtype(code) for code in np.typecodes["All"]]
    numbers = [dtype for dtype in native if dtype.kind in "biufc"]
    names = {str(dtype): dtype for dtype in numbers}
    return names | {
        turned.str: turned for one in numbers for turned in (one, one.newbyteorder("<"), one.newbyteorder(">"))
    }


_NUMERIC: Final[Mapping[str, np.dtype[Any]]] = _numeric()


def npy_view(data: bytes, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The array that these bytes are, read-only and on the same memory.

    The byte order is the header's: a big-endian machine writes `>f4` and calls it `float32`.

    Args:
        data: an npy file: what Flower's `Array.data` is.
        dtype: what its label says, such as `"float32"`; numbers and booleans only.
        shape: what its label says.

    Raises:
        WireError: the bytes are not an npy file, are another array than the label says, or are of another length. The
            message does not know the sender; add it.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.save(file, np.array([1.0, 2.0], np.float32))
    >>> npy_view(file.getvalue(), "float32", (2,))
    array([1., 2.], dtype=float32)
    >>> npy_view(file.getvalue(), "float32", (2_000_000_000_000,))
    Traceback (most recent call last):
    flower_edge.errors.WireError: the label says shape (2000000000000,), the bytes say (2,)
    """
    wanted = _NUMERIC.get(dtype)
    if wanted is None:
        raise WireError(f"dtype {dtype[:40]!r} is not one of numbers; send float32 or another of NumPy's numbers")
    start, entries = _header(data)
    found = _NUMERIC.get(entries["descr"].strip("'"))
    if found is None or (found.kind, found.itemsize) != (wanted.kind, wanted.itemsize):
        raise WireError(f"the label says dtype {dtype}, the bytes say {entries['descr']}")
    sizes = tuple(int(digits) for digits in re.findall(r"[0-9]+", entries["shape"]))
    if sizes != tuple(shape):
        raise WireError(f"the label says shape {tuple(shape)}, the bytes say {sizes}")
    needed = start + math.prod(sizes) * found.itemsize
    if len(data) != needed:
        raise WireError(f"{len(data)} bytes, and an array of {dtype} {sizes} is {needed}")
    try:
        view: npt.NDArray[Any] = np.ndarray(
            sizes, found, buffer=data, offset=start, order="F" if entries["fortran_order"] == "True" else "C"
        )
    except (ValueError, OverflowError, TypeError) as no:
        raise WireError(f"no array can have shape {sizes}: {no}") from None
    view.flags.writeable = False
    if found.kind == "b" and view.size and np.ndarray(view.size, np.uint8, buffer=data, offset=start).max() > 1:
        raise WireError("an array of booleans has bytes other than 0 and 1")
    return view


def _header(data: bytes) -> tuple[int, Mapping[str, str]]:
    """Where the numbers begin, and the header's three entries as text."""
    if bytes(data[:6]) != _MAGIC or len(data) < 10 or data[6] not in _LENGTH_BYTES or data[7] != 0:
        raise WireError(f"not an npy file: it begins with {bytes(data[:8])!r}; send arrays as NumPy saves them")
    width = _LENGTH_BYTES[data[6]]
    start = 8 + width
    length = int.from_bytes(data[8:start], "little")
    if length > _MOST_HEADER_BYTES or start + length > len(data):
        raise WireError(f"an npy header of {length} bytes; at most {_MOST_HEADER_BYTES} and within the file")
    match = _HEADER.fullmatch(bytes(data[start : start + length]).decode("latin-1"))
    entries = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    flag, size = entries.get("fortran_order"), entries.get("shape", "")
    if entries.keys() != {"descr", "fortran_order", "shape"} or flag not in ("True", "False") or size[:1] != "(":
        raise WireError("an npy header that is not that of an array of numbers; send arrays as NumPy saves them")
    return start + length, entries
