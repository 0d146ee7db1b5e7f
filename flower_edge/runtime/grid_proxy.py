"""`GridProxy`: what every strategy needs around Flower's own Grids; on the wire it adds one question per node.

Flower's `HttpGrid` polls every three seconds, waits for the last node, labels the errors it makes itself with source
1, and lists nodes in an order that changes from run to run. Around it (or around `LocalGrid`) this proxy polls
shortly, ends a round at a deadline or a quorum, sends once more where a node stays silent, says which node an error
belongs to, waits for the expected nodes, asks each for its properties and lists them in an order that repeats. A node
that is cut off in the middle of its reply holds a round up no more than one that is silent.

What is on its way, and what came of it, is kept in `InFlight`, what nodes told in `ToldProperties`. Nothing here
samples, aggregates, counts bits or knows a virtual time. Not thread-safe: one caller at a time.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from logging import INFO, WARNING, getLogger
from types import TracebackType
from typing import Any, Literal, Self

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ..errors import ConfigError, NestingError, NotEnoughNodes
from .abilities import awaits
from .error_codes import NO_REPLY
from .flower_private import clone_message, set_metadata
from .flower_private_grid import take_whole_replies
from .flower_private_jitter import give_threads_their_own_jitter
from .in_flight import Counts, InFlight, OpenMessage
from .node_clocks import CLOCKS_S, NodeClocks
from .node_properties import PROPERTIES, Property
from .quorum import quorum_count
from .told_properties import ToldProperties
from .wrapped_grid import WrappedGrid, chain, undisturbed

__all__ = ["GridProxy"]

log = getLogger(__name__)


class GridProxy(WrappedGrid):
    """Wraps Flower's own Grids for every strategy.

    Args:
        inner: the Grid; Flower's own, or `LocalGrid`.
        expected_nodes: before the first listing, wait until that many nodes are on the grid.
        join_timeout_s: for at most so long; also how long nodes have to tell their properties.
        poll_s: seconds between two looks for replies, at least 0.05: each is a request.
        deadline_s: the most a round takes; the smaller of it and `send_and_receive`'s `timeout` counts. Without
            either, a node that never answers is waited for without end, on a `LocalGrid` too. Messages are good for so
            long and five seconds more, by which clocks may differ: nobody works on a round that has ended. To a node
            whose clock was seen to be further ahead, for that much more; to one not heard yet, for five minutes more.
        quorum: fraction of the messages (float) or number (int) of replies without error after which a round ends.
        linger_s: seconds the others still have once the quorum is there.
        resend_after_s: a node silent for so long gets one fresh copy; the first answer to either wins.
        drain_s: at the end (`close`, or leaving a `with`), the most to wait for messages still in flight.
        order: `message` gives replies in the order their messages were sent, which repeats; `arrival` as they came.
        seed: seeds Python's global `random` once, before the first answer of `get_node_ids`: Flower's strategies
            sample with it.
        ask_properties: ask every node once for its properties (see `answer_properties` in `flower_edge.clients`).
            A client without that function answers with an error and is left without properties.
        sleep, clock: how time passes, in seconds.

    Raises:
        ConfigError: an argument out of its range.
        NestingError: around a virtual clock, whose time does not pass by waiting.

    >>> from flwr.app import Context
    >>> from flwr.clientapp import ClientApp
    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> app = ClientApp()
    >>> @app.train()
    ... def train(message: Message, context: Context) -> Message:
    ...     return Message(RecordDict(), reply_to=message)
    >>> with LocalGrid(app, nodes=3) as local, GridProxy(local, expected_nodes=3, ask_properties=False) as grid:
    ...     replies = grid.send_and_receive([Message(RecordDict(), i, "train") for i in grid.get_node_ids()])
    >>> grid.counts
    Counts(sent=3, answered=3, errors=0, silent=0, resent=0, late=0)
    """

    def __init__(
        self,
        inner: Grid,
        *,
        expected_nodes: int | None = None,
        join_timeout_s: float = 60.0,
        poll_s: float = 0.1,
        deadline_s: float | None = None,
        quorum: float = 1.0,
        linger_s: float = 0.0,
        resend_after_s: float | None = None,
        drain_s: float = 10.0,
        order: Literal["message", "arrival"] = "message",
        seed: int | None = None,
        ask_properties: bool = True,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        # By its method, not its class: the virtual clock imports this module.
        if any(hasattr(link, "advance_to_next") for link in chain(inner)):
            raise NestingError(
                "GridProxy around a VirtualClock would wait for a time that does not pass by itself; "
                "write VirtualClock(GridProxy(grid), ...)"
            )
        for link in chain(inner):
            take_whole_replies(link)
        give_threads_their_own_jitter()
        quorum_count(quorum, 1)
        if expected_nodes is not None and expected_nodes < 1:
            raise ConfigError(f"expected_nodes = {expected_nodes}: expected 1 or more, or None not to wait")
        if not poll_s >= 0.05:
            raise ConfigError(f"poll_s = {poll_s}: expected 0.05 or more")
        if order not in ("message", "arrival"):
            raise ConfigError(f"order = {order!r}: expected 'message' or 'arrival'")
        for name, value in {"join_timeout_s": join_timeout_s, "linger_s": linger_s, "drain_s": drain_s}.items():
            if not value >= 0:
                raise ConfigError(f"{name} = {value}: expected 0 s or more")
        for name, limit in {"deadline_s": deadline_s, "resend_after_s": resend_after_s}.items():
            if limit is not None and not limit > 0:
                raise ConfigError(f"{name} = {limit}: expected more than 0 s, or None")
        self.quorum = quorum
        self._expected_nodes, self._join_timeout_s, self._poll_s = expected_nodes, join_timeout_s, poll_s
        self._deadline_s, self._linger_s = deadline_s, linger_s
        self._resend_after_s, self._drain_s, self._order = resend_after_s, drain_s, order
        self._seed, self._seeded, self._ask_properties = seed, False, ask_properties
        self._sleep, self._clock = sleep, clock
        self._in_flight = InFlight()
        self._told = ToldProperties()
        self._durations_s: dict[int, float] = {}
        self._cut_offs: list[int] = []
        self._node_clocks = NodeClocks()
        self._in_parts = any(hasattr(link, "awaits") for link in chain(inner))

    @property
    def counts(self) -> Counts:
        """Messages so far."""
        return self._in_flight.counts

    def last_duration_s(self, node_id: int) -> float | None:
        """Real seconds from sending a node its last answered training message to its reply; `None` without one.

        Counted until the reply is looked for; from the first copy where a second one was sent. Errors do not count.
        """
        return self._durations_s.get(node_id)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes on the grid, by (`partition-id` and `node-key` where a node told them, id).

        So sampling, messages and sums do not depend on ids, which a SuperLink draws anew, or on who was faster.

        Raises:
            NotEnoughNodes: fewer than `expected_nodes` came within `join_timeout_s`.
        """
        self._wait_for_nodes()
        self._ask(self._told.unknown(self.inner.get_node_ids()))
        # Listed after the question: a strategy that was shown a node which has just gone would wait for it.
        nodes = list(self.inner.get_node_ids())
        if self._seed is not None and not self._seeded:
            random.seed(self._seed)
            self._seeded = True
        return sorted(nodes, key=self._told.place)

    def properties(self, node_id: int) -> Mapping[str, Property]:
        """What a node told about itself when it was first seen; empty if it did not."""
        self._ask(self._told.unknown([node_id]))
        return self._told.of(node_id)

    def _wait_for_nodes(self) -> None:
        if self._expected_nodes is None:
            return
        end_s = self._clock() + self._join_timeout_s
        while (came := len(set(self.inner.get_node_ids()))) < self._expected_nodes:
            if self._clock() >= end_s:
                raise NotEnoughNodes(
                    f"{came} of the {self._expected_nodes} expected nodes came within {self._join_timeout_s:g} s; "
                    f"start the missing SuperNodes, pass a longer join_timeout_s, or expected_nodes={came}"
                )
            self._sleep(self._poll_s)
        self._expected_nodes = None

    def _ask(self, nodes: Collection[int]) -> None:
        self._told.asked(nodes)
        if not self._ask_properties or not nodes:
            return
        questions = [Message(RecordDict(), node_id, f"query.{PROPERTIES}") for node_id in nodes]
        patience_s = min(self._join_timeout_s, self._deadline_s or math.inf)
        ids, replies = self._exchange(questions, patience_s, len(questions), counted=False)
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        for node_id, message_id in zip(nodes, ids, strict=True):
            if message_id in answers:
                self._told.heard(node_id, answers[message_id])

    # -- messages --------------------------------------------------------------------------------------------------

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for replies until all, the quorum, the deadline or the timeout (real seconds).

        Replies to a round that has ended are dropped and counted; no later round is handed them.
        """
        batch = list(messages)
        limits_s = [limit for limit in (timeout, self._deadline_s) if limit is not None]
        needed = min([quorum_count(self.quorum, len(batch)), *self._cut_offs[-1:]])
        ids, replies = self._exchange(batch, min(limits_s, default=None), needed)
        if self._order == "arrival":
            return replies
        place = {message_id: at for at, message_id in enumerate(ids)}
        return sorted(replies, key=lambda reply: place[reply.metadata.reply_to_message_id])

    @contextmanager
    def cut_off_at(self, count: int) -> Iterator[None]:
        """For the exchanges begun inside: each ends with its `count`-th usable reply, and `linger_s`, as with a quorum.

        Of several blocks the innermost counts.

        Raises:
            ConfigError: `count` is less than 1.
        """
        if count < 1:
            raise ConfigError(f"cut_off_at({count}): expected 1 or more usable replies")
        self._cut_offs.append(count)
        try:
            yield
        finally:
            self._cut_offs.pop()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting; one id for each, in their order.

        A message the grid does not take has an id, too: its reply is an error.
        """
        return self._push(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived, each given once, in the order of the ids, from the node that was asked.

        On a `SteppedGrid` there may be several to one message, for the parts of its work, and from who did it.
        """
        asked = list(dict.fromkeys(message_ids))
        flight = self._in_flight
        replies = flight.refusals(asked)
        wanted = flight.ids_of(asked)
        if not wanted:
            return replies
        place = {message_id: position for position, message_id in enumerate(wanted)}
        came = [reply for reply in self.inner.pull_messages(wanted) if reply.metadata.reply_to_message_id in place]
        came.sort(key=lambda reply: place[reply.metadata.reply_to_message_id])
        for at, reply in enumerate(came):
            self._note_clock(reply)
            answered = reply.metadata.reply_to_message_id
            entry = flight.answered(reply)
            if entry is None:
                continue
            # A SuperLink answers for a node with itself as the source: only the message tells who was meant. Who sends
            # in slices says itself whose the work is: it may be another's.
            source = reply.metadata.src_node_id if self._in_parts and not reply.has_error() else entry.node_id
            set_metadata(reply, src_node_id=source, reply_to_message_id=entry.own_id)
            if entry.message.metadata.message_type.partition(".")[0] == "train" and not reply.has_error():
                self._durations_s[source] = self._clock() - entry.pushed_s
            replies.append(reply)
            rest = (one.metadata.reply_to_message_id for one in came[at + 1 :])
            if self._in_parts and (answered in rest or awaits(self.inner, answered)):
                flight.goes_on(entry, answered)
        self._resend_to_silent(asked)
        return replies

    def _exchange(
        self, batch: list[Message], limit_s: float | None, needed: int, *, counted: bool = True
    ) -> tuple[list[str], list[Message]]:
        """Ids in the order of the messages, and replies in the order they came."""
        with undisturbed(self.inner):
            return self._wait_for(batch, limit_s, needed, counted)

    def _wait_for(
        self, batch: list[Message], limit_s: float | None, needed: int, counted: bool
    ) -> tuple[list[str], list[Message]]:
        self._drain_once()
        end_s = math.inf if limit_s is None else self._clock() + limit_s
        if counted:  # a question is no work: it waits for a node whose clock is not known yet
            self._let_expire(batch, limit_s)
        ids = self._push(batch, counted=counted)
        replies: list[Message] = []
        lingering = False
        while True:
            replies += self.pull_messages(ids)
            if self._in_flight.waiting.isdisjoint(ids):
                return ids, replies
            now_s = self._clock()
            usable = {reply.metadata.reply_to_message_id for reply in replies if not reply.has_error()}
            if not lingering and len(usable - self._in_flight.waiting) >= needed:
                lingering, end_s = True, min(end_s, now_s + self._linger_s)
            if now_s >= end_s:
                break
            self._sleep(min(self._poll_s, end_s - now_s))
        left = self._in_flight.give_up(ids)
        level = INFO if lingering else WARNING
        log.log(level, "round ends without a reply from nodes %s", [entry.node_id for entry in left])
        self._suspect_clocks(left)
        return ids, replies

    def _let_expire(self, batch: list[Message], limit_s: float | None) -> None:
        """Nobody is to work on a message whose round has ended.

        Else a terminal whose link was away, or is too slow for the deadline, would find the messages of all the rounds
        that it has missed and train on one after the other, always rounds behind.
        """
        # Time to live is real time, and a late part of a reply is one that a `SteppedGrid` waits for.
        if limit_s is None or self._in_parts or self._clock is not time.monotonic:
            return
        now_s = time.time()
        for message in batch:
            allowance_s = self._node_clocks.allowance_s(message.metadata.dst_node_id)
            left_s = now_s - message.metadata.created_at + limit_s + allowance_s
            message.metadata.ttl = min(message.metadata.ttl, left_s)

    def _note_clock(self, reply: Message) -> None:
        if not (reply.has_error() and reply.error.code in NO_REPLY):
            self._node_clocks.heard(reply.metadata.src_node_id, reply.metadata.created_at)

    def _suspect_clocks(self, silent: Iterable[OpenMessage]) -> None:
        for entry in silent:
            if self._node_clocks.not_told_of(entry.node_id):
                log.warning(
                    "node %s has never answered; if it runs, compare its clock with the SuperLink's: more than %.0f s "
                    "ahead, all its replies are refused as expired",
                    entry.node_id,
                    entry.message.metadata.ttl,
                )

    def _push(self, messages: list[Message], *, counted: bool = True) -> list[str]:
        now_s = self._clock()
        return self._in_flight.sent(messages, self._hand_over(messages), now_s, counted=counted)

    def _hand_over(self, messages: list[Message]) -> list[str | None]:
        """Push; an id for each message, `None` for one that was not taken."""
        ids = list(self.inner.push_messages(messages)) if messages else []
        if len(ids) == len(messages):
            return list(ids)
        if not ids and len(messages) > 1:
            # The HTTP Grid takes nothing of a batch above its size limit, and advises one at a time.
            return [taken for message in messages for taken in self._hand_over([message])]
        return [message.metadata.message_id if message.metadata.message_id in ids else None for message in messages]

    def _resend_to_silent(self, own_ids: Iterable[str]) -> None:
        if self._resend_after_s is None:
            return
        now_s = self._clock()
        for entry in self._in_flight.silent(own_ids, now_s, self._resend_after_s):
            copy = clone_message(entry.message)
            # An id is a digest of the message: a copy with the same creation time would be the same message.
            later_s = max(time.time(), copy.metadata.created_at + 1e-3)
            copy.metadata.ttl = max(CLOCKS_S, copy.metadata.ttl - (later_s - copy.metadata.created_at))
            copy.metadata.created_at = later_s
            entry.resent = True
            (taken,) = self._hand_over([copy])
            if taken is not None:
                self._in_flight.copied(entry, taken)
                log.warning("node %s silent for %.1f s: sent once more", entry.node_id, now_s - entry.pushed_s)

    # -- what nobody waits for any more ------------------------------------------------------------------------------

    def _drain_once(self) -> None:
        if given_up := self._in_flight.given_up:
            for reply in self.inner.pull_messages(given_up):
                self._note_clock(reply)
                self._in_flight.late(reply)

    def close(self) -> None:
        """Give up what is open and take in what still comes, for at most `drain_s`. The inner grid stays open."""
        self._in_flight.give_up(self._in_flight.waiting)
        end_s = self._clock() + self._drain_s
        self._drain_once()
        while self._in_flight.given_up and self._clock() < end_s:
            self._sleep(self._poll_s)
            self._drain_once()
        if left := self._in_flight.given_up:
            log.warning("%d messages still without a reply at the end of the run", len(left))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs. Messages in flight are not part of it."""
        return {
            "seeded": self._seeded,
            "counts": asdict(self.counts),
            "properties": self._told.state(),
            "durations-s": [[node_id, duration_s] for node_id, duration_s in self._durations_s.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Nodes known by their id are not asked again, `random` is not seeded again."""
        self._seeded = state["seeded"]
        self._in_flight.counts = Counts(**state["counts"])
        self._told.restore(state["properties"])
        self._durations_s = dict(state["durations-s"])
