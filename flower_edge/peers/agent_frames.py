"""Frames between a node's mailbox and the agent beside it, over a Unix socket: a small JSON object, then bytes.

    length of the JSON, 4 bytes · JSON with `body_bytes` · that many bytes

Both ends are of one user on one host, and still nothing is believed: lengths are bounded before anything is set aside,
and there is no pickle. Nothing here knows what a frame asks.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..errors import PeerError

__all__ = ["HEAD_BYTES", "body_of", "read_exactly", "read_head", "send_head"]

#: The longest JSON of a frame. A round's table is the largest there is.
HEAD_BYTES: Final = (1 << 20) + (1 << 16)
_CHUNK_BYTES: Final = 1 << 20
_LENGTH: Final = struct.Struct(">I")


def send_head(channel: socket.socket, head: Mapping[str, Any], body_bytes: int = 0) -> None:
    """Send a frame's JSON; the body is for the caller to send.

    Raises:
        PeerError: it is too long.
        OSError: the other end is gone.
    """
    data = json.dumps({**head, "body_bytes": body_bytes}, allow_nan=False, separators=(",", ":")).encode()
    if len(data) > HEAD_BYTES:
        raise PeerError(f"{len(data)} bytes for an agent in one frame, the most is {HEAD_BYTES}; make smaller groups")
    channel.sendall(_LENGTH.pack(len(data)) + data)


def read_head(channel: socket.socket) -> dict[str, Any] | None:
    """The JSON of the next frame; None where the other end has closed between two frames.

    Raises:
        PeerError: no frame.
        OSError: the other end is gone.
    """
    first = channel.recv(1)
    if not first:
        return None
    (length,) = _LENGTH.unpack(first + read_exactly(channel, _LENGTH.size - 1))
    if not 2 <= length <= HEAD_BYTES:
        raise PeerError(f"a frame that announces {length} bytes of JSON, expected 2 to {HEAD_BYTES}")
    try:
        head = json.loads(read_exactly(channel, length))
    except (ValueError, RecursionError):
        raise PeerError("a frame that is no JSON of ours; is the other end flower-edge, of this version?") from None
    body = head.get("body_bytes") if isinstance(head, dict) else None
    if not isinstance(head, dict) or type(body) is not int or body < 0:
        raise PeerError("a frame that does not say how many bytes follow; is the other end flower-edge?")
    return head


def read_exactly(channel: socket.socket, count: int) -> bytes:
    """So many bytes.

    Raises:
        ConnectionError: the other end has closed before.
    """
    return b"".join(body_of(channel, count))


def body_of(channel: socket.socket, count: int) -> Iterator[bytes]:
    """A body as it comes, in pieces of up to 1 MiB: memory grows with what came, not with what was announced.

    Raises:
        ConnectionError: the other end has closed before the end.
    """
    left = count
    while left:
        data = channel.recv(min(left, _CHUNK_BYTES))
        if not data:
            raise ConnectionError(f"the other end has closed with {left} of {count} bytes still to come")
        left -= len(data)
        yield data
