"""`Founder`: makes a gossiping group, and makes it anew when workers come or go, or a run is resumed.

The environment is defined, rows to begin with are found, the controller is asked for its own. Nothing here sends.

Source: [1] ¶35-38.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flwr.serverapp import Grid

from flower_edge.codecs.codec import Arrays, Codec
from flower_edge.codecs.delta import Delta
from flower_edge.control.baselines import equal_control
from flower_edge.control.controller import Controller, Start
from flower_edge.errors import TopologyError

from .environment import Environment, Unmodelled
from .group import Group
from .initial import Initial, initial_control
from .membership import Membership
from .replicas import Replicas
from .signalling import make_signalling
from .timing import Timing

if TYPE_CHECKING:
    from .gossip import Gossip

__all__ = ["Founder"]

log = getLogger("flwr.edge")


@dataclass(frozen=True)
class Founder:
    """What every group of a run has in common; fields as the arguments of `Gossip`, and whether letters go directly."""

    controller: Controller
    signalling: Literal["rows", "requirements", "scalars"]
    codec: Codec
    staleness: int
    payload_bits: float | None
    initial: Initial
    seed: int
    membership: Membership
    direct: bool

    @classmethod
    def of(cls, strategy: Gossip) -> Founder:
        """What the groups of this strategy have in common."""
        world = strategy.world if strategy.topology is None else Unmodelled(strategy.topology)
        return cls(
            controller=strategy.controller,
            signalling=strategy.signalling,
            codec=strategy.codec,
            staleness=strategy.staleness,
            payload_bits=strategy.payload_bits,
            initial=strategy.initial,
            seed=strategy.seed,
            membership=Membership(strategy.workers, world, strategy.away_rounds),
            direct=strategy.mailbox != "relay",
        )

    def first(
        self,
        grid: Grid,
        present: Sequence[int],
        server_round: int,
        begin_s: float,
        like: Arrays,
        saved: Mapping[str, Any] | None,
    ) -> Group:
        """The group of the first round, or that of a checkpoint where some of its workers can be found.

        Raises:
            ProtocolError: nobody is there.
            TopologyError: rows that do not connect the workers.
        """
        if saved is not None:
            numbers, parts = saved["numbers"], saved["partitions"]
            nodes = {int(node): int(i) for node, i in saved.get("nodes", ())}
            env = Environment.again(grid, present, numbers, parts, self.membership.world, nodes)
            if env.index:
                group = self._group(env, int(saved["defined_in"]), begin_s, like)
                group.load_state_dict(saved)
                return group
        return self._group(self.membership.first(grid, present), server_round, begin_s, like)

    def anew(
        self,
        group: Group,
        grid: Grid,
        present: Sequence[int],
        server_round: int,
        now_s: float | None,
        like: Arrays,
        *,
        afresh: bool = False,
    ) -> Group | None:
        """The group with who has come and without who has gone; None where it is as it was.

        Who stays keeps its model; packets on their way are not mixed: their rows are no more.
        """
        env = self.membership.changed(group, grid, present, afresh=afresh)
        if env is None:
            return None
        new = self._group(env, server_round, group.timing.now_s if now_s is None else now_s, like, anyhow=True)
        before = group.env.index
        new.fresh = {i for node, i in env.index.items() if node not in before or before[node] in group.fresh}
        new.silent_rounds = {
            i: group.silent_rounds.get(before[node], 0) for node, i in env.index.items() if node in before
        }
        new.store, new.relayed = group.store, group.relayed
        stayed = {env.numbers[i] for i in range(len(env.numbers)) if i not in new.fresh}
        new.codec_states = {name: state for name, state in group.codec_states.items() if name in stayed}
        new.replicas = group.replicas
        new.replicas.keep(stayed)
        return new

    def _group(
        self, env: Environment, server_round: int, begin_s: float, like: Arrays, *, anyhow: bool = False
    ) -> Group:
        topology, budget_hz = env.topology, env.world.budget_hz
        bits = self.payload_bits if self.payload_bits is not None else 8.0 * sum(a.nbytes for a in like.values())
        efficiency = env.efficiency(server_round, None)
        control = equal_control(topology, budget_hz, ~(efficiency <= 0.0))
        start = Start(topology, control, budget_hz, np.full(topology.nodes, float(bits)), efficiency)
        try:
            start = initial_control(self.initial, start, seed=self.seed)
        except TopologyError as error:
            if not anyhow:
                raise
            # In the middle of a run a network that is apart for now is no reason to end it.
            log.warning("\tthe rows to begin with are equal ones: %s", error)
        control, state = self.controller.init(start)
        group = Group(
            env=env,
            controller=self.controller,
            signalling=make_signalling(self.signalling, self.controller),
            codec=self.codec,
            timing=Timing.begin(self.staleness, topology, begin_s),
            start=start,
            control=control,
            state=state,
            efficiency=efficiency,
            replicas=Replicas(used=isinstance(self.codec, Delta), direct=self.direct),
            fresh=set(range(topology.nodes)),
            predicted_bits=self.payload_bits,
            defined_in=server_round,
        )
        group.check()
        return group
