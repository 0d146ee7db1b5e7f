"""Flower's error codes that we write or read, in one place.

They are numbers on the wire; Flower names them in `flwr.common.constant.ErrorCode`, which is not public. Nothing here
makes or reads a message.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CLIENT_RAISED",
    "DECLINED",
    "MESSAGE_UNAVAILABLE",
    "NODE_UNAVAILABLE",
    "NO_REPLY",
    "REFUSED",
    "REPLY_UNAVAILABLE",
]

#: The client raised, or answered with something that is no reply.
CLIENT_RAISED: Final = 2
#: The SuperLink does not have the message (any more), or did not take it.
MESSAGE_UNAVAILABLE: Final = 3
#: The SuperLink does not have the reply (any more).
REPLY_UNAVAILABLE: Final = 4
#: The node is gone.
NODE_UNAVAILABLE: Final = 5
#: What a SuperLink answers in a node's place.
NO_REPLY: Final = frozenset({MESSAGE_UNAVAILABLE, REPLY_UNAVAILABLE, NODE_UNAVAILABLE})
#: The server has not accepted what came back; ours, far above Flower's own.
REFUSED: Final = 1001
#: The terminal does not take part this time, for the reason it gives; ours, too.
DECLINED: Final = 1002
