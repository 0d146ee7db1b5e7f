"""Codecs for tensors at a cut, by name, and what they cost and lose. The codecs themselves are in `codecs`.

    name        tensors to the cloud (up)                gradients back (down)             bits per number, about
    none        float32 as it is                         the same                          32
    fp16, bf16  Half                                     the same                          16
    int8        Affine(8), to the nearest                Block(8), at random               8.5 and 8.06
    int4        Affine(4), to the nearest                Block(4) of 64, at random         4.5 and 4.25
    int2        Affine(2), to the nearest                Affine(2), at random              3 and 3
    top10       the largest tenth, int8, a bit of place  the same, signs                   1.5 and up

Tensors behind a ReLU lie on one side of zero, gradients on both: hence two codecs. Tensors are rounded to the nearest,
as an error that is the same each time is learnt along; gradients at random, as theirs would add up.
Nothing here sends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..codecs.affine import Affine
from ..codecs.block import Block
from ..codecs.codec import from_config
from ..codecs.half import Half
from ..codecs.identity import Identity
from ..codecs.kernels import kernels
from ..codecs.layout import Layout
from ..codecs.moment import Moment
from ..codecs.scales import to_float, upwards
from ..codecs.sparse import dense
from ..codecs.top_k import TopK
from ..codecs.vector_codec import VectorCodec
from ..errors import SplitError
from .frames import stateless_codec

__all__ = ["CUT_CODECS", "Direction", "bits_per_value", "carried", "cut_codec", "error_bound"]

#: "up": tensors on their way forward. "down": gradients on their way back. As in `WorkOrder`.
Direction = Literal["up", "down"]
Floats = npt.NDArray[np.float32]

#: Names that are not of the form top<percent>.
CUT_CODECS: Final = ("none", "fp16", "bf16", "int8", "int4", "int2")
_TOP: Final = re.compile(r"top([1-9][0-9]?)")
#: So many numbers are coded to see what a codec makes of them; longer tensors cost in proportion.
_SEEN: Final = 1 << 14


def cut_codec(name: str, direction: Direction, *, seed: int = 0) -> dict[str, Any] | None:
    """The config of a codec for `WorkOrder.up` or `WorkOrder.down`; None sends float32 as it is.

    Args:
        name: one of `CUT_CODECS`, or "top" and a percentage from 1 to 99.
        direction: what it has to carry.
        seed: of random rounding; the order's own seed comes on top, see `FrameCoder`.

    Raises:
        SplitError: no such name or direction.

    >>> cut_codec("int4", "up")
    {'kind': 'affine', 'version': 1, 'bits': 4, 'block': 64, 'stochastic': False, 'seed': 0}
    >>> cut_codec("none", "down") is None
    True
    """
    if direction not in ("up", "down"):
        raise SplitError(f"direction = {direction!r}: expected 'up' (tensors) or 'down' (gradients)")
    codec = _codec(name, direction == "up", seed)
    return None if codec is None else codec.config()


def _codec(name: str, up: bool, seed: int) -> VectorCodec | None:
    if name == "none":
        return None
    if name in ("fp16", "bf16"):
        return Half(name)  # type: ignore[arg-type]
    if name == "int8":
        return Affine(8) if up else Block(8, seed=seed)
    if name == "int4":
        return Affine(4) if up else Block(4, 64, seed=seed)
    if name == "int2":
        return Affine(2, 32, stochastic=not up, seed=seed)
    if found := _TOP.fullmatch(name):
        fraction = int(found[1]) / 100
        return TopK(fraction, Affine(8), "bitmap") if up else TopK(fraction, Block(8, seed=seed), "bitmap")
    raise SplitError(f"codec at the cut {name!r}: expected one of {', '.join(CUT_CODECS)}, or top1 to top99")


def carried(config: Mapping[str, Any] | None, tensor: npt.NDArray[Any], at: Moment | None = None) -> tuple[Floats, int]:
    """A tensor as the other end of a codec has it, and the bytes of its payload. `FrameCoder.heard` does whole frames.

    Raises:
        CodecError: a value that is not finite, or a codec that cannot be used at a cut.

    >>> carried(cut_codec("int2", "up"), np.array([0, 0.9, 2.2, 3], np.float32))
    (array([0., 1., 2., 3.], dtype=float32), 5)
    """
    flat = np.ascontiguousarray(tensor, np.float32).reshape(-1)
    codec = stateless_codec(config) or Identity()
    layout, moment = Layout(("tensor",), (tuple(tensor.shape),)), at or Moment()
    data, _ = codec.pack(flat, layout, codec.start(layout), moment)
    update, _ = codec.unpack(memoryview(data), layout, codec.start(layout), moment)
    return dense(update).reshape(tensor.shape), len(data)


def bits_per_value(config: Mapping[str, Any] | None, values: int) -> float:
    """Predicted bits per number of a tensor of so many, its scales within: what the codec makes of normal numbers.

    Exact where the length does not depend on the numbers, as of all but "top". The head of a frame is not in it.

    Args:
        config: as for `WorkOrder`.
        values: numbers in the tensor, of the whole batch; at least 1.

    Raises:
        SplitError: no number at all.
        CodecError: no codec, or one that cannot be used at a cut.

    >>> bits_per_value(None, 1000), bits_per_value(cut_codec("int4", "up"), 64_000)
    (32.0, 4.5)
    """
    if values < 1:
        raise SplitError(f"values = {values}: expected at least 1")
    if config is None:
        return 32.0
    return _bits_per_value(json.dumps(dict(config), sort_keys=True), min(values, _SEEN))


@lru_cache(maxsize=1024)
def _bits_per_value(config: str, values: int) -> float:
    seen = np.random.default_rng(0).standard_normal(values, np.float32)
    return 8 * carried(json.loads(config), seen)[1] / values


def error_bound(config: Mapping[str, Any] | None, tensor: npt.NDArray[Any]) -> Floats | None:
    """How far each number of a tensor may be off at the other end, float32 of its shape; None where nothing is known.

    Of `Affine` and `Block` half a step to the nearest, a step at random; of `Half` a last digit; of top-k the number
    itself where it is left out. A last digit of float32 comes on top where that is more.

    Raises:
        CodecError: no codec, or one that cannot be used at a cut.

    >>> error_bound(cut_codec("int2", "up"), np.array([[0, 3], [1, 2]], np.float32))
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    flat = np.ascontiguousarray(tensor, np.float32).reshape(-1)
    found = np.zeros_like(flat) if config is None else _bound(from_config(config), flat)
    return None if found is None else found.reshape(np.shape(tensor))


def _bound(codec: object, v: Floats) -> Floats | None:
    if isinstance(codec, Identity):
        return np.zeros_like(v)
    if isinstance(codec, Affine):
        return codec.bound(v)
    if isinstance(codec, Half):
        size = np.abs(v)
        if codec.format == "bf16":
            return np.asarray(size * np.float32(2**-8) + np.float32(2**-133))
        return np.asarray(np.maximum(size - np.float32(65504), size * np.float32(2**-11)) + np.float32(2**-25))
    if isinstance(codec, Block):
        begins = np.arange(0, v.size, codec.block)
        largest: Floats = np.maximum.reduceat(np.abs(v), begins).astype(np.float32) if v.size else v
        levels = np.float32(2 ** (codec.bits - 1) - 1)
        steps = np.where(
            largest > 0, np.maximum(to_float(upwards(np.asarray(largest / levels, np.float32))), np.float32(2**-126)), 0
        )
        moved = np.repeat(steps * np.float32(1.0 if codec.stochastic else 0.5), codec.block)[: v.size]
        # Block counts in float32: up to 2^-16 of a step.
        return np.asarray(moved * np.float32(1 + 2**-13), np.float32)
    if isinstance(codec, TopK):
        places, kept = kernels("select").largest(v, codec.count(v.size))
        inner = _bound(codec.values, kept)
        if inner is None:
            return None
        out = np.abs(v)
        out[places] = inner
        return out
    return None
