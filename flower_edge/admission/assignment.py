"""`Assignment`: what a node was asked for, and so what may come back. A value; `gate` compares, nothing here sends.

An assignment is one message to one node: which part of the model, in which run and round, and what is known of the
node before it says anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..updates.manifest import ArrayPart, Manifest

__all__ = ["ROOM_BYTES", "STAMP_SCHEMA", "Assignment", "has_free_length", "needed_bytes", "stamp"]

#: Version of the stamp a node gives back, where it is asked to.
STAMP_SCHEMA: Final = "flower-edge.assignment/1"
#: Bytes that a reply may have beside its arrays: metrics, names, records of mods.
ROOM_BYTES: Final = 64 * 1024
#: Of the npy header of one array, with its name.
_HEADER_BYTES: Final = 1024
#: Of an array whose length is free.
_FREE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Assignment:
    """One message to one node, as the gate looks at it.

    Attributes:
        node: its key, as text.
        manifest: the arrays it is to send back.
        training: whether arrays come back at all; an evaluation brings metrics alone.
        edge: whether the node is an edge with terminals of its own: its weight is a sum, it may have nothing to say,
            and it may send what it has moved by in place of a model.
        run_id: of the run; `None` is not looked at.
        most_examples: what the node is enrolled with; 0 for one that is not enrolled, `None` where nobody said.
        most_bytes: of the whole reply; `None` is `needed_bytes`.
        stamp: what the node is to give back as it was sent; `None` where it was sent none.
    """

    node: str
    manifest: Manifest
    training: bool = True
    edge: bool = False
    run_id: int | None = None
    most_examples: int | None = None
    most_bytes: int | None = None
    stamp: Mapping[str, str] | None = None


def has_free_length(part: ArrayPart) -> bool:
    """Whether it is a byte string (one axis, uint8: a booster of Flower's XGBoost strategies), of any length.

    >>> has_free_length(ArrayPart((0,), ("uint8",), (0,))), has_free_length(ArrayPart((2, 2), ("uint8",), (2, 2)))
    (True, False)
    """
    return len(part.shape) == 1 and part.dtypes == ("uint8",) and part.index is None


def needed_bytes(manifest: Manifest, room_bytes: int = ROOM_BYTES) -> int:
    """Bytes a whole reply to this assignment can need: its arrays, their headers, 1 % and `room_bytes`.

    Of an array that may come in several dtypes the widest counts, of one of free length 256 MiB.

    >>> needed_bytes(Manifest({"w": ArrayPart((1000,), ("float32",), (1000,))}))
    70610
    """
    total = 0
    for part in manifest.arrays.values():
        if has_free_length(part):
            total += _FREE_BYTES
        else:
            total += math.prod(part.shape) * max(np.dtype(name).itemsize for name in part.dtypes)
        total += _HEADER_BYTES
    return total + total // 100 + room_bytes


def stamp(run_id: int | None, round: str, version: str, nonce: str) -> dict[str, str]:
    """What is sent to a node and comes back with its reply: texts, for a run's id need not fit a signed number.

    >>> stamp(7, "3.1", "ab12", "9f")["round"]
    '3.1'
    """
    return {
        "schema": STAMP_SCHEMA,
        "run": "" if run_id is None else str(run_id),
        "round": round,
        "version": version,
        "nonce": nonce,
    }
