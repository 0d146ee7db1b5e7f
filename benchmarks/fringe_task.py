"""What fringe compression is measured on: the clutter pictures, three machines in a row, two links between them.

A residual network of 16, 32 and 64 channels (`fringe_base`) runs on three machines: its first four members, to layer 1,
on the first, layer 2 on the second, the rest on the third. What crosses is layer 1's output, 16x32x32 float32, and
layer 2's, 32x16x16; a frame has 24 bytes more. Times of links are modelled here: bytes over goodput, plus the delay.
Computing is left out of them, as in the figures this benchmark is held against. Nothing here trains or sends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from flower_edge.data.clutter import ClutterParts, clutter
from flower_edge.fringe.links import Link, attainable, inference
from flower_edge.fringe.wire import TensorSpec, Wire

__all__ = [
    "ACCEPTED_PERCENT",
    "CUT_AFTER",
    "CUT_SHAPES",
    "LINKS",
    "MACHINES",
    "best_reduction",
    "data_digest",
    "link_seconds",
    "parts",
    "plain_bytes",
    "plain_wires",
]


#: From the first machine to the second, and from the second to the third.
LINKS: Final = (Link(10e6, 0.010), Link(20e6, 0.005))
#: In the order they compute.
MACHINES: Final = ("camera", "gateway", "cloud")
#: Members of the model; a machine ends after each.
CUT_AFTER: Final = ("layer1", "layer2")
#: Shapes of one sample there.
CUT_SHAPES: Final = ((16, 32, 32), (32, 16, 16))
#: The test accuracy between which the task is as hard as it is meant to be.
ACCEPTED_PERCENT: Final = (94.0, 96.0)


@lru_cache(maxsize=1)
def parts(seed: int = 0) -> ClutterParts:
    """6,000 pictures to train with, 1,000 to decide with and 2,000 to report with; treat them as read-only."""
    return clutter(seed)


def data_digest(data: ClutterParts) -> str:
    """SHA-256 of all pictures and labels."""
    found = hashlib.sha256()
    for part in data:
        for array in (part.x, part.y):
            found.update(f"{array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def plain_wires() -> tuple[Wire, ...]:
    """Both connections before anything is compressed.

    >>> [wire.size_bytes() for wire in plain_wires()]
    [65560, 32792]
    """
    return tuple(
        Wire.plain([TensorSpec(name, shape)], connection)
        for connection, (name, shape) in enumerate(zip(CUT_AFTER, CUT_SHAPES, strict=True))
    )


def plain_bytes() -> tuple[int, ...]:
    """W: bytes of an inference at each connection."""
    return tuple(wire.size_bytes() for wire in plain_wires())


def link_seconds(sent_bytes: Sequence[float]) -> float:
    """T: what one inference spends on the links, given its bytes at each.

    >>> round(1e3 * link_seconds(plain_bytes()), 2)  # 62.448 + 18.117 ms
    80.56
    """
    return inference(sent_bytes, LINKS).latency_s


def best_reduction() -> float:
    """The share of T that is not propagation: no compression reaches more.

    >>> round(best_reduction(), 3)
    0.814
    """
    return attainable(plain_bytes(), LINKS).fraction
