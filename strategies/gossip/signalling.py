"""What goes up and down so that every worker has its row: three ways to the same numbers.

`Rows`: workers tell delays, the server computes all rows and sends them. `StepSizes`: workers determine the requirement
values of their own row ([1] eqs. 1 and 2), the server a validated step, and workers move their rows by it; with
`scalars`, only what decides goes up: one number per worker, and the links it would give up or try. The workers' half
is `flower_edge.clients.gossip_row`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from flower_edge.control.controller import Controller, Observation
from flower_edge.control.dcent import Dcent
from flower_edge.control.decision import Decision, Report, gather, gather_reports
from flower_edge.errors import ConfigError
from flower_edge.runtime import gossip_messages as messages
from flower_edge.runtime.gossip_messages import to_json
from flower_edge.topology.topology import Topology

from .told_values import told_signals, told_values

if TYPE_CHECKING:
    from .group import Group

__all__ = ["Rows", "Signalling", "StepSizes", "make_signalling"]

Links = npt.NDArray[np.bool_]


class Signalling(Protocol):
    """Who computes rows."""

    def told(self, group: Group, i: int, *, fresh: bool) -> dict[str, Any]:
        """Further fields of worker i's order."""
        ...

    def may_carry(self, group: Group) -> Links:
        """Links that may be in use in the round that begins, bool [links]."""
        ...

    def heard(self, group: Group, reports: Mapping[int, messages.Report]) -> None:
        """What workers told in this round, before it is known how long it took."""
        ...

    def decide(self, group: Group, seen: Observation) -> None:
        """What the next round's control is, if that follows from what was measured here."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


def make_signalling(name: Literal["rows", "requirements", "scalars"], controller: Controller) -> Signalling:
    """By name.

    Raises:
        ConfigError: a controller whose rows workers cannot determine themselves.
    """
    if name == "rows":
        return Rows()
    if not isinstance(controller, Dcent):
        raise ConfigError(
            f"signalling={name!r} with {controller!r}: workers determine their own rows with a Dcent controller only; "
            "use signalling='rows'"
        )
    if name == "scalars" and controller.gap_min is not None:
        raise ConfigError(
            f"signalling='scalars' with gap_min={controller.gap_min}: a gap needs a server that is told the weights; "
            "use signalling='requirements' or 'rows'"
        )
    return StepSizes(controller, scalars=name == "scalars")


class Rows:
    """The server computes every row, with any controller."""

    def told(self, group: Group, i: int, *, fresh: bool) -> dict[str, Any]:
        """Nothing: weights are in every order."""
        return {}

    def may_carry(self, group: Group) -> Links:
        """Links in use."""
        return group.control.in_use

    def heard(self, group: Group, reports: Mapping[int, messages.Report]) -> None:
        """Nothing but delays, which the group has taken."""

    def decide(self, group: Group, seen: Observation) -> None:
        """The controller's step."""
        if not group.controller.clairvoyant:
            group.control, group.state = group.controller.step(group.state, seen)

    def state_dict(self) -> dict[str, Any]:
        """None: it is in the group."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class StepSizes:
    """Workers determine their own rows; the server says how far they may go.

    What workers tell in a round is about the round before, whose delays came with the message. So the control of round
    t is known when the replies of round t are in, and decides over which links their packets go.

    Args:
        controller: its three parts are called at three places.
        scalars: tell the server no more than it needs.
    """

    def __init__(self, controller: Dcent, *, scalars: bool) -> None:
        self.controller, self.scalars = controller, scalars
        self._server: dict[str, Any] | None = None
        self._memory: dict[str, Any] | None = None
        self._decision: Decision | None = None
        # Workers that hold their row as the server believes they do.
        self._in_step: set[int] = set()

    def told(self, group: Group, i: int, *, fresh: bool) -> dict[str, Any]:
        """What worker i observed, the decision, and its row where it does not hold it."""
        topology, seen = group.topology, group.seen
        row = topology.row(i)
        senders = topology.sender[row]
        held = i in self._in_step and not fresh
        told: dict[str, Any] = {
            "controller": asdict(self.controller),
            "senders": [group.env.numbers[j] for j in senders.tolist()],
            "scalars": self.scalars,
        }
        if seen is not None:
            told["seen"] = {
                "processing_s": np.concatenate([seen.processing_s[i : i + 1], seen.processing_s[senders]]),
                "spectral_efficiency": seen.spectral_efficiency[row],
                "payload_bits": np.concatenate([seen.payload_bits[i : i + 1], seen.payload_bits[senders]]),
                "latency_s": seen.latency_s[row] if len(seen.latency_s) else np.zeros(len(senders)),
            }
        if not held:
            in_force = group.control
            told["row"] = {
                "weights": in_force.weights[row],
                "self_weight": float(in_force.self_weights[i]),
                "bandwidth_hz": in_force.bandwidth_hz[row],
                "budget_hz": float(group.start.budget_hz[i]),
                "memory": None if self._memory is None else _of_row(self._memory, topology, i),
            }
        elif self._decision is not None:
            told["decision"] = self._decision.for_row(topology, i).to_plain()
        return {"row": to_json(told), "weights": []}

    def may_carry(self, group: Group) -> Links:
        """All links: which are in use is known only when the round's replies are in."""
        return np.ones(group.topology.links, bool)

    def heard(self, group: Group, reports: Mapping[int, messages.Report]) -> None:
        """Requirement values of the round before: the step, and with it the control of this round."""
        controller, topology = self.controller, group.topology
        budget_hz = group.start.budget_hz
        if self._server is None:
            known = (None, None) if self.scalars else (group.control, budget_hz)
            self._server = controller.begin(topology, group.control.in_use, *known)
            self._memory = controller.memory(topology)
        self._decision = None
        self._in_step = set()
        if group.seen is None:
            self._in_step = set(reports)
            return
        mirror = self._mirrored(group)
        if self.scalars:
            signals = {i: one for i, r in reports.items() if (one := told_signals(r.requirements, mirror, topology, i))}
            # How long links then take needs the rows as workers move them: the server goes through the same motions.
            self._decision, self._server = controller.decide_from_signals(self._server, gather(topology, signals))
            control = group.control
            moved = _only(mirror, topology, control.weights, control.bandwidth_hz, control.self_weights, signals)
            group.control = controller.apply(topology, control, budget_hz, moved, self._decision)
            self._in_step = set(signals)
        else:
            values = {i: rep for i, r in reports.items() if (rep := told_values(r.requirements, mirror, topology, i))}
            whole = gather_reports(topology, group.control, values)
            # Delays came through here: a rule that hands bands over by what is known need not be told them again.
            self._decision, self._server = controller.decide(self._server, replace(whole, known=mirror.known))
            group.control = controller.control_of(self._server)
            self._in_step = set(values)

    def _mirrored(self, group: Group) -> Report:
        """What the workers worked out, worked out here."""
        assert self._memory is not None
        assert group.seen is not None
        report, self._memory = self.controller.require(
            self._memory, group.topology, group.control, group.start.budget_hz, group.seen
        )
        return report

    def decide(self, group: Group, seen: Observation) -> None:
        """Nothing: workers say first what they require."""

    def state_dict(self) -> dict[str, Any]:
        """The server's half, and who holds its row."""
        decision = None if self._decision is None else self._decision.to_plain()
        return {
            "server": self._server,
            "memory": self._memory,
            "decision": decision,
            "in_step": sorted(self._in_step),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._server, self._memory = state["server"], state["memory"]
        self._decision = None if state["decision"] is None else Decision.from_plain(state["decision"])
        self._in_step = set(state["in_step"])


def _of_row(memory: Mapping[str, Any], topology: Topology, i: int) -> dict[str, Any]:
    """What node i would remember of its links, had it kept its row itself: on `row_topology`."""
    row = topology.row(i)
    ends = np.concatenate([[i], topology.sender[row]])
    return {
        name: value if not isinstance(value, np.ndarray) else value[ends] if name == "processing_s" else value[row]
        for name, value in memory.items()
    }


def _only(
    report: Report,
    topology: Topology,
    weights: npt.NDArray[np.float64],
    bandwidth_hz: npt.NDArray[np.float64],
    self_weights: npt.NDArray[np.float64],
    rows: Iterable[int],
) -> Report:
    """The report with the rows of all others at rest."""
    here = np.zeros(topology.nodes, bool)
    here[list(rows)] = True
    if here.all():
        return report
    links, values = here[topology.receiver], report.requirements
    requirements = replace(
        values,
        weights_hat=np.where(links, values.weights_hat, weights),
        bandwidth_hat_hz=np.where(links, values.bandwidth_hat_hz, bandwidth_hz),
        self_weights_hat=np.where(here, values.self_weights_hat, self_weights),
        straggler=np.where(here, values.straggler, -1),
        own_straggler=None if values.own_straggler is None else values.own_straggler & here,
        tied=None if values.tied is None else values.tied & links,
    )
    return replace(report, requirements=requirements)
