"""The autoencoder of LGC as plain arrays: NumPy runs it, so a device that codes with it needs no torch.

    E   values [k] -> code [4, ceil(k / 16)]     four convolutions of stride 2 and one of width 1
    D   code -> features [32, k]                 four transposed convolutions of stride 2, cut to k places
    out features (and innovation) -> values  one convolution of width 1

Leaky rectifiers (slope 0.01) after every layer but the last one. Weights lie in one flat vector, layer by layer, each
layer's weights before its biases; training is in training_torch.py, bytes of a published one in codebook.py.

Source: Abrahamyan et al., "Learned gradient compression for distributed deep learning", IEEE TNNLS 2021. Channels,
widths and strides as in public code that reimplements it; padding, slope and the step to k places are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ...errors import CodecError
from ..layout import Floats

__all__ = ["CHANNELS", "Autoencoder", "Shape", "cells", "first_weights", "unpool"]

#: Of the encoder's layers, as published: 172,996 parameters, and 43,682 for a decoder with innovation.
CHANNELS = (64, 128, 256, 64, 4)
#: Values per column of the code: four strides of 2.
_STRIDE = 16
_SLOPE = np.float32(0.01)
#: Columns that are worked on at once: memory does not grow with the number of values.
_PIECE = 128
#: Most channels of a layer that a config may ask for: a codebook stays below 20 MB.
_WIDEST = 1024


def cells(k: int) -> int:
    """Columns of the code of k values.

    >>> cells(1), cells(16), cells(17)
    (1, 1, 2)
    """
    return -(-k // _STRIDE)


def unpool(k: int) -> npt.NDArray[np.int64]:
    """Which of 16 ceil(k / 16) places of features each of k values is read from: nearest neighbour."""
    return np.arange(k, dtype=np.int64) * (_STRIDE * cells(k)) // max(k, 1)


@dataclass(frozen=True)
class Shape:
    """How wide an autoencoder is.

    Attributes:
        channels: of the encoder's five layers; the decoder's are half of those, as published: 32, 64, 128, 32 for
            64, 128, 256, 64.
        innovation: whether the last layer of the decoder sees a channel of innovation beside the features.

    >>> Shape().encoder_params, Shape().decoder_params
    (172996, 43682)
    """

    channels: tuple[int, ...] = CHANNELS
    innovation: bool = True

    def __post_init__(self) -> None:
        good = len(self.channels) == 5 and all(type(c) is int and 1 <= c <= _WIDEST for c in self.channels)
        if not good or min(self.channels[:4]) < 2:
            raise CodecError(
                f"channels = {self.channels}: expected five numbers up to {_WIDEST}, "
                f"such as {CHANNELS}, or (8, 16, 32, 8, 4)"
            )

    @property
    def code(self) -> int:
        """Channels of the code."""
        return self.channels[4]

    @cached_property
    def encoder(self) -> tuple[tuple[int, int, int], ...]:
        """(out, in, width) of each layer."""
        widths = (1, *self.channels)
        return tuple((widths[i + 1], widths[i], 3 if i < 4 else 1) for i in range(5))

    @cached_property
    def decoder(self) -> tuple[tuple[int, int, int], ...]:
        """(in, out, width) of each transposed layer, then (1, in, 1) of the last."""
        a, b, c, d = (channel // 2 for channel in self.channels[:4])
        widths = (self.code, a, b, c, d)
        up = tuple((widths[i], widths[i + 1], 3) for i in range(4))
        return (*up, (1, d + self.innovation, 1))

    @property
    def encoder_params(self) -> int:
        """Weights and biases of the encoder."""
        return sum(math.prod(shape) + shape[0] for shape in self.encoder)

    @property
    def decoder_params(self) -> int:
        """Weights and biases of a decoder."""
        return sum(math.prod(shape) + shape[1 if i < 4 else 0] for i, shape in enumerate(self.decoder))

    @property
    def params(self) -> int:
        """Both."""
        return self.encoder_params + self.decoder_params


@dataclass(frozen=True)
class Autoencoder:
    """One encoder and one decoder.

    Attributes:
        shape: how wide they are.
        weights: float32 [shape.params], the encoder's first.
    """

    shape: Shape
    weights: Floats

    def __post_init__(self) -> None:
        if self.weights.shape != (self.shape.params,):
            raise CodecError(f"weights of shape {self.weights.shape}, expected ({self.shape.params},)")

    @cached_property
    def _layers(self) -> list[tuple[Floats, Floats]]:
        biases = [shape[0] for shape in self.shape.encoder]
        biases += [shape[1 if i < 4 else 0] for i, shape in enumerate(self.shape.decoder)]
        return list(_cut(self.weights, [*self.shape.encoder, *self.shape.decoder], biases))

    def encode(self, x: Floats) -> Floats:
        """The code of values: float32 [k] to float32 [code, ceil(k / 16)]."""
        columns = cells(x.size)
        padded = np.zeros(_STRIDE * columns, np.float32)
        padded[: x.size] = x
        out = np.empty((self.shape.code, columns), np.float32)
        for begin in range(0, columns, _PIECE):
            end, before = min(begin + _PIECE, columns), min(begin, 1)  # a column looks at the one before it
            h = padded[None, _STRIDE * (begin - before) : _STRIDE * end]
            for weight, bias in self._layers[:4]:
                h = _leaky(_down(h, weight) + bias[:, None])
            weight, bias = self._layers[4]
            out[:, begin:end] = _leaky(weight[:, :, 0] @ h[:, before:] + bias[:, None])
        return out

    def decode(self, code: Floats, k: int, innovation: Floats | None = None) -> Floats:
        """The values of a code: float32 [code, ceil(k / 16)] to float32 [k].

        Args:
            innovation: float32 [k], what is known of the values; zeros where the shape has it and nothing is given.
        """
        columns, out, places = cells(k), np.empty(k, np.float32), unpool(k)
        weight, bias = self._layers[9]
        for begin in range(0, columns, _PIECE):
            end = min(begin + _PIECE, columns)
            h = code[:, begin : end + 1]  # a column looks at the one after it
            for up, shift in self._layers[5:9]:
                h = _leaky(_up(h, up) + shift[:, None])
            first, last = np.searchsorted(places, [_STRIDE * begin, _STRIDE * end])
            part = bias[0] + weight[0, : len(h), 0] @ h[:, places[first:last] - _STRIDE * begin]
            if self.shape.innovation and innovation is not None:
                part = part + weight[0, -1, 0] * innovation[first:last]
            out[first:last] = part
        return out


def _cut(
    weights: Floats, shapes: Sequence[tuple[int, int, int]], biases: Sequence[int]
) -> Iterator[tuple[Floats, Floats]]:
    offset = 0
    for shape, bias in zip(shapes, biases, strict=True):
        end = offset + math.prod(shape)
        yield weights[offset:end].reshape(shape), weights[end : end + bias]
        offset = end + bias


def _leaky(h: Floats) -> Floats:
    out: Floats = np.maximum(h, _SLOPE * h)
    return out


def _down(h: Floats, weight: Floats) -> Floats:
    """Convolution of width 3, stride 2, one zero at either end: [in, 2 n] to [out, n]."""
    even, odd = h[:, 0::2], h[:, 1::2]
    before = np.concatenate([np.zeros((len(h), 1), np.float32), odd[:, :-1]], axis=1)
    return np.tensordot(weight, np.stack([before, even, odd]), ([1, 2], [1, 0])).astype(np.float32, copy=False)


def _up(h: Floats, weight: Floats) -> Floats:
    """Transposed convolution of width 3, stride 2, one place cut and one added: [in, n] to [out, 2 n]."""
    after = np.concatenate([h[:, 1:], np.zeros((len(h), 1), np.float32)], axis=1)
    out = np.empty((weight.shape[1], 2 * h.shape[1]), np.float32)
    out[:, 0::2] = weight[:, :, 1].T @ h
    out[:, 1::2] = weight[:, :, 2].T @ h + weight[:, :, 0].T @ after
    return out


def first_weights(shape: Shape, seed: int, decoders: int = 1) -> Floats:
    """Weights before training, uniform within 1 / sqrt(inputs of a unit), as is usual for such layers.

    Args:
        decoders: how many lie behind the encoder.
    """
    rng = np.random.default_rng([seed, 0x16C])
    parts = []
    for layers, down in ((shape.encoder, True), *[(shape.decoder, False)] * decoders):
        for i, dims in enumerate(layers):
            inputs = dims[2] * (dims[1] if down or i == 4 else dims[0])
            count = math.prod(dims) + (dims[0] if down or i == 4 else dims[1])
            parts.append(rng.uniform(-1, 1, count) / math.sqrt(inputs))
    return np.concatenate(parts).astype(np.float32)
