"""Rotate and code: random signs, a Hadamard transform, and each number as the nearest of a few levels; and back.

    a tile [rows, lanes]: numbers in order, lane l has those at places l, lanes + l, 2 lanes + l, ...
    spread    y = H16 E x / 4 for each 16 rows of a lane, E random signs: few numbers become sixteen times as many
    rotated   z = H D y per lane, D random signs, H the transform without its 1 / sqrt(rows)
    codes     the sign of z, and which levels |z| / rms(z) is nearest to
    words     16 bits each: bit j of word [r, lane] is of row r + j rows / 16, one plane per bit of the code

All lanes of a tile take the same steps side by side, so there is no step that vector units could not take. The order of
additions is part of the format: stages from neighbours outwards when coding, from outside inwards when decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .dither import words

__all__ = ["code", "decode"]

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint16]

#: Numbers that are worked on at once, so that what is in between stays in cache.
_CHUNK = 1 << 17
_SIGN = np.uint32(0x80000000)


def code(x: Floats, levels: Floats, cuts: Floats, key: int, begin: int, out: Words, sums: Floats) -> bool:
    """Code tiles of equal form; whether all of `x` is finite.

    Args:
        x: [tiles, rows, lanes], rows a power of two, 16 or more.
        levels: magnitudes in units of the root mean square, rising, [2^(bits - 1)].
        cuts: where the next level is nearer, one fewer.
        key: of the signs; `begin` is the first of their words.
        out: [tiles, bits, rows / 16, lanes].
        sums: [tiles, 4, lanes]: sum x^2, sum |z| level, sum level^2, and the power of two that x was divided by first.
    """
    tiles, rows, lanes = x.shape
    step = max(1, _CHUNK // (rows * lanes))
    room = np.empty(2 * min(step, tiles) * rows * lanes, np.float32)
    for first in range(0, tiles, step):
        last = min(tiles, first + step)
        drawn = words(key, begin + first * rows // 16 * lanes, (last - first) * rows // 16 * lanes)
        some = room[: 2 * (last - first) * rows * lanes]
        if not _code(x[first:last], levels, cuts, drawn, out[first:last], sums[first:last], some):
            return False
    return True


def _code(
    x: Floats, levels: Floats, cuts: Floats, drawn: npt.NDArray[np.uint32], out: Words, sums: Floats, room: Floats
) -> bool:
    tiles, rows, lanes = x.shape
    flat = x.reshape(tiles, -1)
    largest = np.maximum(flat.max(axis=1), -flat.min(axis=1))
    if not np.isfinite(largest).all():
        return False
    power = np.clip(254 - (largest.view(np.uint32) >> np.uint32(23)).astype(np.int64), 1, 254).astype(np.uint32)
    unit = (power << np.uint32(23)).view(np.float32)
    sums[:, 3] = (np.float32(1) / unit)[:, None]

    z, other = room.reshape(2, 16, rows // 16, tiles, lanes)
    quarter = unit[:, None, None, None] * np.float32(0.25)
    np.multiply(x.reshape(tiles, rows // 16, 16, lanes), quarter, out=z.transpose(2, 1, 0, 3))
    sums[:, 0] = _tree(_tree(np.multiply(z, z, out=other))) * np.float32(16)
    drawn = _ordered(drawn, tiles, rows, lanes)
    _flip(z, drawn, 16, other)
    z, other = _stages(z, other, True)
    _flip(z, drawn, 0, other)
    z, _ = _transformed(z, other, rows, range(len(_digits(rows))))

    _pack(z < 0, out[:, 0])
    np.abs(z, out=z)
    if len(levels) == 1:
        sums[:, 2] = rows
    else:
        rms = np.sqrt(sums[:, 0])
        index = np.zeros(z.shape, np.uint8)
        for cut in cuts:
            index += z > cut * rms
        for plane in range(1, out.shape[1]):
            _pack((index >> np.uint8(plane - 1) & np.uint8(1)).view(np.bool_), out[:, plane])
        chosen = levels[index]
        z *= chosen
        chosen *= chosen
        sums[:, 2] = _tree(_tree(chosen))
    sums[:, 1] = _tree(_tree(z))
    return True


def _digits(rows: int) -> list[int]:
    """Rows as digits of base 16 and a rest, lowest first.

    >>> _digits(4096), _digits(512)
    ([16, 16, 16], [16, 16, 2])
    """
    found = []
    while rows > 1:
        found.append(min(rows, 16))
        rows //= found[-1]
    return found


def _transformed(z: Floats, other: Floats, rows: int, order: Sequence[int]) -> tuple[Floats, Floats]:
    """Hadamard's transform over rows, digit by digit.

    Each digit comes to the front before its turn: then every addition is of two long runs.

    Args:
        z: [16, rows / 16, tiles, lanes]: the lowest digit first, then the others from the highest; or all from the
            highest, if that is where `order` begins.
        order: of digits; from the lowest up, each with near pairs first, or from the highest down, far pairs first.

    Returns:
        The same, the other way around; and an array that is no longer needed. Both given ones are overwritten.
    """
    digits, lanes = _digits(rows), z.shape[-2:]
    upwards = order[0] == 0
    axes = [*order[:1], *[k for k in reversed(range(len(digits))) if k != order[0]]]  # which digit lies where
    z = z.reshape([*[digits[k] for k in axes], *lanes])
    for k in order:
        wanted = [k, *[d for d in reversed(range(len(digits))) if d != k]]
        if wanted != axes:
            moved = z.transpose([*[axes.index(d) for d in wanted], len(axes), len(axes) + 1])
            other = other.reshape(moved.shape)
            np.copyto(other, moved)
            z, other, axes = other, z, wanted
        z, other = _stages(z, other, upwards)
    return z.reshape(16, -1, *lanes), other


def _stages(z: Floats, other: Floats, upwards: bool) -> tuple[Floats, Floats]:
    """The transform over the first axis, and an array that is no longer needed; both given ones are overwritten."""
    count, other = len(z), other.reshape(z.shape)
    h = 1 if upwards else count // 2
    while 0 < h < count:
        pairs, to = z.reshape(count // (2 * h), 2, -1), other.reshape(count // (2 * h), 2, -1)
        np.add(pairs[:, 0], pairs[:, 1], out=to[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=to[:, 1])
        z, other = other, z
        h = 2 * h if upwards else h // 2
    return z, other


def _flip(z: Floats, drawn: npt.NDArray[np.uint32], first: int, room: Floats) -> None:
    """Flip signs: z [16, rows / 16, tiles, lanes], row 16 r + j by bit first + j of word r of `drawn`."""
    raw, signs = z.view(np.uint32), room.reshape(z.shape).view(np.uint32)
    np.left_shift(drawn, np.arange(31 - first, 15 - first, -1, dtype=np.uint32)[:, None, None, None], out=signs)
    signs &= _SIGN
    raw ^= signs


def _ordered(drawn: npt.NDArray[np.uint32], tiles: int, rows: int, lanes: int) -> npt.NDArray[np.uint32]:
    """Words that lie tile by tile as [rows / 16, tiles, lanes]."""
    return np.ascontiguousarray(drawn.reshape(tiles, rows // 16, lanes).transpose(1, 0, 2))


def _pack(bits: npt.NDArray[np.bool_], out: Words) -> None:
    """Sixteen bits a word: bool [digit, ..., tiles, lanes] to words [tiles, rows / 16, lanes]."""
    tiles, rows, lanes = out.shape
    raw = bits.view(np.uint8).reshape(2, 8, -1)
    halves = raw[:, 0].copy()
    for j in range(1, 8):
        halves |= raw[:, j] << np.uint8(j)
    whole = halves[0] | halves[1].astype(np.uint16) << np.uint16(8)
    out[:] = whole.reshape(rows, tiles, lanes).transpose(1, 0, 2)


def _tree(z: Floats) -> Floats:
    """Sums over the first axis: the second half added to the first until one is left. `z` is overwritten."""
    while len(z) > 1:
        half = len(z) // 2
        z = np.add(z[:half], z[half:], out=z[:half])
    first: Floats = z[0]
    return first


def decode(given: Words, levels: Floats, scales: Floats, key: int, begin: int, out: Floats) -> None:
    """Inverse of `code`, times a scale per lane.

    Args:
        given: [tiles, bits, rows / 16, lanes].
        scales: [tiles, lanes].
        out: [tiles, rows, lanes], filled.
    """
    tiles, rows, lanes = out.shape
    step = max(1, _CHUNK // (rows * lanes))
    room = np.empty(2 * min(step, tiles) * rows * lanes, np.float32)
    for first in range(0, tiles, step):
        last = min(tiles, first + step)
        drawn = words(key, begin + first * rows // 16 * lanes, (last - first) * rows // 16 * lanes)
        some = room[: 2 * (last - first) * rows * lanes]
        _decode(given[first:last], levels, scales[first:last], drawn, out[first:last], some)


def _decode(
    given: Words, levels: Floats, scales: Floats, drawn: npt.NDArray[np.uint32], out: Floats, room: Floats
) -> None:
    tiles, rows, lanes = out.shape
    z, other = room.reshape(2, 16, rows // 16, tiles, lanes)
    drawn = _ordered(drawn, tiles, rows, lanes)
    planes = np.ascontiguousarray(given.transpose(1, 2, 0, 3))
    if len(levels) == 1:
        z[:] = levels[0]
        _flip(z, planes[0].astype(np.uint32), 0, other)
    else:
        signed = np.stack([levels, -levels], axis=1).reshape(-1)
        for j, part in enumerate(z):
            index = np.zeros(part.shape, np.uint8)
            for k, plane in enumerate(planes):
                index |= ((plane >> np.uint16(j) & np.uint16(1)) << np.uint16(k)).astype(np.uint8)
            part[:] = signed[index]
    z, other = _transformed(z, other, rows, range(len(_digits(rows)))[::-1])
    _flip(z, drawn, 0, other)
    z, other = _stages(z, other, False)
    _flip(z, drawn, 16, other)
    quarter = (scales * np.float32(0.25))[:, None, None, :]
    np.multiply(z.transpose(2, 1, 0, 3), quarter, out=out.reshape(tiles, rows // 16, 16, lanes))
