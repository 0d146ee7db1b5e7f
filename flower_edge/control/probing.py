"""Trying a pruned link again: it is given weight and band for a round, so that it can be measured and earn its place.

Eqs. 1 to 8 of [1] never bring back a link without weight. A probe does, explicitly: the best of a node's pruned links
takes a small part of its row and of its band, and from then on is a link like any other. Nothing here drops links.
"""

from __future__ import annotations

import numpy as np

from ..topology.rows import Floats, Indices, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, State
from .link_memory import Known

__all__ = ["choose_probes", "give_probes"]


def choose_probes(
    memory: State,
    topology: Topology,
    control: Control,
    budget_hz: Floats,
    known: Known,
    every: int | None,
    silent_after: int | None,
) -> tuple[Indices, State]:
    """Which links without weight to try now, by each row's own knowledge: int64 [some].

    Every `every` rounds, in each row the one that has been tried least often; of those the one that needs least band
    (best S), of those the first. And at once every link that was lost, or dropped because its sender was silent, and
    can be heard again. A link whose sender was not heard, or that carries nothing, is
    not tried, and nothing by a node without band.
    """
    due = every is not None and memory["round"] % every == 0
    gone = memory["gone"]
    if not due and gone is None and known.heard is None:
        return np.zeros(0, np.int64), memory
    weights = control.weights
    fit = np.isfinite(known.need_hz_s) if known.heard is None else known.heard
    unused = (weights <= 0.0) & (spread(budget_hz, topology.indptr) > 0.0)
    chosen = np.zeros(topology.links, bool)
    if known.heard is not None or gone is not None:
        missing = np.isinf(known.need_hz_s)
        if silent_after is not None and known.silent is not None:
            missing |= known.silent >= silent_after
        away = unused & (missing if gone is None else missing | gone)
        chosen = away & fit
        memory = memory | {"gone": away & ~fit if (away & ~fit).any() else None}
    if due:
        tried = np.zeros(topology.links, np.int64) if memory["probed"] is None else memory["probed"]
        could = np.flatnonzero(unused & fit & ~chosen)
        order = could[np.lexsort((could, known.need_hz_s[could], tried[could], topology.receiver[could]))]
        first = np.ones(len(order), bool)
        first[1:] = np.diff(topology.receiver[order]) > 0
        chosen[order[first]] = True
        if chosen.any():
            memory = memory | {"probed": tried + chosen}
    return np.flatnonzero(chosen), memory


def give_probes(topology: Topology, control: Control, budget_hz: Floats, links: Indices, share: float) -> Control:
    """With some links in use that were not: each takes `share` of an equal part of its row and of its node's band.

    What the others have is scaled down alike, so rows still sum to 1 and to the budget. A node that heard nobody gives
    its whole band to the links it tries. Links that are in use already are left as they are.

    >>> pair = Topology.complete(2)
    >>> alone = Control(np.zeros(2), np.ones(2), np.zeros(2))
    >>> given = give_probes(pair, alone, np.full(2, 1e6), np.array([0]), share=0.5)
    >>> given.weights, given.self_weights, given.bandwidth_hz
    (array([0.25, 0.  ]), array([0.75, 1.  ]), array([1000000.,       0.]))
    """
    links = links[control.weights[links] <= 0.0]
    if not len(links):
        return control
    indptr, rows = topology.indptr, topology.receiver[links]
    more = np.bincount(rows, minlength=topology.nodes).astype(np.float64)
    used = sum_rows(control.in_use.astype(np.float64), indptr)
    part = np.where(more > 0.0, share / (used + more + 1.0), 0.0)
    band = np.where(used > 0.0, share, 1.0) * (more > 0.0) / np.maximum(used + more, 1.0)
    weights = control.weights * spread(1.0 - more * part, indptr)
    bandwidth_hz = control.bandwidth_hz * spread(1.0 - more * band, indptr)
    weights[links] = part[rows]
    bandwidth_hz[links] = (band * budget_hz)[rows]
    return Control(weights, control.self_weights * (1.0 - more * part), bandwidth_hz)
