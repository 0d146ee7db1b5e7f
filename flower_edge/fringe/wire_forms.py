"""`WireForm`: what a connection makes of one tensor before it is sent, and what the other end has of it.

    x [batch, *shape] -> kept channels -> the largest of them, if not all -> 32, 16, 8, 4 or 2 bits each

    32 bits      float32 as it is
    16 bits      fp16, see `codecs.half.Half`
    8, 4, 2      x ~ low + code step, code in [0, 2^bits - 1]; low and step in 16 bits each, per channel or per tensor

Every sample is coded by itself, in bytes whose number depends on the form and the shape alone: what an inference gives
does not depend on which others it shares a batch with, and what it costs is known before it is sent. `heard` and
`decode(encode)` take the same codes to the same values; what is tested with the one is what the other sends. Nothing
here has a header, or sends.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..codecs.half import Half
from ..codecs.layout import Layout, refuse_non_finite
from ..codecs.moment import NO_MOMENT
from ..codecs.sparse import dense
from ..errors import CodecError, FringeError
from .wire_codes import pack_codes, quantised, unpack_codes, values

__all__ = ["PLAIN", "TensorWire", "WireForm"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_BITS: Final = (32, 16, 8, 4, 2)
#: Numbers that are worked on at once, so that doubles of a large batch need little memory.
_CHUNK: Final = 1 << 18


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class WireForm:
    """How a tensor is sent.

    Attributes:
        bits: 32, 16, 8, 4 or 2 per number.
        per: what shares a lowest number and a step: each "channel", or the whole "tensor". Four bytes each. A sample of
            one axis has no channels, and its numbers share one.
        keep: channels that are sent, rising; the other end has zeros for the rest. None keeps all.
        fraction: of the kept numbers, those with the largest magnitudes are sent beside a bit for each place.
        axis: of one sample, along which its channels lie: 0 for pictures [channels, height, width], -1 for sequences
            [time, features] whose features are to be dropped.

    Raises:
        FringeError: a value that is none of these.

    >>> WireForm(bits=4).config()
    {'bits': 4, 'per': 'channel', 'keep': None, 'fraction': 1.0, 'axis': 0}
    """

    bits: int = 32
    per: Literal["channel", "tensor"] = "channel"
    keep: tuple[int, ...] | None = None
    fraction: float = 1.0
    axis: int = 0

    def __post_init__(self) -> None:
        if self.bits not in _BITS or not _whole(self.bits):
            raise FringeError(f"bits = {self.bits!r}: expected 32, 16, 8, 4 or 2")
        if self.per not in ("channel", "tensor"):
            raise FringeError(f"per = {self.per!r}: expected 'channel' or 'tensor'")
        if not _whole(self.axis):
            raise FringeError(f"axis = {self.axis!r}: expected the number of an axis of one sample, such as 0")
        number = isinstance(self.fraction, int | float) and not isinstance(self.fraction, bool)
        if not number or not 0.0 < self.fraction <= 1.0:
            raise FringeError(f"fraction = {self.fraction!r}: expected more than 0 and at most 1, such as 0.25")
        if self.keep is not None:
            if not all(map(_whole, self.keep)):
                raise FringeError(f"keep = {self.keep!r}: expected numbers of channels, such as (0, 2, 5)")
            keep = tuple(int(channel) for channel in self.keep)
            if not keep or keep[0] < 0 or any(b <= a for a, b in pairwise(keep)):
                raise FringeError(f"keep = {keep}: expected one channel or more, rising, none twice")
            object.__setattr__(self, "keep", keep)

    def config(self) -> dict[str, Any]:
        """Plain values; `from_config` is its inverse."""
        told = asdict(self)
        return {**told, "keep": None if self.keep is None else list(self.keep)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WireForm:
        """Inverse of `config`.

        Raises:
            FringeError: no form.
        """
        names = set(cls.__dataclass_fields__)
        if not isinstance(config, dict) or set(config) != names:
            raise FringeError(f"a wire form of {config!r:.120}; expected a dict of {', '.join(sorted(names))}")
        keep = config["keep"]
        if keep is not None and not isinstance(keep, list | tuple):
            raise FringeError(f"keep = {keep!r}: expected a list of channels, or None for all")
        return cls(**{**config, "keep": None if keep is None else tuple(keep)})


#: float32 as it is.
PLAIN: Final = WireForm()


@dataclass(frozen=True)
class TensorWire:
    """A form for tensors of one shape.

    Attributes:
        form: how they are sent.
        shape: of one sample.

    Raises:
        FringeError: a form that names an axis or channels which the shape does not have.

    >>> wire = TensorWire(WireForm(bits=2), (1, 4))
    >>> wire.size_bytes, wire.heard(np.array([[[0, 0.9, 2.2, 3]]], np.float32)).tolist()
    (5, [[[0.0, 1.0, 2.0, 3.0]]])
    """

    form: WireForm
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.form.keep is None and self.form.axis == 0:
            return
        if not -len(self.shape) <= self.form.axis < len(self.shape):
            raise FringeError(f"axis = {self.form.axis} of samples of shape {self.shape}; expected one of its axes")
        channels = self.shape[self.form.axis]
        if self.form.keep is not None and self.form.keep[-1] >= channels:
            raise FringeError(f"keep = {self.form.keep} of {channels} channels; expected 0 to {channels - 1}")

    @cached_property
    def groups(self) -> tuple[int, int]:
        """Of one sample, how many groups of numbers are sent, and of how many numbers each: before the top is taken."""
        if not self.shape:
            return 1, 1
        channels = self.shape[self.form.axis]
        kept = channels if self.form.keep is None else len(self.form.keep)
        each = math.prod(self.shape) // channels if channels else 0
        return (kept, each) if len(self.shape) > 1 and self.form.per == "channel" else (1, kept * each)

    @cached_property
    def count(self) -> int:
        """Numbers of one sample that are sent."""
        numbers = math.prod(self.groups)
        if self.form.fraction == 1.0:
            return numbers
        return min(numbers, max(1, round(self.form.fraction * numbers)))

    @property
    def _coded(self) -> tuple[int, int]:
        """Groups and numbers each, as they are coded: the largest of all share one range."""
        return self.groups if self.form.fraction == 1.0 else (1, self.count)

    @property
    def _bitmap_bytes(self) -> int:
        return 0 if self.form.fraction == 1.0 else -(-math.prod(self.groups) // 8)

    @cached_property
    def size_bytes(self) -> int:
        """Of one sample.

        >>> TensorWire(WireForm(bits=4), (4, 16, 16)).size_bytes
        528
        """
        scales = 4 * self._coded[0] if self.form.bits <= 8 else 0
        return self._bitmap_bytes + scales + -(-self.count * self.form.bits // 8)

    def encode(self, x: Floats) -> Bytes:
        """Bytes of each sample, uint8 [batch, size_bytes].

        Args:
            x: float32 [batch, *shape].

        Raises:
            FringeError: another shape or another dtype.
            CodecError: a number that is not finite.
        """
        self._check(x)
        out = np.empty((len(x), self.size_bytes), np.uint8)
        for part in self._parts(len(x)):
            bitmap, v = self._sent(x[part])
            head = self._bitmap_bytes
            out[part, :head] = bitmap
            out[part, head:] = self._packed(v)
        return out

    def decode(self, data: Bytes) -> Floats:
        """What `heard` gives of the same tensor.

        Args:
            data: uint8 [batch, size_bytes].

        Raises:
            CodecError: bytes that `encode` does not make.
        """
        out = np.zeros((len(data), *self.shape), np.float32)
        for part in self._parts(len(data)):
            rows = np.ascontiguousarray(data[part])
            head = self._bitmap_bytes
            out[part] = self._placed(rows[:, :head] if head else None, self._unpacked(rows[:, head:]))
        return out

    def heard(self, x: Floats) -> Floats:
        """The tensor as the other end has it, float32 [batch, *shape]; new.

        Raises:
            FringeError, CodecError: as of `encode`.
        """
        self._check(x)
        out = np.empty((len(x), *self.shape), np.float32)
        for part in self._parts(len(x)):
            bitmap, v = self._sent(x[part])
            if self.form.bits <= 8:
                v = values(quantised(v, self.form.bits))
            elif self.form.bits == 16:
                v = _from_half(_to_half(v), v.shape)
            out[part] = self._placed(bitmap if self._bitmap_bytes else None, v)
        return out

    # -- which numbers -----------------------------------------------------------------------------------------------

    def _check(self, x: Floats) -> None:
        if x.shape[1:] != self.shape or not x.ndim:
            raise FringeError(f"a tensor {x.shape}, expected [batch, {', '.join(map(str, self.shape))}]")
        if x.dtype != np.float32:
            raise FringeError(f"a tensor of {x.dtype}, expected float32; cast it before it is sent")
        flat = np.ascontiguousarray(x).reshape(-1)
        refuse_non_finite(flat, Layout.flat(flat.size, "a tensor at a connection"))

    def _parts(self, batch: int) -> list[slice]:
        each = max(1, _CHUNK // max(1, math.prod(self.shape)))
        return [slice(begin, begin + each) for begin in range(0, batch, each)]

    def _sent(self, x: Floats) -> tuple[Bytes, Floats]:
        """A bit for each place (or no byte), and the numbers that are sent, [batch, groups, numbers]."""
        channels = np.moveaxis(x, 1 + self.form.axis if self.form.axis >= 0 else self.form.axis, 1) if self.shape else x
        if self.form.keep is not None:
            channels = channels[:, list(self.form.keep)]
        v = np.ascontiguousarray(channels).reshape(len(x), *self.groups)
        if self.form.fraction == 1.0:
            return np.empty((len(x), 0), np.uint8), v
        flat = v.reshape(len(x), -1)
        taken = _largest(np.abs(flat), self.count)
        return np.packbits(taken, axis=1, bitorder="little"), flat[taken].reshape(len(x), 1, self.count)

    def _placed(self, bitmap: Bytes | None, v: Floats) -> Floats:
        """Inverse of `_sent`, with zeros for what was not sent."""
        batch, numbers = len(v), math.prod(self.groups)
        if bitmap is not None:
            taken = np.unpackbits(bitmap, axis=1, bitorder="little").astype(bool)
            counts = taken.sum(axis=1)
            if (counts != self.count).any() or taken[:, numbers:].any():
                raise CodecError(f"a bitmap of {int(counts[0])} places, expected {self.count} of {numbers}")
            flat = np.zeros((batch, numbers), np.float32)
            flat[taken[:, :numbers]] = v.reshape(-1)
            v = flat
        if not self.shape:
            return v.reshape(batch)
        axis = self.form.axis % len(self.shape)
        channels, rest = self.shape[axis], tuple(n for at, n in enumerate(self.shape) if at != axis)
        if self.form.keep is not None:
            whole = np.zeros((batch, channels, *rest), np.float32)
            whole[:, list(self.form.keep)] = v.reshape(batch, len(self.form.keep), *rest)
            v = whole
        return np.moveaxis(v.reshape(batch, channels, *rest), 1, 1 + axis)

    # -- their bits --------------------------------------------------------------------------------------------------

    def _packed(self, v: Floats) -> Bytes:
        batch = len(v)
        if self.form.bits == 32:
            return np.frombuffer(v.astype("<f4", copy=False).tobytes(), np.uint8).reshape(batch, -1)
        if self.form.bits == 16:
            return np.frombuffer(_to_half(v), np.uint8).reshape(batch, -1)
        return pack_codes(quantised(v, self.form.bits), self.form.bits)

    def _unpacked(self, rows: Bytes) -> Floats:
        batch, (groups, each) = len(rows), self._coded
        flat = np.ascontiguousarray(rows).tobytes()
        if self.form.bits == 32:
            v = np.frombuffer(flat, "<f4").astype(np.float32).reshape(batch, groups, each)
            refuse_non_finite(v.reshape(-1), Layout.flat(v.size, "a tensor at a connection"))
            return v
        if self.form.bits == 16:
            return _from_half(flat, (batch, groups, each))
        return values(unpack_codes(rows, groups, each, self.form.bits))


def _largest(sizes: Floats, count: int) -> npt.NDArray[np.bool_]:
    """Where the `count` largest of each row are; of equal ones those that come first."""
    if not count:
        return np.zeros(sizes.shape, bool)
    least = np.partition(sizes, sizes.shape[1] - count, axis=1)[:, sizes.shape[1] - count, None]
    above, equal = sizes > least, sizes == least
    missing = count - above.sum(axis=1, keepdims=True)
    found: npt.NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=1) <= missing))
    return found


def _to_half(v: Floats) -> bytes:
    return Half().pack(v.reshape(-1), Layout.flat(v.size), {}, NO_MOMENT)[0]


def _from_half(data: bytes, shape: tuple[int, ...]) -> Floats:
    size = math.prod(shape)
    return dense(Half().unpack(memoryview(data), Layout.flat(size), {}, NO_MOMENT)[0]).reshape(shape)
