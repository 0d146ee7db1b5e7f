"""Messages to pieces and back: the bytes inside the stream. Nothing here waits or sends.

    FIRST  length of the whole message, 8 bytes · data        MORE  data
    PING   8 bytes to be sent back · PONG  those              OPEN · ALIVE · BYE  nothing

Each piece is one message of the stream and begins with a byte that says which it is. A message is FIRST and as many
MORE as its length needs; PING, PONG, ALIVE and BYE may come in between. An announced length above the limit is refused
before anything is set aside for it, and what is set aside grows with what came, not with what was announced.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Final

from ..errors import TransportRefused

__all__ = ["ALIVE", "BYE", "FIRST", "MORE", "MOST_HEAD_BYTES", "OPEN", "PING", "PONG", "Assembly", "piece"]

FIRST: Final = 1
MORE: Final = 2
PING: Final = 3
PONG: Final = 4
OPEN: Final = 5
BYE: Final = 6
ALIVE: Final = 7

_LENGTH: Final = struct.Struct(">BQ")
#: What a piece has around its data, at most.
MOST_HEAD_BYTES: Final = _LENGTH.size


def piece(payload: bytes, start: int, data_bytes: int) -> bytes:
    """The piece of a message that begins at `start`.

    >>> piece(b"abc", 0, 2)
    b'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x03ab'
    >>> piece(b"abc", 2, 2)
    b'\\x02c'
    """
    head = _LENGTH.pack(FIRST, len(payload)) if start == 0 else bytes([MORE])
    return b"".join((head, memoryview(payload)[start : start + data_bytes]))


class Assembly:
    """The message that is coming in.

    >>> assembly = Assembly(most_bytes=3)
    >>> assembly.take(piece(b"abc", 0, 2))
    >>> assembly.take(piece(b"abc", 2, 2))
    b'abc'
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._missing = 0
        self._parts = BytesIO()

    @property
    def begun(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._missing > 0

    def take(self, data: bytes) -> bytes | None:
        """A FIRST or MORE piece; the message, once it is whole.

        Raises:
            TransportRefused: `too-large` or `bad-piece`.
        """
        if data[0] == FIRST:
            if self._missing or len(data) < _LENGTH.size:
                raise TransportRefused("a message begins within another, or without a length", "bad-piece")
            _, length = _LENGTH.unpack_from(data)
            if length > self._most_bytes:
                raise TransportRefused(
                    f"a message of {length} bytes was announced, the most is {self._most_bytes}; raise "
                    "Limits(message_bytes=…) where it is received",
                    "too-large",
                )
            start = _LENGTH.size
            if len(data) - start == length:
                return data[start:]
            self._missing = length
        else:
            if not self._missing:
                raise TransportRefused("a piece that belongs to no message", "bad-piece")
            start = 1
        size = len(data) - start
        if not 0 < size <= self._missing:
            raise TransportRefused(f"a piece of {size} bytes where 1 to {self._missing} were missing", "bad-piece")
        self._parts.write(memoryview(data)[start:])
        self._missing -= size
        if self._missing:
            return None
        # A BytesIO hands over its own buffer: the message is not copied once more.
        whole, self._parts = self._parts.getvalue(), BytesIO()
        return whole
