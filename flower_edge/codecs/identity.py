"""`Identity`: the arrays' own bytes, one after the other. The measure of every other codec, and the exact one.

Nothing is compressed and nothing is lost. The payload carries no names, shapes or dtypes: both ends know the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .codec import Arrays, State

__all__ = ["Identity"]

#: Dtypes that mean the same bytes on every machine. By name: bfloat16 and its kin are dtypes of other packages.
_CARRIED = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


@dataclass(frozen=True)
class Identity:
    """Raw little-endian bytes in the order of the model.

    >>> codec = Identity()
    >>> state = codec.init({"w": np.zeros((2,), np.float32), "b": np.zeros((), np.uint8)})
    >>> payload, state = codec.encode({"w": np.array([1, 2], np.float32), "b": np.array(7, np.uint8)}, state)
    >>> len(payload), codec.decode(payload, state)[0]
    (9, {'w': array([1., 2.], dtype=float32), 'b': array(7, dtype=uint8)})
    """

    def init(self, like: Arrays) -> State:
        """Names, shapes and dtypes of the model.

        Raises:
            CodecError: a dtype whose bytes do not mean the same everywhere: bfloat16, objects, texts, long doubles.
        """
        for name, array in like.items():
            if array.dtype.name not in _CARRIED or array.dtype.hasobject:
                raise CodecError(
                    f"{name!r} has dtype {array.dtype.name}: the identity codec carries {', '.join(sorted(_CARRIED))}; "
                    "convert the array before it is encoded, say with astype('float32')"
                )
        return {
            "names": list(like),
            "shapes": [list(array.shape) for array in like.values()],
            "dtypes": [array.dtype.name for array in like.values()],
        }

    def encode(self, x: Arrays, state: State) -> tuple[bytes, State]:
        """The bytes of all arrays, in the order of `init` whatever the order of `x`."""
        names = state["names"]
        if set(x) != set(names):
            missing, other = [n for n in names if n not in x], [n for n in x if n not in names]
            raise CodecError(f"arrays that are not the model's: missing {missing[:6]}, unexpected {other[:6]}")
        parts: list[npt.NDArray[Any]] = []
        for name, shape, dtype in zip(names, state["shapes"], state["dtypes"], strict=True):
            array = x[name]
            if list(array.shape) != shape or array.dtype.name != dtype:
                raise CodecError(
                    f"{name!r} is {array.dtype.name} {tuple(array.shape)}, expected {dtype} {tuple(shape)}; "
                    "return arrays of the model's shapes, and cast them back with wire.cast_like"
                )
            parts.append(np.ascontiguousarray(array, dtype=_little(dtype)).reshape(-1).view(np.uint8))
        return b"".join(part.data for part in parts), state

    def decode(self, payload: bytes, state: State) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """Arrays over the payload's own bytes: read-only, nothing is copied where the machine is little-endian."""
        dtypes = [_little(dtype) for dtype in state["dtypes"]]
        counts = [math.prod(shape) for shape in state["shapes"]]
        expected = sum(count * dtype.itemsize for count, dtype in zip(counts, dtypes, strict=True))
        if len(payload) != expected:
            raise CodecError(
                f"payload of {len(payload)} bytes, expected {expected} for this model; "
                "build the model with the same name and options on both sides"
            )
        arrays: dict[str, npt.NDArray[Any]] = {}
        offset = 0
        for name, shape, dtype, count in zip(state["names"], state["shapes"], dtypes, counts, strict=True):
            flat = np.frombuffer(payload, dtype, count, offset) if count else np.empty(0, dtype)
            if dtype == np.bool_ and (flat.view(np.uint8) > 1).any():
                raise CodecError(f"{name!r} is bool and holds a byte that is neither 0 nor 1; the payload was altered")
            arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="), copy=False)
            offset += count * dtype.itemsize
        return arrays, state

    def config(self) -> dict[str, Any]:
        """The kind; there is nothing to choose."""
        return {"kind": "identity"}


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")
