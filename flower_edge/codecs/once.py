"""A nested codec that remembers nothing: started anew for each vector. Nothing here encodes by itself."""

from __future__ import annotations

from .layout import Floats, Layout
from .moment import Moment
from .sparse import Update
from .vector_codec import VectorCodec

__all__ = ["packed", "unpacked"]


def packed(codec: VectorCodec, v: Floats, layout: Layout, at: Moment) -> bytes:
    """The bytes of a vector."""
    return codec.pack(v, layout, codec.start(layout), at)[0]


def unpacked(codec: VectorCodec, data: memoryview, layout: Layout, at: Moment) -> Update:
    """Inverse of `packed`.

    Raises:
        CodecError: the payload is not one of this codec for this layout.
    """
    return codec.unpack(data, layout, codec.start(layout), at)[0]
