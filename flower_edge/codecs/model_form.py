"""The form of a model that a codec was made for: names, shapes, dtypes; and its floats as one flat vector.

    a model  ->  floats: one float32 vector, in the model's order     the rest (integers, flags): its own bytes

Nothing here loses anything but what float64 has beyond float32. Nothing here encodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .layout import Floats, Layout

__all__ = [
    "Arrays",
    "check_form",
    "form_of",
    "gather",
    "layout_of",
    "little",
    "read_arrays",
    "read_rest",
    "rest_bytes",
    "round_as_held",
    "scatter",
]

Arrays = Mapping[str, npt.NDArray[Any]]
#: `names`, `shapes`, `dtypes`: lists, as they lie in a state.
Form = Mapping[str, Any]

#: Dtypes that mean the same bytes on every machine. By name: bfloat16 and its kin are dtypes of other packages.
_CARRIED = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
#: What goes into the flat vector.
_FLOATS = frozenset(["float16", "float32", "float64"])


def form_of(like: Arrays) -> dict[str, Any]:
    """Names, shapes and dtypes of a model, as plain values.

    Raises:
        CodecError: a dtype whose bytes do not mean the same everywhere: bfloat16, objects, texts, long doubles.
    """
    for name, array in like.items():
        if array.dtype.name not in _CARRIED or array.dtype.hasobject:
            raise CodecError(
                f"{name!r} has dtype {array.dtype.name}: codecs carry {', '.join(sorted(_CARRIED))}; "
                "convert the array before it is encoded, say with astype('float32')"
            )
    return {
        "names": list(like),
        "shapes": [list(array.shape) for array in like.values()],
        "dtypes": [array.dtype.name for array in like.values()],
    }


def check_form(x: Arrays, form: Form) -> None:
    """Refuse arrays that are not those of the model.

    Raises:
        CodecError: names what is missing, unexpected, or of another shape or dtype.
    """
    names = form["names"]
    if set(x) != set(names):
        missing, other = [n for n in names if n not in x], [n for n in x if n not in names]
        raise CodecError(f"arrays that are not the model's: missing {missing[:6]}, unexpected {other[:6]}")
    for name, shape, dtype in zip(names, form["shapes"], form["dtypes"], strict=True):
        array = x[name]
        if list(array.shape) != shape or array.dtype.name != dtype:
            raise CodecError(
                f"{name!r} is {array.dtype.name} {tuple(array.shape)}, expected {dtype} {tuple(shape)}; "
                "return arrays of the model's shapes, and cast them back with wire.cast_like"
            )


def layout_of(form: Form) -> Layout:
    """The layout of the model's floats."""
    kept = [i for i, dtype in enumerate(form["dtypes"]) if dtype in _FLOATS]
    return Layout(tuple(form["names"][i] for i in kept), tuple(tuple(form["shapes"][i]) for i in kept))


def gather(x: Arrays, layout: Layout) -> Floats:
    """The floats of a model as one vector, float32 [params]; a copy."""
    out = np.empty(layout.size, np.float32)
    with np.errstate(over="ignore"):  # beyond float32 it is an infinity, which every codec refuses by name
        for name, part in zip(layout.names, layout.slices(), strict=True):
            out[part] = x[name].reshape(-1)
    return out


def scatter(v: Floats, rest: Arrays, form: Form, layout: Layout) -> dict[str, npt.NDArray[Any]]:
    """Inverse of `gather` and `rest_bytes`: the model, in its own order and dtypes. float32 arrays are views of `v`.

    Raises:
        CodecError: a number that is too large for an array's float16.
    """
    slices = dict(zip(layout.names, layout.slices(), strict=True))
    out: dict[str, npt.NDArray[Any]] = {}
    for name, shape, dtype in zip(form["names"], form["shapes"], form["dtypes"], strict=True):
        if name not in slices:
            out[name] = rest[name]
            continue
        part = v[slices[name]].reshape(shape)
        with np.errstate(over="ignore", under="ignore"):
            out[name] = part.astype(dtype, copy=False)
        if dtype == "float16" and not np.isfinite(out[name]).all():
            raise CodecError(
                f"{name!r} is float16 and was told {np.abs(part).max()}, expected at most 65504; clip updates, or keep "
                "the array as float32"
            )
    return out


def round_as_held(v: Floats, form: Form, layout: Layout) -> None:
    """Round, in place, to what the model's own dtypes hold: `gather(scatter(v))` is then `v` again.

    What float16 is too narrow for stays, for `scatter` to refuse by name.

    >>> v, form = np.array([1.0001, 1.0001], np.float32), form_of({"a": np.zeros(1), "b": np.zeros(1, np.float16)})
    >>> round_as_held(v, form, layout_of(form))
    >>> v
    array([1.0001, 1.    ], dtype=float32)
    """
    if "float16" not in form["dtypes"]:
        return
    dtypes = dict(zip(form["names"], form["dtypes"], strict=True))
    for name, part in zip(layout.names, layout.slices(), strict=True):
        if dtypes[name] == "float16":
            with np.errstate(over="ignore", under="ignore"):
                held = v[part].astype(np.float16)
            np.copyto(v[part], held, where=np.isfinite(held))


def rest_bytes(x: Arrays, form: Form) -> bytes:
    """The bytes of what is no float, in the model's order, little-endian."""
    parts = [
        np.ascontiguousarray(x[name], dtype=little(dtype)).tobytes()
        for name, dtype in zip(form["names"], form["dtypes"], strict=True)
        if dtype not in _FLOATS
    ]
    return b"".join(parts)


def read_rest(data: memoryview, form: Form) -> tuple[dict[str, npt.NDArray[Any]], memoryview]:
    """Inverse of `rest_bytes`: those arrays (over the payload's own bytes, read-only), and what follows them.

    Raises:
        CodecError: too few bytes, or a flag that is neither 0 nor 1.
    """
    return read_arrays(data, form, without=_FLOATS)


def read_arrays(
    data: memoryview, form: Form, *, without: Collection[str] = ()
) -> tuple[dict[str, npt.NDArray[Any]], memoryview]:
    """Arrays that lie one after the other (over the payload's own bytes, read-only), and what follows them.

    Args:
        without: dtypes of arrays that are not among them.

    Raises:
        CodecError: too few bytes, or a flag that is neither 0 nor 1.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    offset = 0
    for name, shape, text in zip(form["names"], form["shapes"], form["dtypes"], strict=True):
        if text in without:
            continue
        dtype, count = little(text), math.prod(shape)
        if offset + count * dtype.itemsize > len(data):
            raise CodecError(
                f"payload of {len(data)} bytes ends within {name!r}; "
                "build the model with the same name and options on both sides"
            )
        flat = np.frombuffer(data, dtype, count, offset) if count else np.empty(0, dtype)
        if dtype == np.bool_ and (flat.view(np.uint8) > 1).any():
            raise CodecError(f"{name!r} is bool and holds a byte that is neither 0 nor 1; the payload was altered")
        arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="), copy=False)
        offset += count * dtype.itemsize
    return arrays, data[offset:]


def little(dtype: str) -> np.dtype[Any]:
    """The dtype of that name, little-endian."""
    return np.dtype(dtype).newbyteorder("<")
