"""`ShortPolling`: a Grid that looks for replies every tenth of a second. Flower's own looks every three seconds.

It uses `push_messages` and `pull_messages` of the Grid it is around, both public, and can be put around any. Flower's
own Grid is besides told not to wait for half a reply (`flower_private_grid`, where what that touches is there). It
changes nothing of what is sent or what comes; only how soon a reply is seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from logging import getLogger
from typing import Any, Final

from flwr.app import Message
from flwr.serverapp import Grid

from ..errors import ConfigError
from .flower_private_grid import take_whole_replies
from .wrapped_grid import WrappedGrid, chain

__all__ = ["ShortPolling"]

log = getLogger(__name__)

#: Each look is a request; and where replies are taken by Flower's own Grid, one that is not whole costs a second.
_LEAST_POLL_S: Final = 0.05
#: Flower's own Grid looks every so many seconds; nothing is gained by looking less often.
_STOCK_POLL_S: Final = 3.0
#: Of the time an exchange has taken so far. A round of ten minutes is not looked at six thousand times.
_SHARE: Final = 0.02


class ShortPolling(WrappedGrid):
    """Looks for replies every `poll_s`, and less often the longer an exchange takes: it adds 2 % at most.

    Give it to a strategy instead of the Grid: `strategy.start(grid=ShortPolling(grid), ...)`.

    Args:
        inner: the Grid of the ServerApp.
        poll_s: seconds between two looks at the beginning of an exchange, 0.05 to 3.

    Raises:
        ConfigError: `poll_s` is out of that range.
    """

    def __init__(self, inner: Grid, poll_s: float = 0.1) -> None:
        if not (math.isfinite(poll_s) and _LEAST_POLL_S <= poll_s <= _STOCK_POLL_S):
            raise ConfigError(
                f"poll_s = {poll_s!r}: expected {_LEAST_POLL_S:g} to {_STOCK_POLL_S:g} s; below, looking "
                "costs the SuperLink more than it gains"
            )
        super().__init__(inner)
        for link in chain(inner):
            take_whole_replies(link)
        self.poll_s = poll_s

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies.

        Args:
            messages: any number.
            timeout: seconds after which those are returned that have come; `None`: all are waited for.

        Returns:
            The replies, in the order in which their messages were given, so that sums over them do not depend on who
            was faster. A message that could not be sent has none.
        """
        pushed: list[Any] = list(self.inner.push_messages(list(messages)))
        waiting = {identity for identity in pushed if identity}
        if len(waiting) < len(pushed):
            log.warning("%d of %d messages could not be sent; their replies are not waited for",
                        len(pushed) - len(waiting), len(pushed))  # fmt: skip
        began_s = time.monotonic()
        replies: list[Message] = []
        while waiting:
            came = list(self.inner.pull_messages(sorted(waiting)))
            replies += came
            waiting.difference_update(reply.metadata.reply_to_message_id for reply in came)
            passed_s = time.monotonic() - began_s
            pause_s = min(_STOCK_POLL_S, max(self.poll_s, _SHARE * passed_s))
            if timeout is not None:
                if passed_s >= timeout:
                    break
                pause_s = min(pause_s, timeout - passed_s)
            if waiting:
                time.sleep(pause_s)
        place = {identity: number for number, identity in enumerate(pushed)}
        return sorted(replies, key=lambda reply: place[reply.metadata.reply_to_message_id])
