"""`Identity`: the arrays' own bytes, one after the other. The measure of every other codec, and the exact one.

Nothing is compressed and nothing is lost. The payload carries no names, shapes or dtypes: both ends know the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .layout import Floats, Layout, refuse_non_finite
from .model_form import Arrays, check_form, form_of, gather, layout_of, little, read_arrays
from .moment import NO_MOMENT, Moment
from .vector_codec import State, VectorCodec

__all__ = ["Identity"]


@dataclass(frozen=True)
class Identity(VectorCodec):
    """Raw little-endian bytes in the order of the model; nested in another codec, those of its float32 values.

    >>> codec = Identity()
    >>> state = codec.init({"w": np.zeros((2,), np.float32), "b": np.zeros((), np.uint8)})
    >>> payload, state = codec.encode({"w": np.array([1, 2], np.float32), "b": np.array(7, np.uint8)}, state)
    >>> len(payload), codec.decode(payload, state)[0]
    (9, {'w': array([1., 2.], dtype=float32), 'b': array(7, dtype=uint8)})
    """

    kind: ClassVar[str] = "identity"
    exact: ClassVar[bool] = True

    @property
    def unbiased(self) -> bool:
        """Trivially."""
        return True

    @property
    def linear(self) -> bool:
        """Trivially."""
        return True

    def contraction(self, size: int) -> float | None:
        """Nothing is left out."""
        return 1.0

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """float32, little-endian."""
        refuse_non_finite(v, layout)
        return v.astype("<f4", copy=False).tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Floats, State]:
        """Over the payload's own bytes: read-only."""
        if len(data) != 4 * layout.size:
            raise CodecError(f"{len(data)} bytes for {layout.size} float32 values, expected {4 * layout.size}")
        v = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
        refuse_non_finite(v, layout)
        return v, state

    def init(self, like: Arrays) -> State:
        """Names, shapes and dtypes of the model.

        Raises:
            CodecError: a dtype whose bytes do not mean the same everywhere: bfloat16, objects, texts, long doubles.
        """
        return form_of(like)

    def encode(self, x: Arrays, state: State, at: Moment = NO_MOMENT) -> tuple[bytes, State]:
        """The bytes of all arrays, in the order of `init` whatever the order of `x`."""
        check_form(x, state)
        parts = [
            np.ascontiguousarray(x[name], dtype=little(dtype)).reshape(-1).view(np.uint8)
            for name, dtype in zip(state["names"], state["dtypes"], strict=True)
        ]
        return b"".join(part.data for part in parts), state

    def decode(self, payload: bytes, state: State, at: Moment = NO_MOMENT) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """Arrays over the payload's own bytes: read-only, nothing is copied where the machine is little-endian."""
        sizes = [
            little(dtype).itemsize * math.prod(shape)
            for shape, dtype in zip(state["shapes"], state["dtypes"], strict=True)
        ]
        if len(payload) != sum(sizes):
            raise CodecError(
                f"payload of {len(payload)} bytes, expected {sum(sizes)} for this model; "
                "build the model with the same name and options on both sides"
            )
        arrays, _ = read_arrays(memoryview(payload), state)
        return arrays, state

    def decode_update(
        self, payload: bytes, state: State, at: Moment = NO_MOMENT
    ) -> tuple[dict[str, npt.NDArray[Any]], Floats, State]:
        """What is no float, by name, and the floats as one vector."""
        arrays, state = self.decode(payload, state)
        layout = layout_of(state)
        v = gather(arrays, layout)
        refuse_non_finite(v, layout)
        return {name: array for name, array in arrays.items() if name not in layout.names}, v, state

    def config(self) -> dict[str, Any]:
        """The kind; there is nothing to choose."""
        return {"kind": "identity"}
