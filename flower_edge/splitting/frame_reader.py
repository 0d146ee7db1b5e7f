"""`Reader`: takes bytes from the front of a frame, and says what is wrong with it. It believes no length."""

from __future__ import annotations

import struct
from typing import Any

from ..errors import ProtocolError

__all__ = ["Reader"]


class Reader:
    """What of a frame has not been read yet.

    Args:
        data: as received.
        what: begins each error: whose frame, and what was expected.

    >>> reader = Reader(bytes([1, 0, 7]), "a frame")
    >>> reader.unpack(struct.Struct("<H"), "its head")
    (1,)
    >>> reader.take(2, "labels")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ProtocolError: a frame: labels of 2 bytes, but 1 are left; it was cut, or altered
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._left = memoryview(data)
        self._what = what

    def error(self, message: str) -> ProtocolError:
        """To be raised."""
        return ProtocolError(f"{self._what}: {message}")

    def take(self, count: int, what: str) -> memoryview:
        """The next bytes.

        Raises:
            ProtocolError: fewer are left.
        """
        if count > len(self._left):
            raise self.error(f"{what} of {count} bytes, but {len(self._left)} are left; it was cut, or altered")
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def unpack(self, form: struct.Struct, what: str) -> tuple[Any, ...]:
        """The next values of that form."""
        return form.unpack(self.take(form.size, what))

    def same(self, name: str, came: object, expected: object, *, hint: str = "") -> None:
        """Refuse another value than the one expected."""
        if came != expected:
            raise self.error(f"{name} = {came}, expected {expected}" + (f"; {hint}" if hint else ""))

    def end(self) -> None:
        """Refuse what should not be there any more."""
        if len(self._left):
            raise self.error(f"{len(self._left)} bytes more than it needs; it was altered")
