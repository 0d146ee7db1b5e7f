"""Resources a node shares out among the neighbours it hears: band, and others beside it.

A link takes need / amount seconds of a resource, so whatever is worked off at a rate in proportion to what is allotted
fits: the band of a receiver, its processor's time, the power of its decoder. One after the other, not at once: their
seconds add up. Nothing here chooses an amount.

Letters as in `control.controller`, and with a resource r:
    X[r, i]      what node i has to share out, its budget                  unit      [resources, nodes]
    x[r, i, j]   what node i allots to hearing j; a row sums to its budget  unit      [resources, links]
    a[r, i, j]   need: what a model of j costs node i                       unit s    [resources, links]
    d[r, i, j]   a / x, the seconds that go into the resource; 0 where a = 0          [resources, links]
    L[i, j]      ready[i, j] + sum of d over r, with ready = P[j] + what is none of the resources

Source: [1] ¶57, "processor time", "battery power for a receiver", "representing resources as vectors".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import TopologyError
from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Observation, State
from .min_max import band_seconds

__all__ = [
    "Bandwidth",
    "PerBit",
    "Resource",
    "ResourceControl",
    "delays_s",
    "latency_without",
    "needs_of",
    "processor",
    "receiver_power",
    "restored",
    "share_equally",
]


class Resource(Protocol):
    """Something of which every node has a budget, and every link needs some."""

    @property
    def name(self) -> str:
        """What it is, with its unit: the key it has in a `ResourceControl`."""
        ...

    def budget(self, topology: Topology, budget_hz: Floats) -> Floats:
        """X, what each node has, in that unit, float64 [nodes]; `budget_hz` is the band of each."""
        ...

    def need(self, topology: Topology, observation: Observation) -> Floats:
        """a, unit-seconds, float64 [links]. Infinite where the link carries nothing, NaN where it is not known."""
        ...


@dataclass(frozen=True)
class Bandwidth:
    """The band of a receiver: a = D / S, so that a / x is the C of [1]. Its budget is the run's own."""

    @property
    def name(self) -> str:
        """Its key."""
        return "bandwidth_hz"

    def budget(self, topology: Topology, budget_hz: Floats) -> Floats:
        """The band of each node, Hz, float64 [nodes]."""
        del topology
        return budget_hz

    def need(self, topology: Topology, observation: Observation) -> Floats:
        """D / S, Hz s, float64 [links]."""
        return band_seconds(topology, observation)


@dataclass(frozen=True, eq=False, repr=False)
class PerBit:
    """A resource that is used up by the bit: a = D times what a bit costs.

    Args:
        name: what it is, with its unit.
        limit: the budget in that unit: one number for all nodes, or float64 [nodes].
        per_bit: unit-seconds a bit costs: one number for all links, or, where codecs or machines differ,
            float64 [links].

    Raises:
        TopologyError: a budget of 0 or less, a negative cost, or a number that is not finite.
    """

    name: str
    limit: float | Floats
    per_bit: float | Floats

    def __post_init__(self) -> None:
        limits, costs = np.asarray(self.limit, np.float64), np.asarray(self.per_bit, np.float64)
        if not np.isfinite(limits).all() or (limits <= 0.0).any():
            raise TopologyError(
                f"budget of {self.name}: {_range(limits)}; expected finite numbers above 0. A node that has none of it "
                "cannot hear anybody: leave its links out of the topology"
            )
        if not np.isfinite(costs).all() or (costs < 0.0).any():
            raise TopologyError(f"cost per bit of {self.name}: {_range(costs)}; expected finite numbers, 0 or more")

    def budget(self, topology: Topology, budget_hz: Floats) -> Floats:
        """The budget of each node, float64 [nodes].

        Raises:
            TopologyError: budgets were given for another number of nodes.
        """
        del budget_hz
        return self._per("node", self.limit, topology.nodes)

    def need(self, topology: Topology, observation: Observation) -> Floats:
        """D[j] times the cost of a bit, float64 [links].

        Raises:
            TopologyError: costs were given for another number of links.
        """
        costs = self._per("link", self.per_bit, topology.links)
        return np.asarray(observation.payload_bits[topology.sender] * costs)

    def _per(self, what: str, given: float | Floats, size: int) -> Floats:
        values = np.asarray(given, np.float64)
        if values.ndim and values.shape != (size,):
            raise TopologyError(
                f"{self.name}: an array of shape {values.shape} where there are {size} {what}s; give one number for "
                f"all, or one per {what}"
            )
        return np.broadcast_to(values, (size,)).copy()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PerBit)
            and self.name == other.name
            and np.array_equal(self.limit, other.limit)
            and np.array_equal(self.per_bit, other.per_bit)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PerBit({self.name!r}, {_range(self.limit)}, {_range(self.per_bit)})"


def processor(budget_cycles_per_s: float | Floats, cycles_per_bit: float | Floats) -> PerBit:
    """The processor of a receiver, shared between the tasks of decoding and mixing in each neighbour's model.

    A task of c cycles with x cycles per second of the processor takes c / x seconds.

    >>> pair = Topology.complete(2)
    >>> seen = Observation(np.zeros(2), np.ones(2), np.array([8e6, 8e6]))
    >>> processor(1e9, cycles_per_bit=50.0).need(pair, seen)  # cycles
    array([4.e+08, 4.e+08])
    """
    return PerBit("processor_cycles_per_s", budget_cycles_per_s, cycles_per_bit)


def receiver_power(budget_w: float | Floats, energy_j_per_bit: float | Floats) -> PerBit:
    """The power a receiver may draw from its battery, shared between the streams it decodes.

    The model: a bit costs the receive chain (converter, equaliser, iterative decoder) a fixed energy, so a stream that
    may draw x watts is decoded at x / energy bits per second. What no stream's share can change - the idle power of the
    radio - is not part of the budget. Nothing here is about the power of the sender, which belongs in S.
    """
    return PerBit("receiver_w", budget_w, energy_j_per_bit)


@dataclass(frozen=True, eq=False)
class ResourceControl(Control):
    """A `Control` with what the nodes allot of further resources; to whoever knows none of them, a plain `Control`.

    Attributes:
        amounts: x of every resource but the band, by name, each float64 [links]. The band is `bandwidth_hz`.
    """

    amounts: Mapping[str, Floats] = field(default_factory=dict)

    def amount(self, name: str) -> Floats:
        """What is allotted of a resource, the band among them, float64 [links].

        Raises:
            TopologyError: nothing is known of one of that name.
        """
        if name == "bandwidth_hz":
            return self.bandwidth_hz
        if name not in self.amounts:
            raise TopologyError(f"no amounts of {name!r}; there are {sorted({'bandwidth_hz', *self.amounts})}")
        return self.amounts[name]

    @classmethod
    def of(cls, control: Control, resources: Sequence[Resource], amounts: Floats) -> ResourceControl:
        """A control with other amounts, [resources, links], a row per resource, and all else as it was."""
        further = dict(control.amounts) if isinstance(control, ResourceControl) else {}
        band_hz = control.bandwidth_hz
        for resource, amount in zip(resources, amounts, strict=True):
            if resource.name == "bandwidth_hz":
                band_hz = amount
            else:
                further[resource.name] = amount
        return cls(control.weights, control.self_weights, band_hz, further)

    def saved(self) -> State:
        """As plain values and arrays, for a controller's state."""
        return super().saved() | {"amounts": dict(self.amounts)}


def restored(saved: State) -> Control:
    """Inverse of `Control.saved`, with further resources or without."""
    return ResourceControl(**saved) if "amounts" in saved else Control(**saved)


def share_equally(topology: Topology, in_use: npt.NDArray[np.bool_], budget: Floats) -> Floats:
    """A budget in equal parts over the links in use, float64 [links]; 0 on the others.

    >>> pair = Topology(3, receiver=[0, 0, 1], sender=[1, 2, 0])
    >>> share_equally(pair, np.array([True, True, False]), np.array([6.0, 6.0, 6.0]))
    array([3., 3., 0.])
    """
    used = in_use.astype(np.float64)
    return used * spread(budget / np.maximum(sum_rows(used, topology.indptr), 1.0), topology.indptr)


def needs_of(resources: Sequence[Resource], topology: Topology, observation: Observation) -> Floats:
    """a of each resource, float64 [resources, links]."""
    needs = [resource.need(topology, observation) for resource in resources]
    return np.array(needs, np.float64).reshape(len(resources), topology.links)


def delays_s(needs: Floats, amounts: Floats) -> Floats:
    """d = a / x, seconds; 0 where nothing is needed, infinite where something is and none is allotted.

    >>> delays_s(np.array([6.0, 0.0, 1.0]), np.array([2.0, 0.0, 0.0]))
    array([ 3.,  0., inf])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(needs == 0.0, 0.0, needs / amounts)


def latency_without(
    resources: Sequence[Resource], topology: Topology, control: ResourceControl, observation: Observation
) -> Floats:
    """What of each link's `latency_s` went into none of these resources, seconds, float64 [links].

    The latency measured, less what these resources take under the control in force. That need not be what they took:
    less than nothing is taken as nothing, and what they took more stays in. Nothing is known to go into a link not in
    use. The band is not part of `latency_s`; it may be among the resources or not.
    """
    foretold_s = np.zeros(topology.links)
    for resource in resources:
        if resource.name != "bandwidth_hz":
            delay_s = delays_s(resource.need(topology, observation), control.amount(resource.name))
            foretold_s += np.where(control.in_use & np.isfinite(delay_s), delay_s, 0.0)
    measured_s = observation.latency_s if len(observation.latency_s) else np.zeros(topology.links)
    return np.maximum(measured_s - foretold_s, 0.0)


def _range(given: float | Floats) -> str:
    values = np.atleast_1d(given)
    if not len(values):
        return "nothing"
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
