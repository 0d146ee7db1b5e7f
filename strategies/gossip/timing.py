"""When rounds of gossip begin and end, in the time of the world: with a barrier, or tolerating stale packets.

With a barrier everybody waits until everybody has every packet it gives weight to. Without one a worker goes on as
soon as, of every neighbour it hears, a packet is there that is at most `staleness` rounds old; it mixes the newest
packet of each that has arrived. Rounds keep their numbers: nobody sees a packet of a round that it has not begun.

Nothing here sends or knows a Grid: numbers in, numbers out. Rounds count from 1.

Letters, of node i in round t:
    a[i]       when it begins the round                       s
    r[i]       a[i] + P[i], when its packet is ready          s
    r[j] + C[i, j]   when i has j's packet                    s
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flower_edge.control.controller import Control, Observation
from flower_edge.control.costs import round_time_s
from flower_edge.topology.rows import Floats, Indices, largest_in_rows
from flower_edge.topology.topology import Topology

__all__ = ["Timing", "reached"]


def reached(topology: Topology, control: Control, seen: Observation) -> Control:
    """The control without links that carried nothing in this round: nobody waits for those, nothing comes over them."""
    with np.errstate(invalid="ignore"):
        endless = control.in_use & np.isinf(seen.transfer_s(topology, control.bandwidth_hz))
    if not endless.any():
        return control
    return replace(control, weights=np.where(endless, 0.0, control.weights))


@dataclass(frozen=True, eq=False)
class Timing:
    """Where a group is in time. A value.

    Attributes:
        staleness: by how many rounds a packet may be older than with a barrier; 0 is the barrier.
        begins_s: a of the coming round, float64 [nodes].
        arrivals_s: arrival of the packets of the last rounds, the newest last; float64 [links] each, infinite where
            the link carried none.
        sent_in: numbers of those rounds; one in which nobody answered at all has none.
        span_s: what the last round took: from the earliest moment at which all had begun it to that of the next.
    """

    staleness: int
    begins_s: Floats
    arrivals_s: tuple[Floats, ...] = field(default=())
    sent_in: tuple[int, ...] = ()
    span_s: float = 0.0

    @classmethod
    def begin(cls, staleness: int, topology: Topology, now_s: float) -> Timing:
        """Everybody begins a round now."""
        return cls(staleness, np.full(topology.nodes, now_s))

    @property
    def now_s(self) -> float:
        """When the last worker begins the coming round."""
        return float(self.begins_s.max(initial=0.0))

    def not_before(self, time_s: float | None) -> Timing:
        """The same, where somebody else's clock has gone on beyond it: evaluations take time, too."""
        if time_s is None or time_s <= self.now_s:
            return self
        return replace(self, begins_s=np.full(len(self.begins_s), time_s))

    def after(self, topology: Topology, control: Control, seen: Observation, round: int) -> Timing:
        """After this round. A silent node (P is NaN) neither sends nor is waited for; it is ready with the last one.

        Links that carry nothing in this round (S is 0) are not waited for either.
        """
        control = reached(topology, control, seen)
        ready_s = self.begins_s + seen.processing_s
        ready_s = np.where(np.isnan(ready_s), np.nanmax(np.append(ready_s, self.now_s)), ready_s)
        with np.errstate(invalid="ignore"):
            came_s = ready_s[topology.sender] + seen.transfer_s(topology, control.bandwidth_hz)
            came_s += seen.latency_s if len(seen.latency_s) else 0.0
        spoke = ~np.isnan(seen.processing_s)[topology.sender]
        came_s = np.where(control.in_use & spoke & ~np.isnan(came_s), came_s, np.inf)
        if self.staleness == 0:
            span_s = round_time_s(topology, control, seen)
            begins_s = np.full(topology.nodes, self.now_s + span_s)
            return Timing(0, begins_s, (came_s,), (round,), span_s)
        kept = (*self.arrivals_s, came_s)[-(self.staleness + 1) :]
        sent_in = (*self.sent_in, round)[-(self.staleness + 1) :]
        full = len(kept) == self.staleness + 1
        # Once there are that many rounds, one of their packets must be there; before, a worker need not wait at all.
        # A link that carried nothing in all of them is not waited for.
        earliest_s = np.minimum.reduce(kept)
        must_s = np.where(control.in_use & np.isfinite(earliest_s), earliest_s, -np.inf) if full else None
        waits_s = np.full(topology.nodes, -np.inf) if must_s is None else largest_in_rows(must_s, topology.indptr)
        begins_s = np.maximum(ready_s, waits_s)
        return Timing(self.staleness, begins_s, kept, sent_in, float(begins_s.max() - self.now_s))

    def newest(self, topology: Topology) -> Indices:
        """For each link the round of the newest packet that is there when the receiver begins; 0 where none is."""
        begins_s = self.begins_s[topology.receiver]
        newest = np.zeros(topology.links, np.int64)
        for round, came_s in zip(self.sent_in, self.arrivals_s, strict=True):
            # With a barrier everything that was sent is there.
            there = np.isfinite(came_s) if self.staleness == 0 else came_s <= begins_s
            newest = np.where(there, round, newest)
        return newest

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "begins_s": self.begins_s,
            "arrivals_s": list(self.arrivals_s),
            "sent_in": list(self.sent_in),
            "span_s": self.span_s,
        }

    @classmethod
    def from_state(cls, staleness: int, state: Mapping[str, Any]) -> Timing:
        """Inverse of `state_dict`."""
        arrivals_s, sent_in = tuple(state["arrivals_s"]), tuple(state["sent_in"])
        return cls(staleness, state["begins_s"], arrivals_s, sent_in, float(state["span_s"]))
