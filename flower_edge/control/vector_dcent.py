"""`VectorDcent`: straggler control of weights and several resources at once.

`Dcent` with a vector in the place of the band ([1] ¶57): the requirement values are those of `vector_requirements`, and
everything else - step, pruning, what keeps the network connected, probing, silent nodes - is a `Dcent`'s, which moves
the weights and the band; further resources follow the same step. With the band alone it is that `Dcent`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ..errors import ConfigError
from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Observation, Start, State
from .dcent import Dcent
from .decision import Report
from .link_memory import Known, look_at_links
from .moves import Step
from .pruning import halved_at_most
from .resources import Resource, ResourceControl, delays_s, latency_without, needs_of, share_equally
from .vector_requirements import Split, move_amounts, vector_requirements

__all__ = ["VectorDcent"]


@dataclass(frozen=True)
class VectorDcent:
    """Every node hands weight to its early links and resources to its slowest, a step per round.

    Args:
        resources: what is handed over. Without `Bandwidth()` the band is handed on only where links are dropped or
            tried, and what transfers take counts as given.
        dcent: how far steps go, which links are dropped, and all else. Its `theta` splits a link's slack between its
            weight and all of its resources; None is the letter of [1], where both get all of it.
        split: how the resources share theirs, see `vector_requirements`.

    Raises:
        ConfigError: no resource, one twice, or a `Dcent` with an option that has no vector form.
    """

    resources: tuple[Resource, ...]
    dcent: Dcent = field(default_factory=lambda: Dcent(theta=0.5, steps="row", step_cap=0.03))
    split: Split = "priced"
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        names = [resource.name for resource in self.resources]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"resources {names}: expected at least one, and each once")
        for option, only in (
            ("side", "receiver"),
            ("cap", "current"),
            ("bound", "slack"),
        ):
            if (value := getattr(self.dcent, option)) != only:
                raise ConfigError(f"{option}={value!r} has no form for several resources; use Dcent({option}={only!r})")
        if self._band is None and self.dcent.hand_over != "proportional":
            raise ConfigError(
                f"hand_over={self.dcent.hand_over!r} shares out the band; put Bandwidth() among the resources"
            )

    def init(self, start: Start) -> tuple[Control, State]:
        """The start's weights and band; of all else every link in use gets the same."""
        control, state = self.dcent.init(start)
        amounts = {
            resource.name: share_equally(
                start.topology, control.in_use, resource.budget(start.topology, start.budget_hz)
            )
            for resource in self.resources
            if resource.name != "bandwidth_hz"
        }
        told = ResourceControl(control.weights, control.self_weights, control.bandwidth_hz, amounts)
        return told, {"dcent": state, "amounts": amounts, "payload_bits": start.payload_bits}

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """One move of all rows."""
        bits = np.where(np.isfinite(observation.payload_bits), observation.payload_bits, state["payload_bits"])
        observation = replace(observation, payload_bits=bits)
        memory, server = state["dcent"]["memory"], state["dcent"]["server"]
        topology, budget_hz = Topology.of_sorted(**server["links"]), server["budget_hz"]
        plain = self.dcent.control_of(server)
        control = ResourceControl(plain.weights, plain.self_weights, plain.bandwidth_hz, state["amounts"])

        rest = self._without(topology, control, observation)
        known, memory = look_at_links(memory, topology, rest, "receiver", self.dcent.smoothing)
        needs = needs_of(self.resources, topology, observation)
        if self._band is not None:
            needs[self._band] = known.need_hz_s
        wanted = vector_requirements(
            topology,
            control,
            np.array([control.amount(resource.name) for resource in self.resources]),
            needs,
            known.ready_s,
            observation.heard_s,
            known.heard,
            theta=self.dcent.theta,
            split=self.split,
            self_entry=self.dcent.self_entry,
            ties=self.dcent.ties,
        )
        band_hz = control.bandwidth_hz if self._band is None else wanted.amounts_hat[self._band]
        requirements = replace(wanted.scalar, bandwidth_hat_hz=band_hz)
        signals, memory = self.dcent.signals(memory, topology, control, budget_hz, requirements, known)
        report = Report(requirements, signals, self._for_the_band(control, needs, known))
        decision, server = self.dcent.decide(server, report)

        after = self.dcent.control_of(server)
        assert decision.alpha is not None
        step = Step.of(topology, decision.alpha, decision.per, decision.own)
        step = halved_at_most(topology, control, requirements, step, decision.refused)
        amounts = {}
        for r, resource in enumerate(self.resources):
            if r != self._band:
                budget = resource.budget(topology, budget_hz)
                moved = move_amounts(topology, control.amount(resource.name), budget, wanted, r, step)
                amounts[resource.name] = self._fit(topology, moved, budget, control, after)
        told = ResourceControl(after.weights, after.self_weights, after.bandwidth_hz, amounts)
        return told, {"dcent": {"memory": memory, "server": server}, "amounts": amounts, "payload_bits": bits}

    @property
    def _band(self) -> int | None:
        """Which of the resources is the band."""
        return next((r for r, resource in enumerate(self.resources) if resource.name == "bandwidth_hz"), None)

    def _without(self, topology: Topology, control: ResourceControl, observation: Observation) -> Observation:
        """As if none of the resources had taken any time: what is left is what the sender is waited for."""
        rest_s = latency_without(self.resources, topology, control, observation)
        if self._band is None:
            rest_s = rest_s + np.where(control.in_use, observation.transfer_s(topology, control.bandwidth_hz), 0.0)
        return replace(observation, latency_s=np.where(np.isfinite(rest_s), rest_s, np.nan))

    def _for_the_band(self, control: ResourceControl, needs: Floats, known: Known) -> Known:
        """The other resources, too, are nothing that the band could shorten."""
        ready_s = known.ready_s
        for r, resource in enumerate(self.resources):
            if r != self._band:
                spent_s = delays_s(needs[r], control.amount(resource.name))
                ready_s = ready_s + np.where(np.isfinite(spent_s), spent_s, 0.0)
        return replace(known, ready_s=ready_s)

    def _fit(self, topology: Topology, amounts: Floats, budget: Floats, before: Control, after: Control) -> Floats:
        """Amounts after links were dropped or tried: those tried get what `Dcent` gives them of the band."""
        if np.array_equal(before.in_use, after.in_use):
            return amounts
        kept, new = before.in_use & after.in_use, after.in_use & ~before.in_use
        given = np.where(new, self.dcent.probe_share * share_equally(topology, after.in_use, budget), 0.0)
        rest = np.where(kept, amounts, 0.0)
        left, total = budget - sum_rows(given, topology.indptr), sum_rows(rest, topology.indptr)
        alone = (total <= 0.0) & (left < budget)
        rest *= spread(left / np.where(total > 0.0, total, 1.0), topology.indptr)
        return np.where(
            spread(alone.astype(np.float64), topology.indptr) > 0.0,
            share_equally(topology, after.in_use, budget),
            rest + given,
        )
