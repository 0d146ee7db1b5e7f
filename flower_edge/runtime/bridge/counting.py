"""Which terminals an edge has counted, by keys that mean the same at every edge, and in an order that grows.

A node id is one SuperLink's number: the same terminal has another at the next edge, and one more after a restart
without a key. A centre that counts a terminal once needs its own name, which the terminal tells (`node-key`, else its
`partition-id`), and which of two edges had it last. No clock is compared: a terminal tells how often it has attached
itself (`attachment`), and within one attachment the number of the edge round counts. Nothing here sends.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Final

from ...rounds import Round
from ..grid_proxy import GridProxy

__all__ = ["Counted", "StableKey", "stable_key"]

#: Of a node id: the terminal's key, and how often it has attached itself.
StableKey = Callable[[int], tuple[str, int]]
#: An order of acceptance is one whole number of 63 bits: attachment, edge round, and the cell, so that none is twice.
_MOST_ATTACHMENTS, _MOST_ROUNDS, _CELLS = 1 << 20, 1 << 24, 1 << 16
#: The longest key a terminal may tell.
_LONGEST: Final = 100


def stable_key(proxy: GridProxy) -> StableKey:
    """Keys as terminals tell them in their properties; of one that tells none, `node-<its id>`."""

    def key_of(node_id: int) -> tuple[str, int]:
        told = proxy.properties(node_id)
        partition = told.get("partition-id")
        usual = f"node-{node_id}" if partition is None else f"partition-{partition}"
        attached = told.get("attachment", 0)
        count = attached if type(attached) is int and 0 <= attached < _MOST_ATTACHMENTS else 0
        return str(told.get("node-key") or usual)[:_LONGEST], count

    return key_of


class Counted:
    """Collects what `EdgeRounds` accepts, for the report of one cloud round."""

    def __init__(self, stable: StableKey) -> None:
        self._stable = stable
        self._entries: dict[str, tuple[float, int]] = {}
        self._before: dict[str, tuple[float, int]] = {}
        self._rounds = 0

    def begin(self) -> None:
        """A cloud round begins. What was accepted alone since the last one stays: it goes up with this one."""
        self._before = dict(self._entries)
        self._rounds = 0 if not self._entries else self._rounds

    def undo(self) -> None:
        """The cloud round that has begun came to nothing."""
        self._entries = dict(self._before)

    def note(self, round: Round, weights: Mapping[int, float]) -> None:
        """An edge round has merged these weights, by node id."""
        self._rounds += 1
        for node_id, weight in weights.items():
            key, attached = self._stable(node_id)
            number = min(self._rounds, _MOST_ROUNDS - 1)
            order = (attached * _MOST_ROUNDS + number) * _CELLS + zlib.crc32(round.cell.encode()) % _CELLS
            self._entries[key] = (float(weight), order)

    def lists(self) -> tuple[list[str], list[float], list[int]]:
        """Keys, weights and orders of what was accepted since the last call, sorted by key."""
        entries, self._entries = sorted(self._entries.items()), {}
        weights = [weight for _, (weight, _) in entries]
        return [key for key, _ in entries], weights, [order for _, (_, order) in entries]
