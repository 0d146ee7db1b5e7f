"""How a gradient exchange is set up: which arrays are trained, how they are encoded, how they are updated.

Every node is told once, as JSON, and does the same arithmetic in the same order from then on. Nothing here keeps state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..codecs.codec import Codec, State, from_config
from ..codecs.layout import Layout
from ..codecs.moment import Moment
from ..codecs.sparse import Sparse, Update
from ..codecs.teacher import Teacher
from ..codecs.vector_codec import VectorCodec
from ..errors import CodecError, ConfigError, ModelMismatch, ProtocolError

__all__ = ["Coder", "Setup", "Trained", "WeightedSum"]

#: A flat vector of what is trained, [params], float32 or float64 as the model.
Vector = npt.NDArray[Any]
Arrays = Mapping[str, npt.NDArray[Any]]
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Trained:
    """Which arrays of a model are trained, as one flat vector.

    Attributes:
        layout: their names and shapes, in the model's order.
        dtype: of all of them.
    """

    layout: Layout
    dtype: str

    @classmethod
    def of(cls, model: Arrays, frozen: tuple[str, ...]) -> Trained:
        """Floats that no pattern of `frozen` names.

        Raises:
            ConfigError: none is left, or they are of several dtypes.
        """
        kept = {
            name: array
            for name, array in model.items()
            if np.issubdtype(array.dtype, np.floating) and not any(fnmatchcase(name, one) for one in frozen)
        }
        dtypes = sorted({array.dtype.name for array in kept.values()})
        if dtypes not in (["float32"], ["float64"]):
            raise ConfigError(
                f"a model whose trained arrays are {', '.join(dtypes) or 'none'}: a gradient exchange trains arrays "
                "that are all float32, or all float64; convert the others, or name those that are not trained: "
                "GradientExchange(frozen=['*running_mean'])"
            )
        return cls(Layout(tuple(kept), tuple(array.shape for array in kept.values())), dtypes[0])

    def gather(self, arrays: Arrays, *, sender: str) -> Vector:
        """Arrays by name as one vector; what is not trained is left aside.

        Raises:
            ModelMismatch: one is missing or of another shape.
        """
        out = np.empty(self.layout.size, self.dtype)
        for name, shape, part in zip(self.layout.names, self.layout.shapes, self.layout.slices(), strict=True):
            array = arrays.get(name)
            if array is None or array.shape != shape:
                came = "nothing" if array is None else f"shape {array.shape}"
                raise ModelMismatch(
                    f"{sender} returned {came} for {name!r}, expected a gradient of shape {shape}; return one for "
                    f"every array, or name those that have none: GradientExchange(frozen=[{name!r}])"
                )
            out[part] = array.reshape(-1)
        return out

    def views(self, vector: Vector) -> dict[str, npt.NDArray[Any]]:
        """The arrays in a vector, without a copy."""
        layout = self.layout
        return {
            name: vector[part].reshape(shape)
            for name, shape, part in zip(layout.names, layout.shapes, layout.slices(), strict=True)
        }


@dataclass(frozen=True)
class Coder:
    """A codec for what is trained: vectors to bytes and back.

    Attributes:
        codec: may be any; only those of vectors decode to what is sparse.
        trained: of which arrays.
    """

    codec: Codec
    trained: Trained

    def start(self) -> State:
        """The codec's state before the first call."""
        zero = np.zeros((), self.trained.dtype)
        layout = self.trained.layout
        like = {name: np.broadcast_to(zero, shape) for name, shape in zip(layout.names, layout.shapes, strict=True)}
        return self.codec.init(like)

    def encode(self, vector: Vector, state: State, at: Moment) -> tuple[bytes, State]:
        """The bytes of a vector, and the codec's state after it."""
        return self.codec.encode(self.trained.views(vector), state, at)

    def decode(self, payload: bytes, state: State, at: Moment) -> tuple[Update | Vector, State]:
        """The vector in a payload, sparse where the payload is, and the codec's state after it.

        Raises:
            CodecError: these are not the bytes of a gradient of this model.
        """
        if isinstance(self.codec, VectorCodec) and not self.codec.exact:
            _, update, after = self.codec.decode_update(payload, state, at)
            return update, after
        arrays, after = self.codec.decode(payload, state, at)
        found = self.trained.gather(arrays, sender="the codec")
        # Wider numbers than float32 has would not add up, and one node's would undo everybody's.
        if found.size and not (found.max() <= _LARGEST and found.min() >= -_LARGEST):
            raise CodecError("a gradient that is not finite; has the training diverged? lower the learning rate")
        return found, after

    def teacher(self) -> Teacher | None:
        """Who provides what this codec's nodes share, if anybody."""
        return self.codec.teacher() if isinstance(self.codec, VectorCodec) else None


class WeightedSum:
    """Adds gradients in float64, in the order in which they come: what nodes of one order agree on bit for bit.

    A sparse one costs as much as it has places.

    >>> total = WeightedSum(3, "float32")
    >>> total.add(np.array([1, 2, 3], np.float32), 1.0)
    >>> total.add(Sparse(np.array([1]), np.array([8], np.float32), 3), 3.0)
    >>> total.mean()
    array([0.25, 6.5 , 0.75], dtype=float32)
    """

    def __init__(self, size: int, dtype: str) -> None:
        self._total = np.zeros(size)
        self._dtype = dtype
        #: Sum of the weights.
        self.weight = 0.0

    def add(self, update: Update | Vector, weight: float) -> None:
        """One more."""
        if isinstance(update, Sparse):
            self._total[update.indices] += weight * update.values.astype(np.float64)
        else:
            self._total += weight * update.astype(np.float64, copy=False)
        self.weight += weight

    def mean(self) -> Vector | None:
        """The weighted mean; None of nothing, or of weights that are all 0."""
        if not self.weight > 0.0:
            return None
        return (self._total / self.weight).astype(self._dtype)


@dataclass(frozen=True)
class Setup:
    """What every node is told once.

    Attributes:
        codec, down: configs of the codecs, of gradients and of the aggregate.
        frozen: patterns of names that are not trained.
        momentum, weight_decay, nesterov: of the update, as in torch.optim.SGD.
        history: how many of the last aggregates both ends keep for their codecs.
        weighted_by: name of the metric that a gradient is weighted by.
    """

    codec: Mapping[str, Any]
    down: Mapping[str, Any]
    frozen: tuple[str, ...] = ()
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    history: int = 1
    weighted_by: str = "num-examples"

    def text(self) -> str:
        """As JSON."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Setup:
        """Inverse of `text`.

        Raises:
            ProtocolError: the text of something else.
        """
        try:
            found = json.loads(text)
            return cls(**{**found, "frozen": tuple(found["frozen"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ProtocolError(
                f"the server sent a set-up {text[:80]!r} that cannot be read ({error}); "
                "install the same flower-edge version on both sides"
            ) from None

    @cached_property
    def codec_made(self) -> Codec:
        """The codec of gradients."""
        return from_config(self.codec)

    @cached_property
    def down_made(self) -> Codec:
        """The codec of the aggregate."""
        return from_config(self.down)
