"""Values at a leader's places through a published autoencoder: the bytes of `Lgc` that are LGC's own.

    epoch 4 bytes | scales | server: detail, the largest of the scaled values    ring: the code, 4 ceil(k / 16) numbers

The epoch names the codebook that made them. Nothing here trains, and nothing knows rounds or nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import CodecError
from ..half import Half
from ..layout import Floats, Layout
from ..leader import Places
from ..moment import Moment
from ..once import packed, unpacked
from ..sparse import dense
from ..top_k import TopK
from .codebook import EPOCH_BYTES, Codebook, read_codebook
from .model import Autoencoder, Shape, cells
from .values import read_array_scales, scales_of

__all__ = ["Code", "Learned"]

_LATENTS = {"int8": "i1", "fp16": "<f2", "fp32": "<f4"}
_LARGEST = {"fp16": 65504.0, "fp32": 3e38}


@dataclass(frozen=True)
class Code:
    """How values become bytes, whatever the weights.

    Attributes:
        shape: of the autoencoder.
        ring: own codes that can be averaged; else a common code that is not sent, and detail.
        latent: what a code travels as.
        detail: how many of the values are sent beside the common code.
    """

    shape: Shape
    ring: bool
    latent: str
    detail: float

    def __post_init__(self) -> None:
        if self.latent not in _LATENTS:
            raise CodecError(f"latent = {self.latent!r}: expected one of {', '.join(_LATENTS)}")
        if not 0.0 < self.detail <= 1.0:
            raise CodecError(f"detail = {self.detail}: expected above 0 and at most 1, say 0.01")

    def learned(self, codebook: bytes) -> Learned:
        """With the weights of a codebook.

        Raises:
            CodecError: it is not one for this shape.
        """
        return Learned(self, read_codebook(codebook, self.shape))


@dataclass(frozen=True)
class Learned:
    """A `Code` with weights.

    Attributes:
        code: how values become bytes.
        book: the weights, and their name.
    """

    code: Code
    book: Codebook

    def pack(self, values: Floats, places: Places, layout: Layout, common: Floats | None) -> bytes:
        """float32 [k] values at sorted places of a vector of that layout. `common`: what both ends know there."""
        scales = scales_of(values, places, layout)
        scaled = scales.divide(values)
        head = self.book.epoch + scales.to_bytes()
        if self.code.ring:
            return head + _latent_bytes(self._model.encode(scaled), self.code.latent)
        return head + packed(self._detail, scaled, Layout.flat(values.size), Moment())

    def unpack(self, sections: Sequence[memoryview], places: Places, layout: Layout, common: Floats | None) -> Floats:
        """The values of one message; of several, for the ring, of their mean: codes and scales averaged, decoded once.

        Raises:
            CodecError: another epoch, another length, a number that is not finite.
        """
        k = places.size
        each, inside = [], []
        for section in sections:
            epoch = bytes(section[:EPOCH_BYTES])
            if epoch != self.book.epoch:
                raise CodecError(
                    f"coded with codebook {epoch.hex()!r}, in force is {self.book.epoch.hex()!r}; "
                    "ask for a plain resend"
                )
            scales, rest = read_array_scales(section[EPOCH_BYTES:], places, layout)
            each.append(scales.by_place())
            inside.append(rest)
        if self.code.ring:
            codes = [_read_latent(part, self.code.latent, self.code.shape.code, k) for part in inside]
            out = self._model.decode(_mean(codes), k)
        else:
            detail = dense(unpacked(self._detail, inside[0], Layout.flat(k), Moment()))
            known = np.zeros(k, np.float32) if common is None else common
            code = self._model.encode(scales_of(known, places, layout).divide(known))
            out = self._model.decode(code, k, detail)
        with np.errstate(over="ignore", invalid="ignore"):
            values = out * _mean(each)
        if not np.isfinite(values).all():
            raise CodecError("decodes to values that are not finite; the payload was altered, ask for a plain resend")
        return values

    @property
    def _model(self) -> Autoencoder:
        return self.book.model

    @property
    def _detail(self) -> TopK:
        return TopK(self.code.detail, Half("bf16"))


def _mean(arrays: Sequence[Floats]) -> Floats:
    if len(arrays) == 1:
        return arrays[0]
    return np.asarray(np.mean(arrays, axis=0, dtype=np.float64), np.float32)


def _latent_bytes(code: Floats, latent: str) -> bytes:
    if latent != "int8":
        largest = _LARGEST[latent]
        return np.clip(code, -largest, largest).astype(_LATENTS[latent]).tobytes()
    step = np.float32(float(np.abs(code).max(initial=0)) / 127)
    whole = np.zeros(code.shape, np.int8) if step == 0 else np.rint(code / step).clip(-127, 127).astype(np.int8)
    return np.array([step], "<f4").tobytes() + whole.tobytes()


def _read_latent(data: memoryview, latent: str, channels: int, k: int) -> Floats:
    count, head = channels * cells(k), 4 if latent == "int8" else 0
    dtype = np.dtype(_LATENTS[latent])
    if len(data) != head + count * dtype.itemsize:
        raise CodecError(f"code of {len(data)} bytes, expected {head + count * dtype.itemsize} for {k} values")
    code = np.frombuffer(data, dtype, count, head).astype(np.float32).reshape(channels, cells(k))
    with np.errstate(over="ignore", invalid="ignore"):
        code = code * np.frombuffer(data, "<f4", 1)[0] if head else code
    if not np.isfinite(code).all():
        raise CodecError("a code that is not finite; the payload was altered")
    return code
