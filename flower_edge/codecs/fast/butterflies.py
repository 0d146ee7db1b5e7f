"""Hadamard's transform of a tile [rows, lanes], compiled: the same additions in the same order as in NumPy.

Tiles of 4,096 rows and 16 lanes take four stages at a time in registers: three passes over what stays in the second
cache. Other forms, of which a vector has few, take one stage at a time. In memory a tile is sixteen equal parts, each
`pitch` numbers after the other: were it a power of two, all sixteen would fall into the same few lines of the cache.
"""

from __future__ import annotations

from typing import Any

from numba import float32, njit, uint16, uint32, uint64

from .intrinsics import as_bits, as_float

__all__ = [
    "FULL",
    "PITCH",
    "coded_full",
    "expanded_full",
    "first_full",
    "gather",
    "last_full",
    "pitch_of",
    "spread",
    "transform_down",
    "transform_up",
]

#: Rows and lanes of a tile of the quick kind, and how far apart its parts lie.
FULL = (4096, 16)
PITCH = 4096 + 16


def pitch_of(rows: int, lanes: int) -> int:
    """How far apart the sixteen parts of a tile lie."""
    return PITCH if (rows, lanes) == FULL else rows // 16 * lanes


@njit(nogil=True, inline="always")
def _near(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Two stages, near pairs first."""
    s, t, u, v = a + b, a - b, c + d, c - d
    return s + u, t + v, s - u, t - v


@njit(nogil=True, inline="always")
def _far(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Two stages, far pairs first."""
    s, t, u, v = a + c, b + d, a - c, b - d
    return s + t, s - t, u + v, u - v


@njit(nogil=True, inline="always")
def turned(x: Any, drawn: Any, j: Any) -> Any:
    """With its sign flipped if bit j says so."""
    return as_float(uint32(as_bits(x) ^ uint32(uint32(drawn << uint32(31 - j)) & uint32(0x80000000))))


def _passes(stride: int) -> tuple[Any, Any]:
    """Passes of four stages, up and down, over sixteen numbers each that lie `stride` apart, for `count` neighbours."""
    s1, s2, s3, s4, s5, s6, s7, s8 = (uint64(k * stride) for k in range(1, 9))
    s9, s10, s11, s12, s13, s14, s15 = (uint64(k * stride) for k in range(9, 16))

    @njit(cache=True, nogil=True)
    def up(z: Any, count: Any) -> None:
        for w in range(uint64(0), uint64(count)):
            a, b, c, d = _near(z[w], z[w + s1], z[w + s2], z[w + s3])
            e, f, g, h = _near(z[w + s4], z[w + s5], z[w + s6], z[w + s7])
            i, j, k, m = _near(z[w + s8], z[w + s9], z[w + s10], z[w + s11])
            n, o, p, q = _near(z[w + s12], z[w + s13], z[w + s14], z[w + s15])
            z[w], z[w + s4], z[w + s8], z[w + s12] = _near(a, e, i, n)
            z[w + s1], z[w + s5], z[w + s9], z[w + s13] = _near(b, f, j, o)
            z[w + s2], z[w + s6], z[w + s10], z[w + s14] = _near(c, g, k, p)
            z[w + s3], z[w + s7], z[w + s11], z[w + s15] = _near(d, h, m, q)

    @njit(cache=True, nogil=True)
    def down(z: Any, count: Any) -> None:
        for w in range(uint64(0), uint64(count)):
            a, e, i, n = _far(z[w], z[w + s4], z[w + s8], z[w + s12])
            b, f, j, o = _far(z[w + s1], z[w + s5], z[w + s9], z[w + s13])
            c, g, k, p = _far(z[w + s2], z[w + s6], z[w + s10], z[w + s14])
            d, h, m, q = _far(z[w + s3], z[w + s7], z[w + s11], z[w + s15])
            z[w], z[w + s1], z[w + s2], z[w + s3] = _far(a, b, c, d)
            z[w + s4], z[w + s5], z[w + s6], z[w + s7] = _far(e, f, g, h)
            z[w + s8], z[w + s9], z[w + s10], z[w + s11] = _far(i, j, k, m)
            z[w + s12], z[w + s13], z[w + s14], z[w + s15] = _far(n, o, p, q)

    return up, down


_up_middle, _down_middle = _passes(256)
_up_far, _down_far = _passes(PITCH)


@njit(nogil=True, inline="always")
def _signs(a: Any, b: Any, c: Any, d: Any, j: Any) -> Any:
    """Bits j to j + 3 of a word, set for what is below zero: minus zero is not."""
    one, two = uint32(a < float32(0)), uint32(b < float32(0)) << uint32(1)
    three, four = uint32(c < float32(0)) << uint32(2), uint32(d < float32(0)) << uint32(3)
    return uint32((one | two | three | four) << uint32(j))


@njit(nogil=True, inline="always")
def _folded(a: Any, b: Any, c: Any, d: Any) -> Any:
    return (abs(a) + abs(c)) + (abs(b) + abs(d))


def _far_row(k: int) -> Any:
    return uint64(k * PITCH)


_S1, _S2, _S3, _S4, _S5 = (_far_row(k) for k in (1, 2, 3, 4, 5))
_S6, _S7, _S8, _S9, _S10 = (_far_row(k) for k in (6, 7, 8, 9, 10))
_S11, _S12, _S13, _S14, _S15 = (_far_row(k) for k in (11, 12, 13, 14, 15))


@njit(cache=True, nogil=True)
def coded_full(z: Any, words: Any, sums: Any) -> None:
    """The last four stages up of a full tile, and only what one bit needs of it: signs, and sums of magnitudes."""
    for w in range(uint64(0), uint64(4096)):
        a, b, c, d = _near(z[w], z[w + _S1], z[w + _S2], z[w + _S3])
        e, f, g, h = _near(z[w + _S4], z[w + _S5], z[w + _S6], z[w + _S7])
        i, j, k, m = _near(z[w + _S8], z[w + _S9], z[w + _S10], z[w + _S11])
        n, o, p, q = _near(z[w + _S12], z[w + _S13], z[w + _S14], z[w + _S15])
        a, e, i, n = _near(a, e, i, n)
        b, f, j, o = _near(b, f, j, o)
        c, g, k, p = _near(c, g, k, p)
        d, h, m, q = _near(d, h, m, q)
        low, high = _signs(a, b, c, d, 0) | _signs(e, f, g, h, 4), _signs(i, j, k, m, 8) | _signs(n, o, p, q, 12)
        words[w] = uint16(low | high)
        # rows 0 to 15, the second half added to the first until one is left
        sums[w] = (_folded(a, e, i, n) + _folded(c, g, k, p)) + (_folded(b, f, j, o) + _folded(d, h, m, q))


@njit(nogil=True, inline="always")
def _ones(word: Any, j: Any) -> Any:
    """1, or -1 where bit j is set."""
    return turned(float32(1.0), word, j)


@njit(cache=True, nogil=True)
def expanded_full(words: Any, z: Any) -> None:
    """Ones with the signs of a full tile, and the first four stages down."""
    for w in range(uint64(0), uint64(4096)):
        bits = uint32(words[w])
        a, e, i, n = _far(_ones(bits, 0), _ones(bits, 4), _ones(bits, 8), _ones(bits, 12))
        b, f, j, o = _far(_ones(bits, 1), _ones(bits, 5), _ones(bits, 9), _ones(bits, 13))
        c, g, k, p = _far(_ones(bits, 2), _ones(bits, 6), _ones(bits, 10), _ones(bits, 14))
        d, h, m, q = _far(_ones(bits, 3), _ones(bits, 7), _ones(bits, 11), _ones(bits, 15))
        z[w], z[w + _S1], z[w + _S2], z[w + _S3] = _far(a, b, c, d)
        z[w + _S4], z[w + _S5], z[w + _S6], z[w + _S7] = _far(e, f, g, h)
        z[w + _S8], z[w + _S9], z[w + _S10], z[w + _S11] = _far(i, j, k, m)
        z[w + _S12], z[w + _S13], z[w + _S14], z[w + _S15] = _far(n, o, p, q)


@njit(nogil=True, inline="always")
def _four(x: Any, at: Any, unit: Any) -> Any:
    """Four rows of sixteen lanes, in units."""
    return x[at] * unit, x[at + uint64(16)] * unit, x[at + uint64(32)] * unit, x[at + uint64(48)] * unit


@njit(nogil=True, inline="always")
def _store_four(out: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    out[at], out[at + uint64(16)], out[at + uint64(32)], out[at + uint64(48)] = a, b, c, d


@njit(nogil=True, inline="always")
def _square(one: Any, other: Any) -> Any:
    return one * one + other * other


@njit(nogil=True, inline="always")
def _near_turned(a: Any, b: Any, c: Any, d: Any, drawn: Any, j: Any) -> Any:
    """Signs flipped, then two stages."""
    return _near(turned(a, drawn, j), turned(b, drawn, j + 1), turned(c, drawn, j + 2), turned(d, drawn, j + 3))


@njit(nogil=True, inline="always")
def _far_turned(a: Any, b: Any, c: Any, d: Any, drawn: Any, j: Any) -> Any:
    """Two stages, then signs flipped."""
    s, t, u, v = _far(a, b, c, d)
    return turned(s, drawn, j), turned(t, drawn, j + 1), turned(u, drawn, j + 2), turned(v, drawn, j + 3)


@njit(cache=True, nogil=True)
def first_full(x: Any, unit: Any, drawn: Any, z: Any, sums: Any) -> None:
    """Sixteen rows of sixteen lanes: their sums of squares, spread over each other, and four stages up."""
    for w in range(uint64(0), uint64(16)):
        bits, one = drawn[w], unit[w]
        a, b, c, d = _four(x, w, one)
        e, f, g, h = _four(x, w + uint64(64), one)
        i, j, k, m = _four(x, w + uint64(128), one)
        n, o, p, q = _four(x, w + uint64(192), one)
        left = (_square(a, i) + _square(e, n)) + (_square(c, k) + _square(g, p))
        right = (_square(b, j) + _square(f, o)) + (_square(d, m) + _square(h, q))
        sums[w] = left + right
        a, b, c, d = _near_turned(a, b, c, d, bits, 16)
        e, f, g, h = _near_turned(e, f, g, h, bits, 20)
        i, j, k, m = _near_turned(i, j, k, m, bits, 24)
        n, o, p, q = _near_turned(n, o, p, q, bits, 28)
        a, e, i, n = _near(a, e, i, n)
        b, f, j, o = _near(b, f, j, o)
        c, g, k, p = _near(c, g, k, p)
        d, h, m, q = _near(d, h, m, q)
        a, b, c, d = _near_turned(a, b, c, d, bits, 0)
        e, f, g, h = _near_turned(e, f, g, h, bits, 4)
        i, j, k, m = _near_turned(i, j, k, m, bits, 8)
        n, o, p, q = _near_turned(n, o, p, q, bits, 12)
        z[w], z[w + uint64(64)], z[w + uint64(128)], z[w + uint64(192)] = _near(a, e, i, n)
        z[w + uint64(16)], z[w + uint64(80)], z[w + uint64(144)], z[w + uint64(208)] = _near(b, f, j, o)
        z[w + uint64(32)], z[w + uint64(96)], z[w + uint64(160)], z[w + uint64(224)] = _near(c, g, k, p)
        z[w + uint64(48)], z[w + uint64(112)], z[w + uint64(176)], z[w + uint64(240)] = _near(d, h, m, q)


@njit(cache=True, nogil=True)
def last_full(z: Any, scale: Any, drawn: Any, out: Any) -> None:
    """Sixteen rows of sixteen lanes: four stages down, gathered again, times a scale per lane."""
    for w in range(uint64(0), uint64(16)):
        bits, one = drawn[w], scale[w]
        a, e, i, n = _far(z[w], z[w + uint64(64)], z[w + uint64(128)], z[w + uint64(192)])
        b, f, j, o = _far(z[w + uint64(16)], z[w + uint64(80)], z[w + uint64(144)], z[w + uint64(208)])
        c, g, k, p = _far(z[w + uint64(32)], z[w + uint64(96)], z[w + uint64(160)], z[w + uint64(224)])
        d, h, m, q = _far(z[w + uint64(48)], z[w + uint64(112)], z[w + uint64(176)], z[w + uint64(240)])
        a, b, c, d = _far_turned(a, b, c, d, bits, 0)
        e, f, g, h = _far_turned(e, f, g, h, bits, 4)
        i, j, k, m = _far_turned(i, j, k, m, bits, 8)
        n, o, p, q = _far_turned(n, o, p, q, bits, 12)
        a, e, i, n = _far(a, e, i, n)
        b, f, j, o = _far(b, f, j, o)
        c, g, k, p = _far(c, g, k, p)
        d, h, m, q = _far(d, h, m, q)
        a, b, c, d = _far_turned(a, b, c, d, bits, 16)
        e, f, g, h = _far_turned(e, f, g, h, bits, 20)
        i, j, k, m = _far_turned(i, j, k, m, bits, 24)
        n, o, p, q = _far_turned(n, o, p, q, bits, 28)
        _store_four(out, w, a * one, b * one, c * one, d * one)
        _store_four(out, w + uint64(64), e * one, f * one, g * one, h * one)
        _store_four(out, w + uint64(128), i * one, j * one, k * one, m * one)
        _store_four(out, w + uint64(192), n * one, o * one, p * one, q * one)


@njit(cache=True, nogil=True)
def _stage(z: Any, run: Any) -> None:
    """One stage: pairs lie `run` numbers apart."""
    for begin in range(0, z.size, 2 * run):
        one, other = z[begin : begin + run], z[begin + run : begin + 2 * run]
        for i in range(run):
            s, t = one[i] + other[i], one[i] - other[i]
            one[i], other[i] = s, t


@njit(cache=True, nogil=True)
def spread(z: Any, lanes: Any, drawn: Any) -> None:
    """Sixteen rows of any lanes, in place: what `first_full` does before its stages."""
    _turn(z, lanes, drawn, 16)
    for h in (1, 2, 4, 8):
        _stage(z, h * lanes)
    _turn(z, lanes, drawn, 0)


@njit(cache=True, nogil=True)
def gather(z: Any, lanes: Any, drawn: Any) -> None:
    """Sixteen rows of any lanes, in place: what `last_full` does after its stages, without the scale."""
    _turn(z, lanes, drawn, 0)
    for h in (8, 4, 2, 1):
        _stage(z, h * lanes)
    _turn(z, lanes, drawn, 16)


@njit(cache=True, nogil=True)
def _turn(z: Any, lanes: Any, drawn: Any, first: Any) -> None:
    for w in range(lanes):
        for j in range(16):
            z[j * lanes + w] = turned(z[j * lanes + w], drawn[w], first + j)


@njit(cache=True, nogil=True)
def transform_up(z: Any, rows: Any, lanes: Any, last: Any) -> None:
    """In place, near pairs first. Of a full tile without what `first_full` does and, unless `last`, the last stages."""
    if rows == 4096 and lanes == 16:
        for part in range(16):
            _up_middle(z[part * PITCH : part * PITCH + 4096], 256)
        if last:
            _up_far(z, 4096)
    else:
        h = 1
        while h < rows:
            _stage(z[: rows * lanes], h * lanes)
            h *= 2


@njit(cache=True, nogil=True)
def transform_down(z: Any, rows: Any, lanes: Any, first: Any) -> None:
    """In place, far pairs first. Of a full tile without what `last_full` does and, unless `first`, the first stages."""
    if rows == 4096 and lanes == 16:
        if first:
            _down_far(z, 4096)
        for part in range(16):
            _down_middle(z[part * PITCH : part * PITCH + 4096], 256)
    else:
        h = rows // 2
        while h:
            _stage(z[: rows * lanes], h * lanes)
            h //= 2
