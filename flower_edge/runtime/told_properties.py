"""`ToldProperties`: what the nodes of a Grid have told about themselves so far, and the order that follows from it.

Nothing here asks: `GridProxy` does, and hands in what came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from logging import getLogger
from types import MappingProxyType
from typing import Any

from flwr.app import Message

from ..errors import WireError
from ..wire import error_reason
from .error_codes import NO_REPLY
from .node_properties import Property, properties_of

__all__ = ["ToldProperties"]

log = getLogger(__name__)


class ToldProperties:
    """Properties by node, of the nodes that were asked; those of one that told nothing are empty.

    >>> told = ToldProperties()
    >>> told.asked([7, 5])
    >>> told.unknown([5, 6, 7]), dict(told.of(7))
    ([6], {})
    >>> sorted([7, 6, 5], key=told.place)
    [5, 6, 7]
    """

    def __init__(self) -> None:
        self._of: dict[int, dict[str, Property]] = {}

    def unknown(self, node_ids: Iterable[int]) -> list[int]:
        """Those of the nodes that were not asked yet."""
        return [node_id for node_id in node_ids if node_id not in self._of]

    def asked(self, node_ids: Iterable[int]) -> None:
        """These are asked now; until they answer they have told nothing."""
        self._of.update({node_id: {} for node_id in node_ids})

    def heard(self, node_id: int, reply: Message) -> None:
        """What a node has answered, or a SuperLink in its place."""
        if not reply.has_error():
            try:
                self._of[node_id] = properties_of(reply)
            except WireError as error:
                log.warning("properties refused: %s", error)
        elif reply.error.code in NO_REPLY:
            # It went away before it could answer: asked again should it come back.
            del self._of[node_id]
        else:
            log.info("node %s tells no properties: %s", node_id, error_reason(reply))

    def of(self, node_id: int) -> Mapping[str, Property]:
        """What a node told; empty where it did not."""
        return MappingProxyType(self._of.get(node_id, {}))

    def place(self, node_id: int) -> tuple[float, str, int]:
        """Where a node stands in an order that repeats: by its `partition-id`, its `node-key`, its id."""
        told = self._of.get(node_id, {})
        partition = told.get("partition-id")
        return (partition if type(partition) is int else math.inf), str(told.get("node-key", "")), node_id

    def state(self) -> list[list[Any]]:
        """All of it, for a checkpoint."""
        return [[node_id, dict(told)] for node_id, told in self._of.items()]

    def restore(self, state: Iterable[Any]) -> None:
        """Inverse of `state`, beside what is known already."""
        self._of.update({node_id: dict(told) for node_id, told in state})
