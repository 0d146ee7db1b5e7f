"""The `Controller` promise: which weights and which bandwidth every link has in the next round.

A controller is a value. Its state is handed in and handed back, as nested dicts of plain values and arrays, so that it
can live in a checkpoint. It sees what was measured in the last round and says what to do in the next. Nothing here
trains, sends or logs.

Letters, used in this room exactly as in [1] (docs/sources.md) and its reconstruction in docs/control.md; arrays over
links lie in the order of `Topology`: by receiver i, then by sender j:
    W[i, j]   weight node i gives to node j's model; rows sum to 1 with W[i, i]   [links], [nodes] for W[i, i]
    B[i, j]   band node i allots to hearing j; a row sums to its budget    Hz     [links]
    P[j]      from the start of a round until j's model is ready           s      [nodes]
    S[i, j]   spectral efficiency of the link j -> i                  bit/s/Hz    [links]
    D[j]      payload                                                     bit     [nodes]
    C[i, j]   D / (B S), link latency; infinite where B = 0                s      [links]
    L[i, j]   P[j] + C[i, j], from the start of the round until i has j's model;  L[i, i] = P[i]
    c[i, j]   W[i, j] L[i, j], weighted link cost; 0 where W = 0
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import TopologyError
from ..topology.rows import Floats, sum_rows
from ..topology.topology import Topology

__all__ = ["Control", "Controller", "Observation", "Start", "State"]

#: A controller's memory between rounds: plain values and arrays, keys are text.
State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Control:
    """What the nodes are told for a round, over the links of a topology.

    A link is in use where its weight is above 0; there, and only there, it has bandwidth (one that carries data at
    all). The two are pruned together.

    Attributes:
        weights: W[i, j], float64 [links].
        self_weights: W[i, i], float64 [nodes].
        bandwidth_hz: B[i, j], float64 [links].
    """

    weights: Floats
    self_weights: Floats
    bandwidth_hz: Floats

    @property
    def in_use(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Links with weight, bool [links]."""
        return self.weights > 0.0

    def saved(self) -> State:
        """As arrays by name, for a state; `resources.restored` is the inverse."""
        return dict(vars(self))

    def check(self, topology: Topology, budget_hz: Floats, *, tolerance: float = 1e-9) -> None:
        """Refuse what cannot be carried out: the second and third constraint of [1], Table 1.

        Raises:
            TopologyError: names the first row that does not sum to 1, exceeds its budget, or has weight without band.
        """
        for name, values, size in (
            ("weights", self.weights, topology.links),
            ("self_weights", self.self_weights, topology.nodes),
            ("bandwidth_hz", self.bandwidth_hz, topology.links),
        ):
            if values.shape != (size,) or not np.isfinite(values).all() or (values < 0).any():
                raise TopologyError(f"{name}: expected {size} finite values, 0 or more, in the order of the topology")
        sums = sum_rows(self.weights, topology.indptr) + self.self_weights
        if (wrong := np.abs(sums - 1.0) > tolerance).any():
            i = int(wrong.argmax())
            raise TopologyError(f"the weights of node {i} sum to {sums[i]!r}, expected 1")
        used_hz = sum_rows(self.bandwidth_hz, topology.indptr)
        if (over := used_hz > budget_hz * (1.0 + tolerance)).any():
            i = int(over.argmax())
            raise TopologyError(f"node {i} shares out {used_hz[i]} Hz, its budget is {budget_hz[i]} Hz")
        if (mute := self.in_use & (self.bandwidth_hz <= 0.0)).any():
            k = int(mute.argmax())
            raise TopologyError(
                f"node {topology.receiver[k]} gives node {topology.sender[k]} weight and no band: it would wait for "
                "ever; prune both together"
            )


@dataclass(frozen=True, eq=False)
class Start:
    """What is known before the first round.

    Attributes:
        topology: every link that may be used.
        control: weights and bandwidth somebody has chosen to begin with; a controller may choose others.
        budget_hz: band of each node, float64 [nodes].
        payload_bits: D, float64 [nodes].
        spectral_efficiency: S as first measured, float64 [links].
        processing_s: P as expected, float64 [nodes]; None where nothing is known.
    """

    topology: Topology
    control: Control
    budget_hz: Floats
    payload_bits: Floats
    spectral_efficiency: Floats
    processing_s: Floats | None = None


@dataclass(frozen=True, eq=False)
class Observation:
    """What was measured in a round.

    Attributes:
        processing_s: P, float64 [nodes]; NaN for a node that was silent.
        spectral_efficiency: S, float64 [links], of links not in use, too (pilots); NaN where nothing was measured,
            0 for a link that carries nothing.
        payload_bits: D, counted from what was sent, float64 [nodes].
        latency_s: what a link takes beside P and D / (B S), float64 [links].
    """

    processing_s: Floats
    spectral_efficiency: Floats
    payload_bits: Floats
    latency_s: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def heard_s(self) -> Floats:
        """P of who was heard, NaN for all others; what is no time, endless or negative, was not heard. [nodes]."""
        measured = np.isfinite(self.processing_s) & (self.processing_s >= 0.0)
        return np.where(measured, self.processing_s, np.nan)

    def ready_s(self, topology: Topology) -> Floats:
        """P[j] of every link, with its latency: what no bandwidth can shorten. float64 [links]."""
        ready_s = self.processing_s[topology.sender]
        return ready_s + self.latency_s if len(self.latency_s) else ready_s

    def transfer_s(self, topology: Topology, bandwidth_hz: Floats) -> Floats:
        """C = D / (B S), float64 [links]; infinite where nothing is carried, NaN where S is not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.payload_bits[topology.sender] / (bandwidth_hz * self.spectral_efficiency))


class Controller(Protocol):
    """Chooses weights and bandwidth for the next round. Holds no state of its own."""

    #: Whether `step` wants the observation of the coming round instead of the last one's: only a comparator may.
    clairvoyant: ClassVar[bool]

    def init(self, start: Start) -> tuple[Control, State]:
        """The control of the first round, and the state."""
        ...

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The control of the next round, from what was measured in the last."""
        ...
