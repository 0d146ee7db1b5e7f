"""How long a message takes there and back, on given devices and links. No Grid, no waiting: only the arithmetic.

    arrival = start + bits_down / rate + latency + compute(device, work) + wait + bits_up / rate + latency

A node starts on a message when it is sent or, if it is busy, when its previous reply is in: one message at a time.
The wait is that for a shared uplink, where there is one.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import Message

from ...errors import ConfigError
from ...wire import payload_bits
from ..generators import derive_seed
from .devices import Device, Link, Work, jitter_factor

__all__ = ["Errand", "Key", "LastTrips", "SharedUplink", "Slowdown", "Timetable", "Trip", "reported_work"]

log = getLogger(__name__)

#: What a node is called in every run: its `partition-id`, or a name.
Key = int | str

#: Factor on the computing time of a message of which node computes from which virtual time on; 1 as its `Device` says.
Slowdown = Callable[[Key, float], float]


@dataclass(frozen=True)
class Errand:
    """A message as it was sent, and what came back.

    Attributes:
        number: of all messages; who was sent first goes first where times are equal.
        message_id: as the sender knows it.
        key: the node's.
        nth: how many-th message of that node, from 1.
        sent_s: virtual time of sending.
        down_bits: counted when it was sent.
        message, reply: the real ones.
    """

    number: int
    message_id: str
    key: Key
    nth: int
    sent_s: float
    down_bits: int
    message: Message
    reply: Message


@dataclass(frozen=True)
class Trip:
    """One message there and back, in virtual time.

    Attributes:
        message_id, node_id, key, kind: which message (its type is `kind`), to which node.
        sent_s: when it was sent.
        start_s: when the node's downlink began to carry it.
        down_s, compute_s, up_s: what the way there, the computing and the way back took.
        wait_s: what the reply waited for the cell's shared uplink.
        arrival_s: when the reply was in. An error is in at once, at the moment the message was sent.
        down_bits, up_bits: counted from the real records.
        failed: whether the reply was an error.
    """

    message_id: str
    node_id: int
    key: Key
    kind: str
    sent_s: float
    start_s: float
    down_bits: int
    down_s: float = 0.0
    compute_s: float = 0.0
    wait_s: float = 0.0
    up_s: float = 0.0
    arrival_s: float = 0.0
    up_bits: int = 0
    failed: bool = False


def reported_work(message: Message, reply: Message) -> Work:
    """The work a reply reports: the numbers `steps` and `flops` of its MetricRecords; 0 for what it does not report."""
    found: dict[str, float] = {}
    for record in reply.content.metric_records.values():
        for name in ("steps", "flops"):
            value = record.get(name)
            if value is None or name in found:
                continue
            if isinstance(value, int | float) and 0 <= value < float("inf"):
                found[name] = float(value)
            else:
                log.warning("node %s reported %s = %r: counted as 0", message.metadata.dst_node_id, name, value)
    return Work(**found)


class SharedUplink:
    """Carries one reply at a time; a reply takes the first gap long enough from when it is ready.

    >>> uplink = SharedUplink(rate_bps=1e6)
    >>> uplink.book(ready_s=10.0, needs_s=2.0), uplink.book(ready_s=11.0, needs_s=1.0), uplink.book(5.0, 1.0)
    (10.0, 12.0, 5.0)
    """

    def __init__(self, rate_bps: float) -> None:
        if not rate_bps > 0:
            raise ConfigError(f"shared uplink of {rate_bps} bit/s: expected more than 0")
        self.rate_bps = rate_bps
        self.booked_s: list[tuple[float, float]] = []

    def book(self, ready_s: float, needs_s: float) -> float:
        """When the reply can start; from then on the uplink is taken for `needs_s`."""
        begin_s = ready_s
        for taken_s, free_s in self.booked_s:
            if begin_s + needs_s <= taken_s:
                break
            begin_s = max(begin_s, free_s)
        insort(self.booked_s, (begin_s, begin_s + needs_s))
        return begin_s

    def forget_before(self, time_s: float) -> None:
        """Drop what is over: nothing can be sent in the past."""
        self.booked_s = [(taken_s, free_s) for taken_s, free_s in self.booked_s if free_s > time_s]


class Timetable:
    """Devices and links, until when each node is busy, and which uplinks are taken.

    Args:
        devices, links: by `partition-id` (a list) or by key (a mapping).
        seed: of the jitter; each message draws from (seed, key, how many-th message of that node).
        work: what a message made its node compute.
        cell_of, cell_up_bps: the cell of a key, and the rate of the uplink that the nodes of a cell share.
        slowdown: how much slower than its `Device` says a node computes from a time on.

    Raises:
        ConfigError: only one of `cell_of` and `cell_up_bps`, or a rate that is not above 0.
    """

    def __init__(
        self,
        devices: Sequence[Device] | Mapping[Key, Device],
        links: Sequence[Link] | Mapping[Key, Link],
        *,
        seed: int,
        work: Callable[[Message, Message], Work],
        cell_of: Callable[[Key], str] | None,
        cell_up_bps: Mapping[str, float] | None,
        slowdown: Slowdown | None = None,
    ) -> None:
        if (cell_of is None) != (cell_up_bps is None):
            raise ConfigError("a shared uplink needs both cell_of (the cell of a key) and cell_up_bps (its rate)")
        self._devices: Mapping[Key, Device] = devices if isinstance(devices, Mapping) else dict(enumerate(devices))
        self._links: Mapping[Key, Link] = links if isinstance(links, Mapping) else dict(enumerate(links))
        self._seed, self._work, self._cell_of, self._slowdown = seed, work, cell_of, slowdown
        self._uplinks = {cell: SharedUplink(rate_bps) for cell, rate_bps in (cell_up_bps or {}).items()}
        self._handled: dict[Key, int] = {}
        self._busy_until_s: dict[Key, float] = {}

    def count(self, key: Key, node_id: int) -> int:
        """How many-th message of this node the next one is, counting it.

        Raises:
            ConfigError: no device or link for the key.
        """
        if key not in self._devices or key not in self._links:
            raise ConfigError(
                f"node {node_id} is {key!r}, and there is no device or no link for {key!r}: {len(self._devices)} "
                f"devices and {len(self._links)} links were given; give one of each per node"
            )
        self._handled[key] = self._handled.get(key, 0) + 1
        return self._handled[key]

    def plan(self, errands: Iterable[Errand]) -> dict[str, Trip]:
        """The trips of messages that travel at the same time, by message id."""
        trips: dict[str, Trip] = {}
        queues: dict[Key, deque[Errand]] = {}
        for errand in errands:
            if errand.reply.has_error():
                trips[errand.message_id] = _trip(errand, start_s=errand.sent_s, arrival_s=errand.sent_s, failed=True)
            else:
                queues.setdefault(errand.key, deque()).append(errand)
        # By the time a reply is ready: who is ready first has the shared uplink first.
        ready = [self._until_ready(queue.popleft()) for queue in queues.values()]
        heapq.heapify(ready)
        while ready:
            ready_s, _, trip, factor = heapq.heappop(ready)
            trips[trip.message_id] = trip = self._carried_up(trip, ready_s, factor)
            self._busy_until_s[trip.key] = trip.arrival_s
            if queue := queues[trip.key]:
                heapq.heappush(ready, self._until_ready(queue.popleft()))
        return trips

    def _until_ready(self, errand: Errand) -> tuple[float, int, Trip, float]:
        """When the reply is ready, the message's number, the trip so far, and the jitter of the way back."""
        device, link = self._devices[errand.key], self._links[errand.key]
        draws = np.random.default_rng(derive_seed(self._seed, errand.key, errand.nth)).standard_normal(3)
        start_s = max(errand.sent_s, self._busy_until_s.get(errand.key, 0.0))
        down_s = link.down_s(errand.down_bits, jitter_factor(link.jitter, draws[0]))
        compute_s = device.compute_s(self._work(errand.message, errand.reply), jitter_factor(device.jitter, draws[1]))
        if self._slowdown is not None:
            compute_s *= self._factor(errand.key, start_s + down_s)
        trip = _trip(
            errand,
            start_s=start_s,
            down_s=down_s,
            compute_s=compute_s,
            up_bits=payload_bits(errand.reply.content),
        )
        return start_s + down_s + compute_s, errand.number, trip, jitter_factor(link.jitter, draws[2])

    def _factor(self, key: Key, time_s: float) -> float:
        assert self._slowdown is not None
        factor = float(self._slowdown(key, time_s))
        if not 0 < factor < math.inf:
            raise ConfigError(
                f"slowdown({key!r}, {time_s:g}) = {factor}: expected a finite factor above 0; 1 is as the Device says"
            )
        return factor

    def _carried_up(self, trip: Trip, ready_s: float, factor: float) -> Trip:
        link = self._links[trip.key]
        uplink = None if self._cell_of is None else self._uplinks.get(self._cell_of(trip.key))
        if uplink is None:
            up_s = link.up_s(trip.up_bits, factor)
            return replace(trip, up_s=up_s, arrival_s=ready_s + up_s)
        # The uplink is taken while bits pass; the latency after them delays this reply only.
        passing_s = factor * trip.up_bits / min(link.up_bps, uplink.rate_bps)
        begin_s = uplink.book(ready_s, passing_s)
        up_s = passing_s + link.latency_s
        return replace(trip, wait_s=begin_s - ready_s, up_s=up_s, arrival_s=begin_s + up_s)

    def forget_before(self, time_s: float) -> None:
        """Drop bookings that are over."""
        for uplink in self._uplinks.values():
            uplink.forget_before(time_s)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {
            "handled": [[key, count] for key, count in self._handled.items()],
            "busy_until_s": [[key, time_s] for key, time_s in self._busy_until_s.items()],
            "uplinks": {cell: [list(booked) for booked in uplink.booked_s] for cell, uplink in self._uplinks.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ConfigError: the state is that of a clock with other cells.
        """
        if set(state["uplinks"]) != set(self._uplinks):
            raise ConfigError(
                f"state of a clock with the cells {sorted(state['uplinks'])}, this one has {sorted(self._uplinks)}; "
                "build the grid as the first run did"
            )
        self._handled = dict(state["handled"])
        self._busy_until_s = dict(state["busy_until_s"])
        for cell, booked in state["uplinks"].items():
            self._uplinks[cell].booked_s = [(taken_s, free_s) for taken_s, free_s in booked]


class LastTrips:
    """The last training message of each node that was answered without an error: known once its reply is in.

    >>> last = LastTrips()
    >>> last.note(Trip("m", 1000, 0, "train", sent_s=1.0, start_s=1.0, down_bits=8, arrival_s=5.0))
    >>> last.of(0, now_s=4.0), last.of(0, now_s=5.0).arrival_s
    (None, 5.0)
    """

    def __init__(self) -> None:
        # The last one that is in, and those under way, in the order of their arrival: a node answers one by one.
        self._trips: dict[Key, deque[Trip]] = {}

    def note(self, trip: Trip) -> None:
        """A trip that was planned; trips of other messages than training, and errors, are passed over."""
        if trip.kind.partition(".")[0] == "train" and not trip.failed:
            self.of(trip.key, trip.sent_s)  # drops what nobody can ask for any more
            self._trips.setdefault(trip.key, deque()).append(trip)

    def of(self, key: Key, now_s: float) -> Trip | None:
        """The last trip that had come to its end by `now_s`; `None` where there is none."""
        trips = self._trips.get(key, deque())
        while len(trips) > 1 and trips[1].arrival_s <= now_s:
            trips.popleft()
        return trips[0] if trips and trips[0].arrival_s <= now_s else None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, trips under way included: what a node takes is known when its reply would be in."""
        return {"trips": [asdict(trip) for trips in self._trips.values() for trip in trips]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._trips = {}
        for trip in state["trips"]:
            self.note(Trip(**trip))


def _trip(errand: Errand, **values: Any) -> Trip:
    metadata = errand.message.metadata
    return Trip(
        message_id=errand.message_id,
        node_id=metadata.dst_node_id,
        key=errand.key,
        kind=metadata.message_type,
        sent_s=errand.sent_s,
        down_bits=errand.down_bits,
        **values,
    )
