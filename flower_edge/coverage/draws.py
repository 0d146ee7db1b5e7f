"""Random numbers that are looked up, not drawn in turn: one for every (node, turn), in any order, for any nodes.

What a node does next then depends neither on how many nodes there are nor on who was asked before. A NumPy Generator
hands numbers out in sequence; for nodes that are each at a turn of their own it would have to draw and throw away all
the others. Nothing here keeps state.

The numbers are those of SplitMix64: node i has a generator of its own, seeded with output i of the common one; its
output t is the number of turn t.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .arguments import Floats, Indices

__all__ = ["Draws", "outputs"]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def outputs(seeds: NDArray[np.uint64], turns: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Output `turns`, counted from 0, of the SplitMix64 generators with these seeds; arrays that broadcast.

    >>> outputs(np.array([1234567], np.uint64), np.arange(2, dtype=np.uint64))
    array([6457827717110365317, 3203168211198807973], dtype=uint64)
    """
    x = seeds + _STEP * (turns + np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return np.asarray(x ^ (x >> np.uint64(31)))


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1) for one purpose; other purposes with the same seed have others.

    >>> speed = Draws(7, "speed")
    >>> bool((speed.uniform(np.arange(9), 3)[:4] == speed.uniform(np.arange(4), 3)).all())
    True
    """

    seed: int
    purpose: str
    _key: NDArray[np.uint64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(f"{self.purpose}\x1f{int(self.seed)}".encode(), digest_size=8).digest()
        object.__setattr__(self, "_key", np.array([int.from_bytes(digest, "big")], dtype=np.uint64))

    def uniform(self, nodes: Indices, turns: Indices | int) -> Floats:
        """The number of each node at its turn, float64 [nodes] in [0, 1).

        Args:
            nodes: int64 [nodes], 0 or more.
            turns: int64 [nodes], or one for all; 0 or more.
        """
        own = outputs(self._key, nodes.astype(np.uint64))
        words = outputs(own, np.atleast_1d(np.asarray(turns)).astype(np.uint64))
        return np.asarray((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)
