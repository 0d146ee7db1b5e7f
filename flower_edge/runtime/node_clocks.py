"""`NodeClocks`: how far ahead the clocks of nodes are, as their replies show; for how long a message stays good.

A reply carries the time at which its node has made it, and Flower gives it what is left, by that clock, of its
message's time to live. Where nothing is left, a SuperLink takes no reply: a node whose clock is ahead by more than that
can never answer, and nobody is told why. Nothing here sends, or changes a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["CLOCKS_S", "UNHEARD_S", "NodeClocks"]

#: Seconds by which a node's clock may be ahead of its SuperLink's where nodes have keys; Flower refuses others.
CLOCKS_S: Final = 5.0
#: For a node that was not heard yet: what Flower grants in all else that it checks by a clock.
UNHEARD_S: Final = 300.0


class NodeClocks:
    """What was seen of nodes' clocks.

    Args:
        now: this machine's, in seconds since 1970.

    >>> clocks = NodeClocks(now=lambda: 1_800_000_000.0)
    >>> clocks.allowance_s(7)
    300.0
    >>> clocks.heard(7, made_s=1_800_000_020.0)
    >>> clocks.allowance_s(7)
    25.0
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._ahead_s: dict[int, float] = {}
        self._told: set[int] = set()

    def heard(self, node_id: int, made_s: float) -> None:
        """A reply has come that the node has made itself, at this time by its clock.

        It was on its way for some time, so the clock is ahead by this and that time: more than is noted. But a reply
        that is to come in time has to leave by so much earlier, too.
        """
        self._ahead_s[node_id] = max(self._ahead_s.get(node_id, 0.0), made_s - self._now())

    def allowance_s(self, node_id: int) -> float:
        """Seconds for which a message to this node has to be good beyond its round."""
        return CLOCKS_S + self._ahead_s[node_id] if node_id in self._ahead_s else UNHEARD_S

    def not_told_of(self, node_id: int) -> bool:
        """Whether the node was never heard, and this was not asked before."""
        if node_id in self._ahead_s or node_id in self._told:
            return False
        self._told.add(node_id)
        return True
