"""What a device and the cloud say over a channel of split learning besides frames, and whose turn it is to say it.

    device dials     Hello(purpose="split", run=session, node=number, token, data={"round": round})
    device -> cloud  a frame
    cloud  -> device seconds it took to answer, 8 bytes, and the frame that answers
    ...              until the order's steps are made; then both close

Both ends and the edge between them read the order of frames from `exchanges`; nothing here sends or computes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ...errors import ProtocolError
from ...splitting.frame import Kind
from ...splitting.order import WorkOrder

__all__ = ["EDGE_KEY", "PURPOSE", "Exchange", "exchanges", "pack_answer", "token_purpose", "unpack_answer"]

#: What a device, or an edge in its name, dials for.
PURPOSE: Final = "split"
#: In the data of a hello that an edge passes on in a device's name.
EDGE_KEY: Final = "edge"
_SECONDS: Final = struct.Struct("<d")
#: Longer than any answer takes: what claims more is broken.
_LONGEST_S: Final = 1e6


@dataclass(frozen=True)
class Exchange:
    """One frame up and the one that answers it."""

    step: int
    asked: Kind
    answered: Kind


def exchanges(order: WorkOrder) -> Iterator[Exchange]:
    """All of one device's round, in order.

    >>> from flower_edge.splitting.order import ArchitectureSpec
    >>> model = ArchitectureSpec(name="mlp", input_shape=(4,), num_classes=2)
    >>> order = WorkOrder(round=1, number=0, architecture=model, cut=1, first_step=20, steps=1, batch_size=8)
    >>> [(one.step, one.asked.name, one.answered.name) for one in exchanges(order)]
    [(20, 'ACTIVATIONS', 'GRADIENT')]
    >>> u_shaped = order.model_copy(update={"labels": "device"})
    >>> [(one.step, one.asked.name, one.answered.name) for one in exchanges(u_shaped)]
    [(20, 'ACTIVATIONS', 'OUTPUTS'), (20, 'OUTPUT_GRADIENT', 'GRADIENT')]
    """
    for step in range(order.first_step, order.first_step + order.steps):
        if order.labels == "device":
            yield Exchange(step, Kind.ACTIVATIONS, Kind.OUTPUTS)
            yield Exchange(step, Kind.OUTPUT_GRADIENT, Kind.GRADIENT)
        else:
            yield Exchange(step, Kind.ACTIVATIONS, Kind.GRADIENT)


def token_purpose(round: int) -> str:
    """What a token admits to: one round of split learning.

    >>> token_purpose(3)
    'split/3'
    """
    return f"{PURPOSE}/{round}"


def pack_answer(busy_s: float, frame: bytes) -> bytes:
    """`busy_s` seconds from the last byte of the question to the answer, measured on the answering host's own clock,
    so that the device can tell the way from the waiting.

    >>> len(pack_answer(0.25, b"frame"))
    13
    """
    return _SECONDS.pack(busy_s) + frame


def unpack_answer(payload: bytes) -> tuple[float, bytes]:
    """Inverse of `pack_answer`.

    Raises:
        ProtocolError: too short, or seconds that cannot be.

    >>> unpack_answer(pack_answer(0.25, b"frame"))
    (0.25, b'frame')
    """
    if len(payload) < _SECONDS.size:
        raise ProtocolError(f"an answer of {len(payload)} bytes; expected {_SECONDS.size} of seconds and a frame")
    (busy_s,) = _SECONDS.unpack_from(payload)
    if not 0.0 <= busy_s <= _LONGEST_S or math.isnan(busy_s):
        raise ProtocolError(f"an answer that took {busy_s} s; expected 0 to {_LONGEST_S:g}")
    return busy_s, payload[_SECONDS.size :]
