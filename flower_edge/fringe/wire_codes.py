"""Groups of numbers to codes of 8, 4 or 2 bits and to bytes; each group has a lowest number and a step of its own.

    x ~ low + code step, code in [0, 2^bits - 1]; low <= min x in 16 bits, step >= (max x - low) / (2^bits - 1) in 16

`codecs.affine.Affine` does the same to blocks of one vector, whose lengths are powers of two; here a group is a channel
of a sample, of any length. Nothing here knows which numbers are sent.

Source: affine quantisation as in Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", CVPR 2018.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..codecs.scales import read_scales, to_float, upwards
from ..errors import CodecError

__all__ = ["Codes", "pack_codes", "quantised", "unpack_codes", "values"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_MOST: Final = float(np.finfo(np.float32).max)
#: 2^-126, as a scale: below, hardware may take a step for zero.
_SMALLEST_STEP: Final = 0x100


class Codes(NamedTuple):
    """Codes of some groups of numbers, [batch, groups, numbers], with lowest numbers and steps [batch, groups].

    Lowest numbers are the upper half of a float32; steps are `codecs.scales`.
    """

    lows: npt.NDArray[np.uint16]
    steps: npt.NDArray[np.uint16]
    codes: Bytes


def quantised(v: Floats, bits: int) -> Codes:
    """Codes of float32 [batch, groups, numbers], to the nearest step.

    Lowest numbers are rounded down and steps up, so that no number lies outside.
    """
    levels = 2**bits - 1
    empty = not v.shape[2]
    low = np.zeros(v.shape[:2], np.float32) if empty else v.min(axis=2)
    high = low if empty else v.max(axis=2)
    low = np.where(low == 0, np.float32(0), low)  # one zero, not two
    lows = ((low.view(np.uint32) + np.where(low < 0, np.uint32(0xFFFF), np.uint32(0))) >> np.uint32(16)).astype(
        np.uint16
    )
    begin = _low(lows)
    step = (high.astype(np.float64) - begin) / levels + 0.0  # no -0, which has a sign bit
    rounded = step.astype(np.float32)
    rounded = np.where(rounded < step, np.nextafter(rounded, np.float32(np.inf)), rounded)
    steps = upwards(rounded)
    steps = np.where(steps == 0, steps, np.maximum(steps, np.uint16(_SMALLEST_STEP)))
    each = to_float(steps).astype(np.float64)
    inverse = np.divide(1.0, each, out=np.zeros(each.shape), where=each > 0)
    x = v.astype(np.float64)
    x -= begin[:, :, None]
    x *= inverse[:, :, None]
    x += 0.5
    np.clip(x, 0, levels, out=x)
    return Codes(lows, steps, x.astype(np.uint8))


def values(found: Codes) -> Floats:
    """The numbers that codes stand for, float32 [batch, groups, numbers]; finite whatever they are."""
    x = found.codes.astype(np.float64)
    x *= to_float(found.steps).astype(np.float64)[:, :, None]
    x += _low(found.lows)[:, :, None]
    np.clip(x, -_MOST, _MOST, out=x)
    return x.astype(np.float32)


def pack_codes(found: Codes, bits: int) -> Bytes:
    """uint8 [batch, 4 groups + ceil(groups numbers bits / 8)]: lowest numbers, steps, codes from the lowest bit on."""
    scales = np.concatenate([found.lows, found.steps], axis=1).astype("<u2")
    codes = found.codes.reshape(len(found.codes), -1)
    per = 8 // bits
    whole = np.zeros((len(codes), -(-codes.shape[1] // per) * per), np.uint8)
    whole[:, : codes.shape[1]] = codes
    packed = np.ascontiguousarray(whole[:, ::per])
    for place in range(1, per):
        packed |= whole[:, place::per] << np.uint8(place * bits)
    return np.concatenate([scales.view(np.uint8).reshape(len(codes), -1), packed], axis=1)


def unpack_codes(rows: Bytes, groups: int, numbers: int, bits: int) -> Codes:
    """Inverse of `pack_codes`.

    Args:
        rows: uint8 [batch, …], of the right length.
        groups, numbers: per sample, and per group.
        bits: per number.

    Raises:
        CodecError: a lowest number or a step that is none.
    """
    scales = np.ascontiguousarray(rows[:, : 4 * groups]).view("<u2").astype(np.uint16)
    lows, steps = scales[:, :groups], np.ascontiguousarray(scales[:, groups:])
    beyond = (lows & 0x7FFF >= 0x7F80) & (lows != 0xFF80)
    if beyond.any():
        raise CodecError(f"a lowest number of code {int(lows[beyond][0]):#x}, which is none; it was altered")
    read_scales(memoryview(steps.astype("<u2").tobytes()), steps.size)
    packed, per, mask = rows[:, 4 * groups :], 8 // bits, np.uint8(2**bits - 1)
    codes = np.empty((len(rows), packed.shape[1] * per), np.uint8)
    for place in range(per):
        codes[:, place::per] = packed >> np.uint8(place * bits) & mask
    return Codes(lows, steps, codes[:, : groups * numbers].reshape(len(rows), groups, numbers))


def _low(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """The upper half of a float32 as a number; what is below the range of such is the lowest float32."""
    found = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.maximum(found.astype(np.float64), -_MOST)
