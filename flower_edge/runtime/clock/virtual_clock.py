"""`VirtualClock`: what a round would take on given devices and links, as a Grid around any Grid.

The messages are real, run by the inner grid as fast as it can; the clock counts their bytes and puts together

    arrival = start + bits_down / rate + latency + compute(device, work) + bits_up / rate + latency

where a node starts when the message is sent or, if it is busy, when its previous reply is in. Replies are handed over
in the order of their arrival; deadline and quorum are those of the virtual time.

Things that happen at the same time, the edges of a round, are lanes: each is ordinary code, and where one lets time
pass the others go on, in the order of virtual time.

Nothing here sleeps, and no real time enters a virtual one: with one seed the times are the same on every Grid.
Not thread-safe: all lanes live in one thread, and one of them runs at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from logging import getLogger
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from flwr.app import Message
from flwr.serverapp import Grid

from ...errors import ConfigError, NestingError
from ...ledger import Ledger
from ..grid_proxy import GridProxy
from ..local_grid import LocalGrid
from ..quorum import quorum_count
from ..wrapped_grid import WrappedGrid, find
from .devices import Device, Link, Work
from .lanes import Lane, LaneCancelled, Lanes
from .trips import Key, Slowdown, Timetable, Trip, reported_work
from .under_way import Arrival, UnderWay

__all__ = ["Key", "Lane", "LaneCancelled", "Trip", "VirtualClock", "reported_work"]

log = getLogger(__name__)

T = TypeVar("T")


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
        slowdown: for a load that changes: the factor on the computing time of a node's message that begins to compute
            at a virtual time, 1 for what its `Device` says.

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
        slowdown: Slowdown | None = None,
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
        self._timetable = Timetable(
            devices, links, seed=seed, work=work, cell_of=cell_of, cell_up_bps=cell_up_bps, slowdown=slowdown
        )
        self._deadline_s, self._quorum = deadline_s, quorum
        self._key_of, self._virtual_timeout = key_of or self._partition, virtual_timeout
        self._under_way = UnderWay(inner, self._timetable)
        self._lanes = Lanes()
        self._late = 0
        self._keys: dict[int, Key] = {}
        # Of each lane: until when, and up to which message, it has looked for replies; those it waits for; its limits.
        self._looked: WeakKeyDictionary[Lane[Any], tuple[float, int]] = WeakKeyDictionary()
        self._listening: dict[Lane[Any], None] = {}
        self._cut_offs: WeakKeyDictionary[Lane[Any], list[int]] = WeakKeyDictionary()

    # -- what can be read ------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The virtual time, in all lanes. It never runs backwards."""
        return self._lanes.now_s

    @property
    def ledger(self) -> Ledger:
        """All that travelled so far, bits of late replies included, and the virtual time as `virtual_s`."""
        return replace(self._under_way.ledger, virtual_s=self.now_s)

    @property
    def late(self) -> int:
        """Replies dropped because their round had ended when they arrived."""
        return self._late

    @property
    def trips(self) -> tuple[Trip, ...]:
        """The messages that travelled last, late ones included, in the order of their arrival."""
        return self._under_way.trips

    def last_trip(self, node_id: int) -> Trip | None:
        """The node's last training message whose reply is in and no error; `None` where there was none."""
        return self._under_way.last.of(self._key(node_id), self.now_s)

    def last_duration_s(self, node_id: int) -> float | None:
        """Virtual seconds from sending to reply of `last_trip`."""
        trip = self.last_trip(node_id)
        return None if trip is None else trip.arrival_s - trip.sent_s

    # -- Flower's Grid ---------------------------------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages at the present virtual time. They run together, before the clock next moves or is asked.

        Raises:
            ConfigError: a node without a key, a device or a link.
        """
        self._lanes.check_caller()
        return self._under_way.send(
            [(message, self._key(message.metadata.dst_node_id)) for message in messages], self.now_s
        )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived by now, each given once, in the order of their arrival."""
        self._run_pending(None)
        self._looked[self._lanes.current] = self.now_s, self._under_way.count
        return self._under_way.take(message_ids, self.now_s)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and let virtual time pass until all replies, the quorum's or the deadline have come.

        Replies in the order of their arrival. `timeout` bounds the real wait, unless `virtual_timeout` was asked for.
        """
        begun_s = self.now_s
        ids = list(self.push_messages(messages))
        # Taken out at once: another lane that waits for whatever comes next does not wait for these.
        arrivals = self._run_pending(None if self._virtual_timeout else timeout, claimed=ids)
        limits_s = [self._deadline_s, timeout if self._virtual_timeout else None]
        limit_s = begun_s + min((limit for limit in limits_s if limit is not None), default=math.inf)
        in_time = [arrival for arrival in arrivals if arrival.arrival_s <= limit_s]
        usable = [arrival for arrival in in_time if not arrival.reply.has_error()]
        if ids and len(usable) >= (needed := self._needed(len(ids))):
            end_s = usable[needed - 1].arrival_s
        elif len(in_time) < len(ids) and limit_s < math.inf:
            end_s = limit_s
        else:
            end_s = in_time[-1].arrival_s if in_time else begun_s
        late = [arrival for arrival in arrivals if arrival.arrival_s > end_s]
        if late:
            self._late += len(late)
            log.info("replies of nodes %s came too late", [arrival.reply.metadata.src_node_id for arrival in late])
        self._move_to(end_s)
        return [arrival.reply for arrival in in_time if arrival.arrival_s <= end_s]

    @contextmanager
    def cut_off_at(self, count: int) -> Iterator[None]:
        """For the exchanges that this lane begins inside: each ends with its `count`-th usable reply.

        Those after it are late, as with a quorum. Of several blocks the innermost counts; other lanes see none of it.

        Raises:
            ConfigError: `count` is less than 1.
        """
        if count < 1:
            raise ConfigError(f"cut_off_at({count}): expected 1 or more usable replies")
        limits = self._cut_offs.setdefault(self._lanes.current, [])
        limits.append(count)
        try:
            yield
        finally:
            limits.pop()

    def _needed(self, messages: int) -> int:
        limits = self._cut_offs.get(self._lanes.current)
        return min(quorum_count(self._quorum, messages), limits[-1] if limits else messages)

    # -- stepping --------------------------------------------------------------------------------------------------

    def advance_to_next(self) -> float | None:
        """Move to the arrival of the next reply that was not pulled yet, and return that time.

        Does not move where a reply is waiting already; one that was waiting when the caller last pulled, and was not
        asked for, is passed over. `None` when nothing is under way. Another lane may have pulled the reply when this
        returns: pull, and ask again.
        """
        self._run_pending(None)
        lane = self._lanes.current
        looked_s, count = self._looked.get(lane, (-math.inf, 0))
        left = (one for one in self._under_way.arrivals.values() if one.arrival_s > looked_s or one.number > count)
        next_s = min((arrival.arrival_s for arrival in left), default=None)
        if next_s is not None and next_s > self.now_s:
            self._listening[lane] = None
            try:
                self._move_to(next_s)
            finally:
                del self._listening[lane]
        return None if next_s is None else self.now_s

    def wait_until(self, time_s: float) -> None:
        """Let virtual time pass until `time_s`; nothing happens where that is over already.

        Raises:
            ConfigError: not a finite time.
        """
        if not math.isfinite(time_s):
            raise ConfigError(f"wait_until({time_s}): expected a finite time in seconds")
        self._run_pending(None)
        if time_s >= self.now_s:
            self._move_to(time_s)

    # -- lanes -----------------------------------------------------------------------------------------------------

    def side_by_side(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Do all jobs at the same time, beginning now, and return what they returned, in their order.

        It is then the time at which the last of them ended.

        Raises:
            Exception: that of the first job in the list that failed, after all have ended.

        >>> from flwr.clientapp import ClientApp
        >>> with LocalGrid(ClientApp(), nodes=0) as local:
        ...     clock = VirtualClock(local, [], [])
        ...     _ = clock.side_by_side([lambda: clock.wait_until(3.0), lambda: clock.wait_until(2.0)])
        ...     clock.now_s
        3.0
        """
        lanes = [self.spawn(job) for job in jobs]
        try:
            self.wait_for(lanes)
        except BaseException:
            self.cancel(lanes)
            raise
        return [lane.result() for lane in lanes]

    def spawn(self, job: Callable[[], T]) -> Lane[T]:
        """A lane that does a job beside the caller. It begins now, as soon as the caller lets time pass.

        Whoever spawns lanes and does not wait for all of them cancels those left.
        """

        def whole() -> T:
            try:
                value = job()
            except Exception:
                self._run_pending(None)
                raise
            self._run_pending(None)
            return value

        return self._lanes.spawn(whole)

    def wait_for(self, lanes: Iterable[Lane[T]], count: int | None = None) -> list[Lane[T]]:
        """Let time pass until `count` of the lanes (default: all) have ended; those that have, in that order.

        Raises:
            ConfigError: see `Lanes.wait_for`. What a job raised comes with its lane's `result()`.
        """
        self._run_pending(None)
        return self._lanes.wait_for(lanes, count)

    def cancel(self, lanes: Sequence[Lane[Any]] | None = None) -> None:
        """End lanes that are still open (default: all but the caller): `LaneCancelled` is raised inside them."""
        self._lanes.cancel(lanes)

    def _move_to(self, time_s: float) -> None:
        self._lanes.sleep_until(time_s)
        # All lanes are at one time: none can send in the past.
        self._timetable.forget_before(self.now_s)

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

    def _key(self, node_id: int) -> Key:
        if node_id not in self._keys:
            self._keys[node_id] = self._key_of(node_id)
        return self._keys[node_id]

    def _run_pending(self, timeout_s: float | None, claimed: Collection[str] = ()) -> list[Arrival]:
        """Really run what was sent, as every lane does before it lets time pass; the claimed replies."""
        mine, others = self._under_way.run(timeout_s, claimed)
        if others:
            for lane in self._listening:
                self._lanes.hasten(lane, others[0].arrival_s)
        return mine

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs. Messages under way are not part of it: take it between rounds."""
        if left := len(self._under_way):
            log.warning("%d messages under way are not in the checkpoint", left)
        if lanes := self._lanes.open:
            log.info("%d lanes are open, and what they are doing is not in the checkpoint", len(lanes))
        return {
            "now_s": self.now_s,
            "late": self._late,
            "timetable": self._timetable.state_dict(),
            "messages": self._under_way.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ConfigError: the state is that of a clock with other cells; or lanes are open here.
        """
        if lanes := self._lanes.open:
            raise ConfigError(f"{len(lanes)} lanes are open; wait for them or cancel() them before a state is loaded")
        self._timetable.load_state_dict(state["timetable"])
        self._under_way.load_state_dict(state["messages"])
        self._lanes, self._late = Lanes(state["now_s"]), state["late"]
