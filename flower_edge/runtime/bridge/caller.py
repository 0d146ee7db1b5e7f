"""Asking an edge over its bridge, from another program of the same machine, until it answers or time is up.

An edge that is away is waited for: its ServerApp may be starting again. The same order may be asked any number of
times; the edge does it once. Nothing here knows what an order means.
"""

from __future__ import annotations

import time
from typing import Final

from flwr.app import RecordDict

from ...errors import ProtocolError, TransportError
from .channel import dial
from .messages import FRAME_BYTES, Answer, Ask, Status, body_of, content_of
from .place import BridgePlace

__all__ = ["ask_edge", "edge_status"]

#: Between two attempts to reach an edge that is away.
_AGAIN_S: Final = 0.2


def ask_edge(
    place: BridgePlace, kind: str, run: str, content: RecordDict, *, within_s: float, frame_bytes: int = FRAME_BYTES
) -> RecordDict:
    """Have an edge handle a message of its centre, and return the content of its reply.

    Args:
        place: the bridge's folder.
        kind: the message's type.
        run: name of the centre's run.
        content: the message's content.
        within_s: the most to wait, restarts of the edge included.
        frame_bytes: the longest reply taken.

    Raises:
        ProtocolError: the edge did not answer in time, or says why it cannot.
    """
    latest_s = time.monotonic() + within_s
    body, trouble = body_of(content), "it has never listened here"
    while (left_s := latest_s - time.monotonic()) > 0:
        address = place.address()
        if address is not None and address.gone:
            trouble = f"the process {address.process['pid']} that listened for it has ended"
        elif address is not None:
            try:
                with dial(address.port, place.key(), most_bytes=frame_bytes, latest_s=latest_s) as channel:
                    ask = Ask(what="handle", run=run, kind=kind, within_s=left_s)
                    channel.send(ask.to_bytes(), latest_s=latest_s)
                    channel.send(body, latest_s=latest_s)
                    answer = Answer.from_bytes(channel.receive(latest_s=latest_s))
                    reply = channel.receive(latest_s=latest_s) if answer.ok else b""
            except TransportError as error:
                trouble = str(error)
            else:
                if answer.ok:
                    return content_of(reply)
                if not answer.reason.endswith("ask again"):
                    raise ProtocolError(answer.reason)
                trouble = answer.reason
        time.sleep(max(0.0, min(_AGAIN_S, latest_s - time.monotonic())))
    raise ProtocolError(
        f"the edge behind {place.folder} did not answer within {within_s:.0f} s: {trouble}; "
        "is its run going? `flower-edge edge` starts it and keeps it going"
    )


def edge_status(place: BridgePlace, *, within_s: float = 5.0) -> Status:
    """How things are at an edge.

    Raises:
        TransportError: it does not answer.
        ConfigError: the key cannot be used.
        ProtocolError: it answered something else.
    """
    address = place.address()
    if address is None:
        raise TransportError(f"nobody has listened in {place.folder} yet")
    latest_s = time.monotonic() + within_s
    with dial(address.port, place.key(), most_bytes=1 << 16, latest_s=latest_s) as channel:
        channel.send(Ask(what="status", within_s=within_s).to_bytes(), latest_s=latest_s)
        return Status.from_bytes(channel.receive(latest_s=latest_s))
