"""`VirtualClock`: what a round would take on given devices and links, as a Grid around any Grid.

The messages are real, run by the inner grid as fast as it can; the clock counts their bytes and puts together

    arrival = start + bits_down / rate + latency + compute(device, work) + bits_up / rate + latency

where a node starts when the message is sent or, if it is busy, when its previous reply is in. Replies are handed over
in the order of their arrival; deadline and quorum are those of the virtual time.

Nothing here sleeps, and no real time enters a virtual one: with one seed the times are the same on every Grid.
Not thread-safe: one caller at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from ..errors import ConfigError, NestingError, ProtocolError
from ..ledger import Ledger
from ..wire import copy_content, payload_bits
from .devices import Device, Link, Work
from .flower_private import clone_message, set_metadata
from .grid_proxy import GridProxy, quorum_count
from .local_grid import LocalGrid
from .trips import Errand, Key, Timetable, Trip, reported_work
from .wrapped_grid import WrappedGrid, find

__all__ = ["Key", "Trip", "VirtualClock", "reported_work"]

log = getLogger(__name__)


@dataclass(frozen=True)
class _Sent:
    """A message that was sent and has not really run yet; `copy` is what will travel."""

    number: int
    key: Key
    nth: int
    copy: Message
    sent_s: float
    down_bits: int

    @property
    def own_id(self) -> str:
        return f"virtual-{self.number}"


@dataclass(frozen=True)
class _Arrival:
    """A reply and when it is in. Sorted by time, then in the order in which the messages were sent."""

    arrival_s: float
    number: int
    own_id: str
    reply: Message

    @property
    def place(self) -> tuple[float, int]:
        return self.arrival_s, self.number


class VirtualClock(WrappedGrid):
    """Gives every message the time it would take, over `LocalGrid` or Flower's own Grids.

    Args:
        inner: the Grid that really runs the messages. It must hand over every reply it gets: put a deadline for real
            time on it if you like, but not a quorum.
        devices, links: one per node: a list indexed by `partition-id`, or a mapping by the key of the node.
        seed: of the jitter; each message draws from (seed, key, how many-th message of that node).
        deadline_s: virtual seconds after which a round ends; replies that arrive later are dropped and counted.
        quorum: fraction (float) or number (int) of replies without error after which a round ends.
        work: what a message made its node compute, from the message and its reply; see `reported_work`.
        key_of: key of a node id. Default: the `partition-id` that the node told a `GridProxy` in the chain, or its
            place in a `LocalGrid`.
        cell_of, cell_up_bps: where given, nodes of one cell share an uplink of that rate: one reply at a time, each
            at the smaller of its own and the cell's rate.
        virtual_timeout: take `send_and_receive`'s `timeout` as virtual seconds instead of real ones.

    A round lasts until its slowest reply (or the quorum's last, or the deadline). A node that never answers lets it
    last until the deadline; without one, until the last reply there is.

    Raises:
        ConfigError: an argument out of its range.
        NestingError: another clock inside, or a `GridProxy` whose quorum would be decided by real time.

    >>> from flwr.app import ArrayRecord, Context, RecordDict
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @app.train()
    ... def train(message: Message, context: Context) -> Message:
    ...     return Message(RecordDict(), reply_to=message)
    >>> with LocalGrid(app, nodes=2) as local:
    ...     grid = VirtualClock(local, [Device(fixed_s=3.0), Device(fixed_s=1.0)], [Link(), Link()])
    ...     replies = grid.send_and_receive([Message(RecordDict(), i, "train") for i in (1000, 1001)])
    >>> [reply.metadata.src_node_id for reply in replies], grid.now_s
    ([1001, 1000], 3.0)
    """

    def __init__(
        self,
        inner: Grid,
        devices: Sequence[Device] | Mapping[Key, Device],
        links: Sequence[Link] | Mapping[Key, Link],
        *,
        seed: int = 0,
        deadline_s: float | None = None,
        quorum: float = 1.0,
        work: Callable[[Message, Message], Work] = reported_work,
        key_of: Callable[[int], Key] | None = None,
        cell_of: Callable[[Key], str] | None = None,
        cell_up_bps: Mapping[str, float] | None = None,
        virtual_timeout: bool = False,
    ) -> None:
        super().__init__(inner)
        if find(inner, VirtualClock) is not None:
            raise NestingError("VirtualClock around VirtualClock: a message has one time; keep one of them")
        self._proxy, self._local = find(inner, GridProxy), find(inner, LocalGrid)
        if self._proxy is not None and self._proxy.quorum != 1.0:
            raise NestingError(
                f"VirtualClock around GridProxy(quorum={self._proxy.quorum}) would lose replies by real time; "
                "write VirtualClock(GridProxy(grid), ..., quorum=...)"
            )
        quorum_count(quorum, 1)
        if deadline_s is not None and not deadline_s > 0:
            raise ConfigError(f"deadline_s = {deadline_s}: expected more than 0 s, or None")
        self._timetable = Timetable(devices, links, seed=seed, work=work, cell_of=cell_of, cell_up_bps=cell_up_bps)
        self._deadline_s, self._quorum = deadline_s, quorum
        self._key_of, self._virtual_timeout = key_of or self._partition, virtual_timeout
        self._now_s, self._count, self._late = 0.0, 0, 0
        self._in_lanes = False
        self._ledger = Ledger()
        self._pending: list[_Sent] = []
        self._under_way: dict[str, _Arrival] = {}
        self._trips: tuple[Trip, ...] = ()

    # -- what can be read ------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The virtual time. It never runs backwards, but for the lanes of `side_by_side`."""
        return self._now_s

    @property
    def ledger(self) -> Ledger:
        """All that travelled so far, bits of late replies included, and the virtual time as `virtual_s`."""
        return replace(self._ledger, virtual_s=self._now_s)

    @property
    def late(self) -> int:
        """Replies dropped because their round had ended when they arrived."""
        return self._late

    @property
    def trips(self) -> tuple[Trip, ...]:
        """The messages that travelled last, late ones included, in the order of their arrival."""
        return self._trips

    # -- Flower's Grid ---------------------------------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages at the present virtual time. They run together, before the clock next moves or is asked.

        Raises:
            ConfigError: a node without a key, a device or a link.
        """
        sent = []
        for number, message in enumerate(messages, start=self._count + 1):
            node_id = message.metadata.dst_node_id
            key = self._key_of(node_id)
            nth = self._timetable.count(key, node_id)
            # It travels later than it was sent: its records must be those of now.
            copy = clone_message(message, copy_content(message.content))
            sent.append(_Sent(number, key, nth, copy, self._now_s, payload_bits(message.content)))
            set_metadata(message, message_id=sent[-1].own_id)
        self._count += len(sent)
        self._pending += sent
        return [one.own_id for one in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived by now, each given once, in the order of their arrival."""
        self._run_pending(None)
        asked = [self._under_way[i] for i in dict.fromkeys(message_ids) if i in self._under_way]
        return self._take(arrival for arrival in asked if arrival.arrival_s <= self._now_s)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and let virtual time pass until all replies, the quorum's or the deadline have come.

        Replies in the order of their arrival. `timeout` bounds the real wait, unless `virtual_timeout` was asked for.
        """
        begun_s = self._now_s
        ids = list(self.push_messages(messages))
        self._run_pending(None if self._virtual_timeout else timeout)
        limits_s = [self._deadline_s, timeout if self._virtual_timeout else None]
        limit_s = begun_s + min((limit for limit in limits_s if limit is not None), default=math.inf)
        arrivals = sorted((self._under_way[i] for i in ids if i in self._under_way), key=lambda a: a.place)
        in_time = [arrival for arrival in arrivals if arrival.arrival_s <= limit_s]
        usable = [arrival for arrival in in_time if not arrival.reply.has_error()]
        if ids and len(usable) >= (needed := quorum_count(self._quorum, len(ids))):
            end_s = usable[needed - 1].arrival_s
        elif len(in_time) < len(ids) and limit_s < math.inf:
            end_s = limit_s
        else:
            end_s = in_time[-1].arrival_s if in_time else begun_s
        late = self._take(arrival for arrival in arrivals if arrival.arrival_s > end_s)
        if late:
            self._late += len(late)
            log.info("replies of nodes %s came too late", [reply.metadata.src_node_id for reply in late])
        self._move_to(end_s)
        return self._take(arrival for arrival in in_time if arrival.arrival_s <= end_s)

    def _take(self, arrivals: Iterable[_Arrival]) -> list[Message]:
        taken = sorted(arrivals, key=lambda arrival: arrival.place)
        for arrival in taken:
            del self._under_way[arrival.own_id]
        return [arrival.reply for arrival in taken]

    # -- stepping --------------------------------------------------------------------------------------------------

    def advance_to_next(self) -> float | None:
        """Move to the arrival of the next reply that was not pulled yet, and return that time.

        Does not move where a reply is waiting already. `None` when nothing is under way.
        """
        self._run_pending(None)
        if not self._under_way:
            return None
        self._move_to(min(arrival.arrival_s for arrival in self._under_way.values()))
        return self._now_s

    def wait_until(self, time_s: float) -> None:
        """Let virtual time pass until `time_s`; nothing happens where that is over already.

        Raises:
            ConfigError: not a finite time.
        """
        if not math.isfinite(time_s):
            raise ConfigError(f"wait_until({time_s}): expected a finite time in seconds")
        self._run_pending(None)
        self._move_to(time_s)

    @contextmanager
    def side_by_side(self) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """For things that happen at the same time but are run one after the other here: the edges of a round.

        Every `with lane():` inside begins at the time at which the block began; after the block it is the time at
        which the last of them ended.

        >>> from flwr.clientapp import ClientApp
        >>> with LocalGrid(ClientApp(), nodes=0) as local:
        ...     clock = VirtualClock(local, [], [])
        ...     with clock.side_by_side() as lane:
        ...         for end_s in (3.0, 2.0):
        ...             with lane():
        ...                 clock.wait_until(end_s)
        ...     clock.now_s
        3.0
        """
        begun_s = latest_s = self._now_s
        if self._in_lanes:
            raise NestingError("side_by_side inside side_by_side: give all lanes to one block")

        @contextmanager
        def lane() -> Iterator[None]:
            nonlocal latest_s
            self._run_pending(None)
            self._now_s = begun_s
            yield
            self._run_pending(None)
            latest_s = max(latest_s, self._now_s)

        self._in_lanes = True
        try:
            yield lane
        finally:
            self._in_lanes = False
            self._move_to(latest_s)

    def _move_to(self, time_s: float) -> None:
        self._now_s = max(self._now_s, time_s)
        if not self._in_lanes:
            # Another lane may still need what this one has left behind.
            self._timetable.forget_before(self._now_s)

    # -- the real grid ---------------------------------------------------------------------------------------------

    def _partition(self, node_id: int) -> Key:
        partition = None if self._proxy is None else self._proxy.properties(node_id).get("partition-id")
        if partition is None and self._local is not None:
            place = self._local.partition_of(node_id)
            partition = self._local.context_of(node_id).node_config.get("partition-id", place)
        if isinstance(partition, str) or type(partition) is int:
            return partition
        raise ConfigError(
            f"node {node_id} has no partition-id that is known here; put GridProxy around the Flower grid and "
            "answer_properties(app) on the client, or pass key_of to VirtualClock"
        )

    def _run_pending(self, timeout_s: float | None) -> None:
        """Run what was sent, all of it together, and work out when each reply arrives."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        replies = {
            reply.metadata.reply_to_message_id: reply
            for reply in self.inner.send_and_receive([sent.copy for sent in pending], timeout=timeout_s)
        }
        errands = []
        for sent in pending:
            reply = replies.pop(sent.copy.metadata.message_id, None)
            if reply is not None:
                # Errors of a SuperLink carry its own id, and all ids are those of the copy that travelled.
                set_metadata(reply, src_node_id=sent.copy.metadata.dst_node_id, reply_to_message_id=sent.own_id)
                errands.append(
                    Errand(sent.number, sent.own_id, sent.key, sent.nth, sent.sent_s, sent.down_bits, sent.copy, reply)
                )
        if replies:
            raise ProtocolError(
                f"{type(self.inner).__name__} gave {len(replies)} replies to messages that were not sent; "
                "a grid inside VirtualClock must leave the ids of messages as they are"
            )
        trips = self._timetable.plan(errands)
        arrivals = sorted(
            (_Arrival(trips[one.message_id].arrival_s, one.number, one.message_id, one.reply) for one in errands),
            key=lambda arrival: arrival.place,
        )
        self._under_way |= {arrival.own_id: arrival for arrival in arrivals}
        self._trips = tuple(trips[arrival.own_id] for arrival in arrivals)
        answered = sum(not trip.failed for trip in self._trips)
        self._ledger += Ledger(
            down_bits=sum(sent.down_bits for sent in pending),
            up_bits=sum(trip.up_bits for trip in self._trips),
            down_messages=len(pending),
            up_messages=answered,
            failed_messages=len(pending) - answered,
        )

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs. Messages under way are not part of it: take it between rounds."""
        if left := len(self._pending) + len(self._under_way):
            log.warning("%d messages under way are not in the checkpoint", left)
        return {
            "now_s": self._now_s,
            "count": self._count,
            "late": self._late,
            "ledger": self._ledger.as_dict(),
            "timetable": self._timetable.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ConfigError: the state is that of a clock with other cells.
        """
        self._timetable.load_state_dict(state["timetable"])
        self._now_s, self._count, self._late = state["now_s"], state["count"], state["late"]
        self._ledger = Ledger(**state["ledger"])
        self._pending, self._under_way, self._trips = [], {}, ()
