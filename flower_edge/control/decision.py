"""What travels between nodes and server in a round of DCENT.

Up, from each node: its requirement values (`Report`), or as little as alpha_max, prune requests and probes
(`Signals`, O(1) per node). Down: a `Decision`. The server needs no more than `Signals` and the links in use to decide;
whoever gets `Report`s derives the signals from them, so both ways decide alike. Nothing here decides.

Letters as in `requirements`. Links are numbered as in the topology of whoever holds them: a node that holds its own
row counts from 0, `gather` and `Decision.for_row` translate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..topology.rows import Floats, Indices
from ..topology.topology import Topology
from .controller import Control
from .link_memory import Known
from .moves import Per
from .pruning import Requests
from .requirements import Requirements

__all__ = ["Decision", "Report", "Signals", "gather", "gather_reports", "row_topology"]


@dataclass(frozen=True, eq=False)
class Signals:
    """What decides: of all rows, or of one.

    Attributes:
        alpha_max: float64 [nodes].
        requests: links that ask to be dropped.
        probes: links without weight that are to be tried, int64 [some].
    """

    alpha_max: Floats
    requests: Requests
    probes: Indices

    def to_plain(self) -> dict[str, Any]:
        """Nested dicts of arrays, for a message."""
        return {"alpha_max": self.alpha_max, "requests": _plain(self.requests), "probes": self.probes}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Signals:
        """Inverse of `to_plain`."""
        return cls(plain["alpha_max"], Requests(**plain["requests"]), plain["probes"])


@dataclass(frozen=True, eq=False)
class Report:
    """What a node works out after a round: its requirement values, and the signals.

    `known` is what it knows of its links; it stays there, and is only needed for `hand_over="min-max"`.
    """

    requirements: Requirements
    signals: Signals
    known: Known | None = None

    def to_plain(self) -> dict[str, Any]:
        """Nested dicts of plain values and arrays, for a message; `known` is left out."""
        return {
            "requirements": _plain(self.requirements),
            "signals": self.signals.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Report:
        """Inverse of `to_plain`."""
        return cls(Requirements(**plain["requirements"]), Signals.from_plain(plain["signals"]))


@dataclass(frozen=True, eq=False)
class Decision:
    """What the nodes are told.

    Attributes:
        alpha: the step: a number, float64 [nodes] or float64 [links]; None where each node goes by its own rule.
        per: what it is given for.
        dropped: links to drop, int64 [some].
        refused: links that asked and have to stay, int64 [some].
        probes: links to try, int64 [some].
        own: the step of W[i, i] where steps are per link, float64 [nodes].
    """

    alpha: float | Floats | None
    per: Per
    dropped: Indices
    refused: Indices
    probes: Indices
    own: Floats | None = None

    def for_row(self, topology: Topology, i: int) -> Decision:
        """The part for node i, in the numbers of `row_topology(topology, i)`."""
        here = topology.row(i)

        def mine(links: Indices) -> Indices:
            return np.asarray(links[(links >= here.start) & (links < here.stop)] - here.start)

        alpha, own = self.alpha, self.own
        others = np.zeros(here.stop - here.start)
        if self.per == "row" and alpha is not None:
            alpha = np.concatenate([np.asarray(alpha)[i : i + 1], others])
        if self.per == "link" and alpha is not None:
            alpha = np.asarray(alpha)[here]
        if own is not None:
            own = np.concatenate([own[i : i + 1], others])
        return Decision(alpha, self.per, mine(self.dropped), mine(self.refused), mine(self.probes), own)

    def to_plain(self) -> dict[str, Any]:
        """Plain values and arrays, for a message or a file."""
        return _plain(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Decision:
        """Inverse of `to_plain`."""
        return cls(**plain)


def _plain(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def row_topology(topology: Topology, i: int) -> Topology:
    """What node i has to know of the network: itself as node 0, its neighbours in order as 1, 2, …

    Its links have the order they have in `topology`, so arrays over links are slices: `values[topology.row(i)]`.

    >>> row_topology(Topology.complete(3), 1)
    Topology(3 nodes, 2 links)
    """
    degree = int(topology.in_degree[i])
    return Topology(degree + 1, np.zeros(degree, np.int64), np.arange(1, degree + 1))


def gather(topology: Topology, parts: Mapping[int, Signals]) -> Signals:
    """The signals of all rows from those of each, made on `row_topology`. A row that is missing does not move."""
    alpha_max = np.full(topology.nodes, np.inf)
    probes, columns = [np.zeros(0, np.int64)], [_no_requests()]
    for i in sorted(parts):
        first = int(topology.indptr[i])
        alpha_max[i] = parts[i].alpha_max[0]
        probes.append(parts[i].probes + first)
        columns.append(replace(parts[i].requests, link=parts[i].requests.link + first))
    joined = {f.name: np.concatenate([getattr(part, f.name) for part in columns]) for f in fields(Requests)}
    return Signals(alpha_max, Requests(**joined), np.concatenate(probes))


def gather_reports(topology: Topology, control: Control, parts: Mapping[int, Report]) -> Report:
    """The report of all rows from those of each, made on `row_topology`. A row that is missing does not move."""
    weights_hat, bandwidth_hat_hz = control.weights.copy(), control.bandwidth_hz.copy()
    self_hat = control.self_weights.copy()
    straggler, tau_s = np.full(topology.nodes, -1, np.int64), np.zeros(topology.nodes)
    alpha_max = np.full(topology.nodes, np.inf)
    own, tied = np.zeros(topology.nodes, bool), np.zeros(topology.links, bool)
    shared = any(part.requirements.tied is not None for part in parts.values())
    clipped = impossible = 0
    for i, part in parts.items():
        row, values = topology.row(i), part.requirements
        weights_hat[row], bandwidth_hat_hz[row] = values.weights_hat, values.bandwidth_hat_hz
        self_hat[i], tau_s[i], alpha_max[i] = values.self_weights_hat[0], values.tau_s[0], values.alpha_max[0]
        straggler[i] = values.straggler[0] + row.start if values.straggler[0] >= 0 else -1
        own[i] = values.own_straggler is not None and values.own_straggler[0]
        tied[row] = values.tied if values.tied is not None else False
        clipped, impossible = clipped + values.clipped, impossible + values.impossible
    requirements = Requirements(
        weights_hat,
        bandwidth_hat_hz,
        self_hat,
        straggler,
        tau_s,
        alpha_max,
        own if own.any() else None,
        tied if shared else None,
        clipped,
        impossible,
    )
    return Report(requirements, gather(topology, {i: part.signals for i, part in parts.items()}))


def _no_requests() -> Requests:
    nothing = np.zeros(0)
    return Requests(np.zeros(0, np.int64), nothing, nothing, np.zeros(0, bool), np.zeros(0, bool))
