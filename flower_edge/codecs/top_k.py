"""`TopK`: the largest numbers of a vector; where they are by a support coder, what they are by another codec.

    byte 0      coder of the support (2 bits), whether a count follows (1 bit), Rice's digits (5 bits)
    count       varint, where there are fewer numbers than asked for that are not zero
    the rest    support, then values; with context: both in sections, or a scale, and the signs within the support

Which k numbers: exactly the largest magnitudes, ties by the lower place, no zeros. What a codec leaves out is lost
unless `ErrorFeedback` keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from ..errors import CodecError
from .contexts import AGGREGATES, Contexts
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_codec, check_number
from .sections import join, read_varint, split, varint
from .sign import Sign
from .sparse import Sparse, dense
from .support import CONTEXT, Places, pack_plain, pack_seen, unpack_plain, unpack_seen
from .vector_codec import State, VectorCodec

__all__ = ["TopK"]

_SUPPORTS = ("auto", "rice", "bitmap", "context")
_COUNTED = 4
#: Bytes before the signs in what `Sign` makes of a vector.
_SCALE = 2


@dataclass(frozen=True)
class TopK(VectorCodec):
    """Keeps the `fraction` of a vector's numbers with the largest magnitudes, one at least.

    Attributes:
        fraction: of the numbers, above 0, at most 1.
        values: the codec of what is kept, in the order of places; it must remember nothing.
        support: the coder of places: gaps ("rice"), a bit for each ("bitmap"), by what both ends know of the last
            rounds ("context"; the shortest of the others where they know nothing), or the shortest in each message
            ("auto").

    >>> codec = TopK(0.5)
    >>> layout = Layout.flat(4)
    >>> data, _ = codec.pack(np.array([0, 3, -5, 1], np.float32), layout, {}, Moment())
    >>> codec.unpack(memoryview(data), layout, {}, Moment())[0].dense()
    array([ 0.,  4., -4.,  0.], dtype=float32)
    """

    kind: ClassVar[str] = "top_k"

    fraction: float = 0.01
    values: VectorCodec = field(default_factory=Sign)
    support: Literal["auto", "rice", "bitmap", "context"] = "auto"

    def __post_init__(self) -> None:
        check_number(self.fraction, "fraction", 0.0, 1.0)
        if not self.fraction > 0:
            raise CodecError(f"fraction = {self.fraction}: expected more than 0, such as 0.01 for one in a hundred")
        check_codec(self.values, "values")
        if self.values.start(Layout.flat(1)):
            raise CodecError(
                f"values = {self.values!r}: it remembers what came before, but each message names other places; "
                "wrap the whole instead, as in ErrorFeedback(TopK(0.01))"
            )
        if self.support not in _SUPPORTS:
            raise CodecError(f"support = {self.support!r}: expected one of {', '.join(map(repr, _SUPPORTS))}")

    def count(self, size: int) -> int:
        """How many numbers of a vector of that size are kept, if so many are not zero.

        >>> TopK(0.01).count(91_658), TopK(0.01).count(3)
        (917, 1)
        """
        return min(size, max(1, round(self.fraction * size)))

    @property
    def public_rounds(self) -> int:
        """Four where places may be coded in the context of what the model moved by, else none."""
        return 0 if self.support in ("rice", "bitmap") else AGGREGATES

    def contraction(self, size: int) -> float | None:
        """k / size for exact values, times what the codec of values leaves of them.

        For `Sign` that product is loose. With m the least kept and U >= 0 what the kept exceed it by in all, the signs
        carry (k m + U)^2 / k of at most size m^2 + 2 m U + U^2: least at U = 0 or without end, min(k / size, 1 / k).
        The scale has 9 bits.
        """
        k = self.count(size)
        if k == 0:
            return 1.0
        if isinstance(self.values, Sign):
            return (1 - 2.0**-18) * min(k / size, 1 / k)
        inner = self.values.contraction(k)
        return None if inner is None else inner * k / size

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Header, support, values."""
        vector = np.ascontiguousarray(v, np.float32)
        places, kept = kernels("select").largest(vector, self.count(layout.size))
        return self._message(vector, places, kept, layout, at)[0], state

    def feed(
        self, v: Floats, memory: Floats | None, layout: Layout, state: State, at: Moment
    ) -> tuple[bytes, Floats, State]:
        """Adds, selects and keeps what is left in one pass over the vectors."""
        vector, k = np.ascontiguousarray(v, np.float32), self.count(layout.size)
        known = None if memory is None else np.ascontiguousarray(memory, np.float32)
        if vector.shape != (layout.size,) or (known is not None and known.shape != vector.shape):
            raise CodecError(
                f"{vector.size} numbers, and {vector.size if known is None else known.size} that were left out, "
                f"expected {layout.size} of each; is the state one of this model?"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            whole, places, kept = kernels("select").add_and_find(vector, known, k)
        data, sent = self._message(whole, places, kept, layout, at)
        whole[places] = kept - sent
        return data, whole, state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Sparse, State]:
        """Sparse, whatever the fraction."""
        k = self.count(layout.size)
        if not len(data):
            raise CodecError("an empty payload, expected the header of a sparse one")
        coder, low = data[0] & 3, data[0] >> 3
        count, offset = k, 1
        if data[0] & _COUNTED:
            count, offset = read_varint(data, 1, most=max(k - 1, 0))
        rest = data[offset:]
        if coder == CONTEXT:
            places, values = self._unpack_seen(rest, low, count, layout, at)
        else:
            places, rest = unpack_plain(rest, coder, low, count, layout.size)
            values = self._unpack_values(rest, count, at)
        return Sparse(places, values, layout.size), state

    def _message(self, v: Floats, places: Places, kept: Floats, layout: Layout, at: Moment) -> tuple[bytes, Floats]:
        """The payload of what is kept of a vector, and the values as the other end will decode them."""
        if not np.isfinite(kept).all():
            refuse_non_finite(v, layout)
        k, count = self.count(layout.size), int(places.size)
        values, _ = self.values.pack(kept, Layout.flat(count), {}, at.without_public())
        sent = self._unpack_values(memoryview(values), count, at)
        contexts = Contexts.of(at.public, layout) if count and self.support in ("auto", "context") else None
        plain = "auto" if self.support == "context" else self.support
        coder, low, support = pack_plain(places, layout.size, plain)
        body = support + values
        if contexts is not None:
            seen = self._seen(places, values, contexts, len(body) if self.support == "auto" else None)
            if seen is not None:
                coder, low, body = CONTEXT, 0, seen
        counted = b"" if count == k else varint(count)
        return bytes([coder | (_COUNTED if counted else 0) | low << 3]) + counted + body, sent

    def _seen(self, places: Places, values: bytes, contexts: Contexts, beat: int | None) -> bytes | None:
        """Support and values by context, or `None` where that is not shorter than `beat`."""
        if isinstance(self.values, Sign):
            scale, signs = values[:_SCALE], np.frombuffer(values, np.uint8, offset=_SCALE)
            negative = np.unpackbits(signs, count=places.size, bitorder="little")
            stream = pack_seen(places, contexts, negative, None if beat is None else max(beat - _SCALE - 1, 0))
            return None if stream is None else scale + stream
        stream = pack_seen(places, contexts, None, None if beat is None else max(beat - len(values), 0))
        whole = None if stream is None else join([stream, values])
        return None if whole is None or (beat is not None and len(whole) >= beat) else whole

    def _unpack_seen(self, data: memoryview, low: int, count: int, layout: Layout, at: Moment) -> tuple[Places, Floats]:
        if low or count < 1:
            raise CodecError(f"a support by context of {count} places with option {low}; the payload was altered")
        contexts = Contexts.of(at.public, layout)
        if contexts is None:
            raise CodecError(
                "places coded by what the model did in the last rounds, which is not known here; "
                "decode with the Moment whose public.aggregates the sender had, or ask it for TopK(support='rice')"
            )
        if not isinstance(self.values, Sign):
            stream, values = split(data, 2)
            places, _ = unpack_seen(stream, count, contexts, signs=False)
            return places, self._unpack_values(values, count, at)
        if len(data) < _SCALE:
            raise CodecError(f"{len(data)} bytes, expected a scale of {_SCALE} and a support; the payload was altered")
        places, negative = unpack_seen(data[_SCALE:], count, contexts, signs=True)
        signs = np.packbits(negative, bitorder="little").tobytes()
        return places, self._unpack_values(memoryview(bytes(data[:_SCALE]) + signs), count, at)

    def _unpack_values(self, data: memoryview, count: int, at: Moment) -> Floats:
        values = dense(self.values.unpack(data, Layout.flat(count), {}, at.without_public())[0])
        if not np.isfinite(values).all():
            raise CodecError("a value that is no finite number; the payload was altered")
        return values
