"""Supports: which places of a vector are named, in as few bytes as they take. Values are coded elsewhere.

    rice      gaps between places; 0.03 bits over the entropy of a support that nothing tells about
    bitmap    a bit for each place; for dense supports
    all       nothing: every place is named
    context   by how the model moved lately (contexts.py), places and signs near their entropy there

What is read was made by anybody: it is believed only as far as places are in order and in range.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .contexts import Contexts
from .kernels import kernels

__all__ = ["ALL", "BITMAP", "CONTEXT", "RICE", "Places", "pack_plain", "pack_seen", "unpack_plain", "unpack_seen"]

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

#: The coder, in two bits.
RICE, BITMAP, ALL, CONTEXT = range(4)


def pack_plain(places: Places, size: int, coder: Literal["rice", "bitmap", "auto"]) -> tuple[int, int, bytes]:
    """Sorted places: the coder, its option, and the bytes; `auto` takes whichever is shortest."""
    rice = kernels("rice")
    if coder == "auto" and places.size == size:
        return ALL, 0, b""
    low, bits = rice.price(places)
    if coder == "bitmap" or (coder == "auto" and size < bits):
        named = np.zeros(size, np.uint8)
        named[places] = 1
        return BITMAP, 0, np.packbits(named, bitorder="little").tobytes()
    return RICE, low, rice.pack(places, low, bits).tobytes()


def unpack_plain(data: memoryview, coder: int, low: int, count: int, size: int) -> tuple[Places, memoryview]:
    """The sorted places, and what follows them.

    Raises:
        CodecError: these are not `count` places below `size`.
    """
    if coder != RICE and low:
        raise CodecError(f"a support of coder {coder} with option {low}, expected 0; the payload was altered")
    if coder == ALL:
        if count != size:
            raise CodecError(f"all places, of which there are {size}, as {count}; the payload was altered")
        return np.arange(size, dtype=np.int64), data
    if coder == RICE:
        places, end = kernels("rice").unpack(np.frombuffer(data, np.uint8), count, low, size)
        if end < 0:
            raise CodecError(f"{len(data)} bytes hold no Rice codes of {count} places below {size}")
        return places, data[end:]
    end = (size + 7) // 8
    if len(data) < end:
        raise CodecError(f"{len(data)} bytes hold no bitmap of {size} places")
    named = np.unpackbits(np.frombuffer(data[:end], np.uint8), bitorder="little")
    places = np.flatnonzero(named)
    if places.size != count or named[size:].any():
        raise CodecError(f"a bitmap names {places.size} places, expected {count} below {size}; the payload was altered")
    return places, data[end:]


def pack_seen(places: Places, contexts: Contexts, negative: Flags | None, most: int | None) -> bytes | None:
    """Sorted places by what both ends know, and the signs at them.

    Args:
        negative: 1 where a value is negative, in the order of places; `None` leaves signs out.
        most: `None` is returned where more bytes than these were needed; with `None` as many as it takes.
    """
    ranges = kernels("ranges")
    ones, spots = kernels("contexts").spots_of(contexts.groups, contexts.members, places)
    order = np.argsort(contexts.groups[places], kind="stable")
    room = 4 * places.size + 256 if most is None else most
    while True:
        out, state = np.empty(room, np.uint8), np.array([0, 1 << 40, 0], np.int64)
        fits = ranges.write_spots(out, state, contexts.members, ones, spots)
        if fits and negative is not None:
            against, of = contexts.signs(places[order])
            fits = ranges.write_flags(out, state, negative[order] ^ against, of)
        if fits and (end := ranges.finish(out, state)) >= 0:
            return bytes(out[:end])
        if most is not None:
            return None
        room *= 2


def unpack_seen(data: memoryview, count: int, contexts: Contexts, signs: bool) -> tuple[Places, Flags]:
    """Inverse of `pack_seen`, of all bytes of `data`; without signs, none.

    Raises:
        CodecError: these are not `count` places of that vector.
    """
    ranges, given = kernels("ranges"), np.frombuffer(data, np.uint8)
    state = ranges.start_reading(given)
    if (found := ranges.read_spots(given, state, contexts.members, count)) is None:
        raise CodecError(f"{len(data)} bytes hold no {count} places by context; do both ends know the same aggregates?")
    places = kernels("contexts").places_of(contexts.groups, *found)
    order = np.argsort(places)
    negative = np.empty(0, np.uint8)
    if signs:
        against, of = contexts.signs(places)
        negative = (ranges.read_flags(given, state, of) ^ against)[order]
    if not ranges.ended(given, state):
        raise CodecError(f"{len(data)} bytes are not those of the {count} places in them; the payload was altered")
    return places[order], negative
