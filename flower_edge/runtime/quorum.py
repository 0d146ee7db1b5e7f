"""How many replies are enough: `quorum_count`. Nothing here waits."""

from __future__ import annotations

import math

from ..errors import ConfigError

__all__ = ["quorum_count"]


def quorum_count(quorum: float, messages: int) -> int:
    """How many usable replies end a round: a fraction in (0, 1] of the messages (float) or a count (int).

    Raises:
        ConfigError: neither of the two.

    >>> quorum_count(0.8, 10), quorum_count(1.0, 10), quorum_count(3, 10), quorum_count(30, 10)
    (8, 10, 3, 10)
    """
    if isinstance(quorum, int) and not isinstance(quorum, bool) and quorum >= 1:
        return min(quorum, messages)
    if isinstance(quorum, float) and 0.0 < quorum <= 1.0:
        # 0.1 * 30 is 3.0000000000000004: without the slack a fraction would ask for one reply more than it says.
        return min(messages, max(1, math.ceil(quorum * messages - 1e-9)))
    raise ConfigError(f"quorum = {quorum!r}: expected a fraction in (0, 1] such as 0.8, or a count such as 8")
