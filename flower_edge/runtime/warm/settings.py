"""What can be chosen of a warm node, checked where it is chosen. Nothing here starts anything."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from ...errors import ConfigError

__all__ = ["WarmSettings"]

#: Flower's own SuperNode sleeps so long between two looks; longer would be no gain.
_STOCK_POLL_S: Final = 3.0
#: Below this a look costs more of a small device than the message it may find.
_LEAST_POLL_S: Final = 0.01


@dataclass(frozen=True)
class WarmSettings:
    """How often a warm node looks for messages, and how long its executors last.

    Attributes:
        poll_s: seconds between two looks for a message, while messages come.
        quiet_poll_s: the same after `quiet_after_s` without a message; spares the SuperLink and the battery.
        quiet_after_s: seconds.
        recycle_after: messages after which an executor is replaced by a new process; 0: never.
        memory_mb: resident memory in megabytes (10^6 bytes) above which it is replaced after a message; 0: any.
        keep: for how many runs an executor is kept at the same time, each in a process of its own.
        idle_s: seconds without a message after which an executor lets go of its app, and of the memory it takes.

    Raises:
        ConfigError: a number that cannot be meant.

    >>> WarmSettings(poll_s=0.05).poll(since_message_s=1.0)
    0.05
    >>> WarmSettings(poll_s=0.05).poll(since_message_s=60.0)
    1.0
    >>> WarmSettings(recycle_after=100).worn(messages=100, rss_bytes=0)
    'it has worked on 100 messages'
    """

    poll_s: float = 0.1
    quiet_poll_s: float = 1.0
    quiet_after_s: float = 30.0
    recycle_after: int = 0
    memory_mb: float = 0.0
    keep: int = 1
    idle_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("poll_s", "quiet_poll_s", "quiet_after_s", "memory_mb", "idle_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"{name} = {value!r}: expected a number, 0 or more")
        for name, least in (("recycle_after", 0), ("keep", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} = {value!r}: expected a whole number, {least} or more")
        for name in ("poll_s", "quiet_poll_s"):
            if not _LEAST_POLL_S <= getattr(self, name) <= _STOCK_POLL_S:
                raise ConfigError(
                    f"{name} = {getattr(self, name):g}: expected {_LEAST_POLL_S:g} to {_STOCK_POLL_S:g} s, "
                    "the latter is what Flower's own SuperNode does"
                )

    def poll(self, since_message_s: float) -> float:
        """Seconds to the next look, when the last message came so long ago."""
        return self.poll_s if since_message_s < self.quiet_after_s else max(self.poll_s, self.quiet_poll_s)

    def worn(self, messages: int, rss_bytes: int) -> str:
        """Why an executor should be replaced after a message, in words; empty if it should not."""
        if self.recycle_after and messages >= self.recycle_after:
            return f"it has worked on {messages} messages"
        if self.memory_mb and rss_bytes > self.memory_mb * 1e6:
            return f"it holds {rss_bytes / 1e6:.0f} MB, more than {self.memory_mb:g} MB"
        return ""

    def to_json(self) -> str:
        """For the command line of another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`.

        Raises:
            ConfigError: it is not of these settings.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(**values)
        except (TypeError, ValueError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise ConfigError(f"{error}; expected a JSON object of {names}") from None
