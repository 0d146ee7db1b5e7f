"""`AgentLimits`: what neighbours can cost an agent, and how long anything waits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from ...errors import ConfigError
from ...transport.transport import Limits

__all__ = ["CHUNK_BYTES", "LEAST_CHUNK_BYTES", "AgentLimits"]

#: The longest piece of a letter, and the shortest that a link without a rate begins with.
CHUNK_BYTES: Final = 1 << 20
LEAST_CHUNK_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class AgentLimits:
    """Bounds of an agent.

    Attributes:
        letter_bytes: the longest letter taken.
        spare_bytes: room on the disk that letters leave alone.
        connections: of neighbours, all together.
        per_peer: connections of one certificate.
        runs: that are known at the same time; the one that was told of longest ago is given up for a new one.
        rounds: of a run, of which it is known who may send; further ones are given up.
        keepalive_s: each end says something at least that often; after twice that a neighbour that hangs is given up.
        chunk_s: the most between two pieces of a letter.
        answer_s: the most until an offer is answered, and until a letter whose last piece has left is acknowledged.
        least_bps: a letter that comes more slowly than this, over a minute or more, is given up.
        retry_s: the longest pause between two tries to deliver.
        direct_again_s: for how long a neighbour that could not be reached is not tried directly again.

    Raises:
        ConfigError: a number that is not above 0.
    """

    letter_bytes: int = 1 << 30
    spare_bytes: int = 1 << 26
    connections: int = 256
    per_peer: int = 4
    runs: int = 8
    rounds: int = 1024
    keepalive_s: float = 3.0
    chunk_s: float = 60.0
    answer_s: float = 60.0
    least_bps: float = 2048.0
    retry_s: float = 2.0
    direct_again_s: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1 << 53:
                raise ConfigError(f"AgentLimits({each.name}={value!r}): expected a number above 0")

    def transport(self) -> Limits:
        """Of the channels: two pieces of a letter per connection, whatever the letter's length."""
        return Limits(
            message_bytes=2 * CHUNK_BYTES,
            chunk_bytes=CHUNK_BYTES,
            connections=self.connections,
            close_s=2.0,
            keepalive_s=self.keepalive_s,
        )
