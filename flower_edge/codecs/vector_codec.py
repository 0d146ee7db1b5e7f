"""`VectorCodec`: a codec that works on one flat float32 vector; it nests in others, and is a whole `Codec` by itself.

A subclass is a frozen dataclass with `kind`, its options, `pack` and `unpack`. As a `Codec` it gathers a model's floats
into one vector, sends what is no float as it is, and decodes to the model's own dtypes. Nothing here frames or sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .layout import Floats, Layout
from .model_form import Arrays, check_form, form_of, gather, layout_of, read_rest, rest_bytes, scatter
from .moment import NO_MOMENT, Moment
from .sparse import Sparse, Update, dense
from .teacher import Teacher

__all__ = ["State", "VectorCodec"]

State = dict[str, Any]


class VectorCodec(ABC):
    """Turns a vector into bytes and such bytes into a vector.

    What `tests/laws/vector_codec_laws.py` asks: the same vector, state and moment give the same bytes, with and without
    compiled kernels, in every process; states and vectors handed in are left as they are; the other end needs config,
    layout and moment; whatever bytes come in, `unpack` answers with a vector of that size or raises `CodecError`, in
    memory bounded by the vector's.
    """

    #: Name in a config, and the version of its bytes.
    kind: ClassVar[str]
    version: ClassVar[int] = 1
    #: Whether what is decoded is what was encoded, bit for bit, also as whole arrays of any dtype.
    exact: ClassVar[bool] = False

    @property
    def unbiased(self) -> bool:
        """Whether what is decoded is, on average over seeds, what was encoded."""
        return False

    @property
    def linear(self) -> bool:
        """Whether decoding commutes with sums, for payloads of one round."""
        return False

    @property
    def public_rounds(self) -> int:
        """How many of `Public.aggregates` it looks at; a wrapper looks at what the codecs it wraps look at."""
        return max((codec.public_rounds for codec in _nested(tuple(vars(self).values()))), default=0)

    def contraction(self, size: int) -> float | None:
        """delta with ||v - decoded||^2 <= (1 - delta) ||v||^2 for every v of that size; `None` where there is none."""
        return None

    def teacher(self) -> Teacher | None:
        """Who provides the shared information this codec lives on; a wrapper answers with that of what it wraps."""
        return None

    # -- on vectors --------------------------------------------------------------------------------------------------

    def start(self, layout: Layout) -> State:
        """The state before the first call, the same at both ends: nested plain values and arrays, keys are str."""
        return {}

    @abstractmethod
    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """The bytes of a vector, and the state after it.

        Raises:
            CodecError: a value that is not finite; the array is named (`layout.refuse_non_finite`).
        """

    @abstractmethod
    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """The vector in a payload, and the state after it. Sparse where the payload is.

        Raises:
            CodecError: the payload is not one of this codec for this layout. Never anything else.
        """

    def feed(
        self, v: Floats, memory: Floats | None, layout: Layout, state: State, at: Moment
    ) -> tuple[bytes, Floats, State]:
        """Error feedback in one step: the bytes of v + memory, what they leave out, and the state after it.

        Override it where one pass does all three. `memory` is left as it is; `None` is zero.
        """
        whole = v if memory is None else v + memory
        data, after = self.pack(whole, layout, state, at)
        update, _ = self.unpack(memoryview(data), layout, state, at)
        if isinstance(update, Sparse):
            left = whole.copy()
            left[update.indices] -= update.values
        else:
            left = whole - update
        return data, left, after

    # -- on models: the `Codec` promise ------------------------------------------------------------------------------

    def init(self, like: Arrays) -> State:
        """The state before the first call, for models with the names, shapes and dtypes of `like`."""
        form = form_of(like)
        return {**form, "vector": self.start(layout_of(form))}

    def encode(self, x: Arrays, state: State, at: Moment = NO_MOMENT) -> tuple[bytes, State]:
        """The bytes of a model, and the state after it."""
        check_form(x, state)
        layout = layout_of(state)
        data, after = self.pack(gather(x, layout), layout, state["vector"], at)
        return rest_bytes(x, state) + data, {**state, "vector": after}

    def decode(self, payload: bytes, state: State, at: Moment = NO_MOMENT) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """The model in a payload, in the order of `init`, and the state after it."""
        rest, update, after = self.decode_update(payload, state, at)
        return scatter(dense(update), rest, state, layout_of(state)), after

    def decode_update(
        self, payload: bytes, state: State, at: Moment = NO_MOMENT
    ) -> tuple[dict[str, npt.NDArray[Any]], Update, State]:
        """What is no float, by name; the floats as one update, sparse where the payload is; the state after it."""
        rest, data = read_rest(memoryview(payload), state)
        update, after = self.unpack(data, layout_of(state), state["vector"], at)
        return rest, update, {**state, "vector": after}

    def config(self) -> dict[str, Any]:
        """Kind, version and options, those of nested codecs within."""
        options = {option.name: _plain(getattr(self, option.name), option.type) for option in fields(self)}  # type: ignore[arg-type]
        return {"kind": self.kind, "version": self.version, **options}


def _nested(value: Any) -> Iterator[VectorCodec]:
    if isinstance(value, VectorCodec):
        yield value
    elif isinstance(value, tuple):
        for entry in value:
            yield from _nested(entry)


def _plain(value: Any, kind: Any = "") -> Any:
    if hasattr(value, "config"):
        return value.config()
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    # 1 and 1.0 are equal options, and must not make two texts of equal codecs.
    return float(value) if "float" in str(kind) and isinstance(value, int | float) else value
