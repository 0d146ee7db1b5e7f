"""Which executor gets a message, which is replaced, and what becomes of a message whose executor died.

All of it happens in the SuperNode's one thread: when a message is there, and while the SuperNode would sleep. The
SuperNode works on one message at a time, and so does the pool. Nothing here looks for messages.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from logging import getLogger
from typing import Any, Final

from ..flower_private_node import CLIENT_APP, Claim, claim_task, let_expire, start_stock_task, task_over
from .executor import Executor
from .settings import WarmSettings

__all__ = ["ExecutorPool"]

log = getLogger("flwr.flower-edge")

#: Executors in a row that ended before they had taken a message. Then it is not the message.
_FALSE_STARTS: Final = 3
#: For so long a message waits for an executor to hand back the state of the one before.
_TURN_S: Final = 60.0
#: The same for one that has handed it back, or cannot any more, to say so.
_OVER_S: Final = 1.0


class ExecutorPool:
    """The executors of one node.

    Args:
        address: HOST:PORT of the SuperNode's Runtime API.
        settings: when an executor is replaced, and how many are kept.
        start: starts an executor; the one there is unless you bring your own.
        stock: hands a message to Flower's own program instead.
    """

    def __init__(
        self,
        address: str,
        settings: WarmSettings,
        start: Callable[[str], Executor] = Executor,
        stock: Callable[[str, Claim], None] = start_stock_task,
    ) -> None:
        self.settings = settings
        self._address = address
        self._start, self._stock = start, stock
        self._executors: list[Executor] = []
        self._false_starts = 0
        self._state: Any = None
        self.closed = False
        self.refill()

    @property
    def executors(self) -> tuple[Executor, ...]:
        """Those that live, as far as is known."""
        return tuple(self._executors)

    @property
    def warm(self) -> bool:
        """Whether executors are used at all; not after some in a row could not be started."""
        return self._false_starts < _FALSE_STARTS

    def stored(self, state: Any) -> None:
        """A message has been put into the SuperNode's state: have it worked on."""
        self._state = state
        self._end_turn()
        self._hand_out()

    def _end_turn(self) -> None:
        """The SuperNode has the reply to the message before; let the executor hand back the node's state as well.

        One that is stopped, or cut off, never does: Flower has then given up its message, and it is ended.
        """
        began_s = time.monotonic()
        while any(executor.claim for executor in self._executors):
            self.look(0.05)
            waited_s = time.monotonic() - began_s
            for executor in list(self._executors):
                if executor.claim and waited_s > (_OVER_S if task_over(self._state, executor.claim) else _TURN_S):
                    self._retire(executor, "its message is over, and it is not")

    def _hand_out(self) -> None:
        while (claim := claim_task(self._state)) is not None:
            executor = self._chosen(claim) if claim.kind == CLIENT_APP else None
            if executor is None:
                self._stock(self._address, claim)
            elif not executor.give(claim):
                # It is claimed and not begun. To be looked after at once, not when somebody looks next.
                self._bury(executor)

    def _chosen(self, claim: Claim) -> Executor | None:
        key = (claim.run_id, claim.fab_hash)
        for executor in self._executors:
            if executor.bound == key and executor.claim is None:
                return executor
        free = next((executor for executor in self._executors if executor.bound is None), None)
        bound = sorted((e for e in self._executors if e.bound and not e.claim), key=lambda e: e.used_s)
        for executor in bound[: max(0, len(bound) - self.settings.keep + 1)]:
            self._retire(executor, "another run needs its place")
        return free or self._begin()

    def look(self, wait_s: float) -> None:
        """Sleep for so long at most, or until an executor has told something, and take it in."""
        if self._executors:
            told, _, _ = select.select(self._executors, [], [], wait_s)
        else:
            time.sleep(wait_s)
            told = []
        del told  # all are looked at: a child of a dead one may hold its socket open
        for executor in list(self._executors):
            worked = executor.messages
            alive = executor.look()
            if executor.messages > worked:
                self._false_starts = 0
            if not alive:
                self._bury(executor)
            elif executor.claim is None and executor.bound:
                idle_s = time.monotonic() - executor.used_s
                reason = self.settings.worn(executor.messages, executor.rss_bytes)
                if not reason and idle_s > self.settings.idle_s:
                    reason = f"no message came for {idle_s:.0f} s"
                if reason:
                    self._retire(executor, reason)
        self.refill()

    def refill(self) -> None:
        """Start an executor where none lives, so that the next message need not wait for one."""
        if not self._executors and self.warm and not self.closed:
            self._begin()

    def _begin(self) -> Executor | None:
        if not self.warm or self.closed:
            return None
        try:
            executor = self._start(self._address)
        except OSError as error:
            self._false_start(str(error))
            return None
        self._executors.append(executor)
        return executor

    def _false_start(self, reason: str) -> None:
        self._false_starts += 1
        if not self.warm:
            log.warning(
                "flower-edge node: %d executors in a row did not start (the last: %s); from now on messages are "
                "worked on as Flower does, in a new flwr-clientapp each",
                self._false_starts,
                reason,
            )

    def _retire(self, executor: Executor, reason: str) -> None:
        log.info("flower-edge node: executor %d ends: %s", executor.pid, reason)
        self._executors.remove(executor)
        executor.close()

    def _bury(self, executor: Executor) -> None:
        self._executors.remove(executor)
        claim, code = executor.claim, executor.close()
        again = claim is not None and let_expire(self._state, claim)
        log.warning(
            "flower-edge node: executor %d died (exit code %d)%s",
            executor.pid,
            code,
            "" if claim is None else "; its message is given to another" if again else " in the middle of a message",
        )
        if again or not executor.ready:
            self._false_start(f"exit code {code}")
        if again:
            self._hand_out()

    def close(self) -> None:
        """End all executors, also one that works on a message."""
        self.closed = True
        executors, self._executors = self._executors, []
        for executor in executors:
            executor.let_go()
        for executor in executors:
            executor.close()
