"""What a codec's teacher makes public before a step, as bytes: a leader's places, a codebook. Nothing here learns.

Made by the server, and still believed only as far as it was checked: what it says allocates no more than the model's
own size. A codebook's bytes are its codec's affair.
"""

from __future__ import annotations

from ..codecs.sections import join, split
from ..codecs.teacher import Told
from ..errors import CodecError
from .codec_messages import read_places, write_places

__all__ = ["read_told", "told_bytes"]

#: In front of what is there: nothing and an empty something are two things.
_MARK = b"\x01"


def told_bytes(told: Told) -> bytes:
    """What is told, empty where it is nothing.

    >>> import numpy as np
    >>> read_told(told_bytes(Told(np.array([3, 4, 9]), b"codes")), size=10)
    Told(leader=array([3, 4, 9]), codebook=b'codes')
    >>> told_bytes(Told())
    b''
    """
    if told.leader is None and told.codebook is None:
        return b""
    places = b"" if told.leader is None else _MARK + write_places(told.leader)
    book = b"" if told.codebook is None else _MARK + told.codebook
    return join([places, book])


def read_told(data: bytes, size: int) -> Told:
    """Inverse of `told_bytes`, for vectors of that size.

    Raises:
        CodecError: places that are none of such a vector, or bytes that are not told so.
    """
    if not data:
        return Told()
    places, book = map(bytes, split(memoryview(data), 2))
    if any(part and not part.startswith(_MARK) for part in (places, book)):
        raise CodecError("places or a codebook without their mark; install the same flower-edge version on both sides")
    return Told(read_places(places[1:], size) if places else None, book[1:] if book else None)
