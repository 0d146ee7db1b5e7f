"""Random bits by counting: word i of a stream is a hash of i and a 64-bit key. The same words in NumPy and compiled.

    x = i + key[low];  x ^= x >> 16;  x *= 0x7FEB352D;  x ^= key[high];  x ^= x >> 15;  x *= 0x846CA68B;  x ^= x >> 16

That is Wellons' `lowbias32` (hash-prospector, public domain) with half of the key between its two multiplications, so
that two keys give two streams and not one stream shifted. It is no generator for secrets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["uniform16", "words"]

_FIRST = np.uint32(0x7FEB352D)
_SECOND = np.uint32(0x846CA68B)


def words(key: int, begin: int, count: int) -> npt.NDArray[np.uint32]:
    """Words `begin` to `begin + count` of a stream, uint32 [count]; the counter wraps after 2^32.

    >>> words(0, 0, 2), words(1 << 32, 0, 1)
    (array([         0, 1753845952], dtype=uint32), array([2221679335], dtype=uint32))
    """
    x = np.arange(count, dtype=np.uint32)
    x += np.uint32((begin + key) & 0xFFFFFFFF)
    room = np.right_shift(x, np.uint32(16))
    x ^= room
    x *= _FIRST
    x ^= np.uint32(key >> 32)
    x ^= np.right_shift(x, np.uint32(15), out=room)
    x *= _SECOND
    x ^= np.right_shift(x, np.uint32(16), out=room)
    return x


def uniform16(key: int, count: int) -> npt.NDArray[np.uint16]:
    """The halves of the words of a stream, low before high, uint16 [count].

    >>> uniform16(1 << 32, 3)
    array([ 8935, 33900, 46499], dtype=uint16)
    """
    return words(key, 0, (count + 1) // 2).astype("<u4", copy=False).view("<u2")[:count].astype(np.uint16, copy=False)
