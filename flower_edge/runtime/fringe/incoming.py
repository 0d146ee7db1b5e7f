"""What comes to a stage, read: messages of a channel until it ends, frames and their heads, whole numbers of asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from ...errors import ProtocolError, TransportRefused
from ...fringe.wire import HEADER_BYTES, FrameHead, Wire, unchecked_head
from ...transport.transport import Connection, TransportTimeout

__all__ = ["head_of", "messages_of", "tensors_of", "whole_number"]


def messages_of(connection: Connection) -> Iterator[bytes]:
    """What comes, until the channel ends. Whoever has nothing to say for a while is still there."""
    while True:
        try:
            yield connection.receive(3600.0)
        except TransportTimeout:
            continue


def head_of(data: bytes) -> FrameHead:
    """The head of a frame whose wire is not known yet.

    Raises:
        TransportRefused: too short to be a frame; whom to answer is unknown.
    """
    try:
        return unchecked_head(data)
    except ProtocolError as error:
        raise TransportRefused(str(error), "bad-frame") from error


def tensors_of(wire: Wire, data: bytes) -> tuple[npt.NDArray[Any], ...]:
    """Of a frame, [batch, ...] each; of one that carries nothing, none.

    Raises:
        ProtocolError: no frame of this wire.
    """
    if len(data) == HEADER_BYTES and wire.head(data).samples == 0:
        return ()
    return wire.decode(data)


def whole_number(ask: Mapping[str, Any], name: str) -> int:
    """What was asked under a name, if it may be the number of a version.

    Raises:
        ProtocolError: another value, or none.

    >>> whole_number({"version": 3}, "version")
    3
    """
    value = ask.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**32:
        raise ProtocolError(f"{name} = {value!r:.40}: expected a whole number, 1 to 2^32 - 1")
    return value
