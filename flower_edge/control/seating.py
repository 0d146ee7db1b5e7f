"""Schedules laid over a network: a node at every seat, so that the rounds of a period are short in the mean.

Where all nodes in question hear each other, the schedule is seated by `relabel`, held against the mean true time for
the P that has been seen. Where some do not, no seat can be given freely: then the pairs of a sparse, connected choice
of links take turns instead, each round a matching. Nothing here trains or sends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..topology.overlays import cheapest_links, matchings
from ..topology.peer_schedules import Exchange
from ..topology.relabel import exchange_seats, spectral_order
from ..topology.rows import Floats, Indices
from .phases import Outlook, Phase

__all__ = ["laid_out", "mean_true_time_s", "taking_turns"]

#: Beyond so many nodes seats are given by the order along the smoothest vector; up to it they are searched for.
_SEARCHED = 128


def laid_out(outlook: Outlook, schedule: Callable[[int], list[Exchange]], *, seed: int, trials: int) -> list[Phase]:
    """The phases of a schedule over the nodes with neighbours; `taking_turns` where not all of them hear each other.

    Args:
        schedule: the exchanges for a number of seats.
        trials: seatings tried, about.
    """
    both = outlook.both_ways
    members = np.unique(outlook.topology.receiver[both])
    count = len(members)
    if int(both.sum()) < count * (count - 1):
        return taking_turns(outlook)
    if count < 2:
        return [_nothing()]
    exchanges = schedule(count)
    if count <= _SEARCHED:
        costs = _seat_costs(outlook, members, exchanges)
        order, _ = exchange_seats(costs, np.arange(count), seed=seed, trials=trials)
    else:
        close = np.where(both, 1.0 / (outlook.whole_s + outlook.extra_s), 0.0)
        whole = spectral_order(outlook.topology, close)
        order = np.searchsorted(members, whole[np.isin(whole, members)])
    return [_phase(outlook, members[order], exchange) for exchange in exchanges]


def taking_turns(outlook: Outlook, neighbours: int = 2) -> list[Phase]:
    """One pair per node and round, each with half the other's model, over the cheapest links and a spanning tree."""
    topology = outlook.topology
    cost = np.where(outlook.both_ways, outlook.whole_s + outlook.extra_s, np.inf)
    parts = matchings(topology, cheapest_links(topology, cost, neighbours), cost)
    return [Phase(part, np.full(len(part), 0.5)) for part in parts] or [_nothing()]


def mean_true_time_s(outlook: Outlook, phases: list[Phase]) -> float:
    """Mean true time of a round of these phases with equal waits in every row: what plans are compared by."""
    topology = outlook.topology
    total = 0.0
    for phase in phases:
        receiver, sender = topology.receiver[phase.links], topology.sender[phase.links]
        wait_s = np.bincount(receiver, outlook.whole_s[phase.links], minlength=topology.nodes)
        after_s = np.zeros(topology.nodes)
        np.maximum.at(after_s, sender, wait_s[receiver] + outlook.extra_s[phase.links])
        total += float(outlook.ready.largest_s(after_s))
    return total / len(phases)


def _nothing() -> Phase:
    return Phase(np.zeros(0, np.int64), np.zeros(0))


def _phase(outlook: Outlook, node: Indices, exchange: Exchange) -> Phase:
    links = outlook.topology.find(node[exchange.receiver], node[exchange.sender])
    order = np.argsort(links)
    return Phase(links[order], exchange.weight[order])


def _seat_costs(outlook: Outlook, members: Indices, exchanges: list[Exchange]) -> Callable[[Indices], Floats]:
    """Mean true time over a period, of many seatings at once."""
    topology, count = outlook.topology, len(members)
    seat_of = np.full(topology.nodes, -1)
    seat_of[members] = np.arange(count)
    both = outlook.both_ways
    seconds, extra = np.zeros((count, count)), np.zeros((count, count))
    ends = seat_of[topology.receiver[both]], seat_of[topology.sender[both]]
    seconds[ends], extra[ends] = outlook.whole_s[both], outlook.extra_s[both]
    rounds = []
    for exchange in exchanges:
        by_receiver = np.lexsort((exchange.sender, exchange.receiver))
        receiver, sender = exchange.receiver[by_receiver], exchange.sender[by_receiver]
        first = np.flatnonzero(np.diff(receiver, prepend=-1))
        back = np.repeat(np.arange(len(first)), np.diff(first, append=len(receiver)))
        by_sender = np.argsort(sender, kind="stable")
        sends = np.flatnonzero(np.diff(sender[by_sender], prepend=-1))
        rounds.append((receiver, sender, first, back, by_sender, sends, sender[by_sender][sends]))

    def costs(orders: Indices) -> Floats:
        total = np.zeros(len(orders))
        for receiver, sender, first, back, by_sender, sends, who in rounds:
            ends = orders[:, receiver], orders[:, sender]
            wait_s = np.add.reduceat(seconds[ends], first, axis=1)[:, back] + extra[ends]
            slowest_s = np.maximum.reduceat(wait_s[:, by_sender], sends, axis=1)
            after_s = np.zeros((len(orders), topology.nodes))
            np.put_along_axis(after_s, members[orders[:, who]], slowest_s, axis=1)
            total += outlook.ready.largest_s(after_s)
        return total / len(rounds)

    return costs
