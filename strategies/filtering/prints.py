"""Prints of models: whether a node sends the very arrays it has sent before. Nothing here refuses.

A print is a keyed hash of at most 4,096 numbers, at places that follow from a secret and from the arrays' names and
shapes: cheap beside reading the whole model, and nobody outside can tell which numbers to change. Arrays sent again
count as a replay only if the model that was sent out has changed since and is not itself what came back: a node that
does not move at all sends what it was given, and repeats nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flower_edge.admission.gate import OfferedArray
from flower_edge.updates.npy import npy_view

__all__ = ["Printer", "Sent", "is_replay", "with_prints"]

#: By node, the prints of what it was given and of what it sent, the last few.
Sent = Mapping[str, tuple[tuple[str, str], ...]]

_SAMPLE = 4096
#: Of one node, and nodes in all.
_KEPT, _NODES = 4, 100_000


class Printer:
    """Takes prints; made anew for every batch, in which models of one form share the places.

    Args:
        secret: at most 64 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._places: dict[str, list[npt.NDArray[np.intp]]] = {}

    def of(self, arrays: Mapping[str, OfferedArray]) -> str:
        """The print of these arrays, which the gate has let pass or the server itself has sent.

        Raises:
            WireError: bytes that are not the array their label says.
        """
        names = sorted(arrays)
        shapes = [tuple(arrays[name].shape) for name in names]
        form = "\x1e".join(f"{name}\x1f{arrays[name].dtype}\x1f{s}" for name, s in zip(names, shapes, strict=True))
        state = hashlib.blake2b(form.encode(), key=self._secret, digest_size=16)
        if form not in self._places:
            sizes = [math.prod(shape) for shape in shapes]
            self._places[form] = _places(sizes, int.from_bytes(state.digest(), "big"))
        for name, shape, places in zip(names, shapes, self._places[form], strict=True):
            if len(places):
                array = arrays[name]
                view = npy_view(array.data, array.dtype, shape)
                state.update(view.reshape(-1)[places].tobytes())
        return state.hexdigest()


def _places(sizes: list[int], seed: int) -> list[npt.NDArray[np.intp]]:
    """Of each array, which of its numbers are looked at."""
    total = sum(sizes)
    chosen = np.arange(total)
    if total > _SAMPLE:
        chosen = np.unique(np.random.default_rng(seed).integers(0, total, _SAMPLE))
    ends = np.cumsum([0, *sizes])
    parts = np.split(chosen, np.searchsorted(chosen, ends[1:-1]))
    return [part - start for part, start in zip(parts, ends, strict=False)] if sizes else []


def is_replay(sent: Sent, node: str, base: str, came: str) -> bool:
    """Whether the node has sent these very arrays before, from another model, and was not given them now.

    >>> sent = {"7": (("model 1", "reply 1"),)}
    >>> is_replay(sent, "7", "model 2", "reply 1"), is_replay(sent, "7", "model 1", "reply 1")
    (True, False)
    """
    if came == base:
        return False
    return any(came == before and base != from_model for from_model, before in sent.get(node, ()))


def with_prints(sent: Sent, new: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """What has been sent so far, and these: node, print of its base, print of what came. The oldest are forgotten."""
    out = dict(sent)
    for node, base, came in new:
        out[node] = (*out.pop(node, ()), (base, came))[-_KEPT:]
    while len(out) > _NODES:
        out.pop(next(iter(out)))
    return out
