"""A controller at work in a world, without learning: what its controls cost, round by round.

Measures what a controller can be held against: f of [1] beside its least possible value in the same round, the true
time of a round beside its floor, and how many links are left. Nothing here trains or sends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..coverage.arguments import each
from ..errors import ConfigError
from ..topology.mixing import second_singular_value
from ..topology.rows import Floats, Indices
from ..topology.set_ups import LENET_BITS
from ..topology.world import World
from .baselines import equal_control
from .controller import Control, Controller, Observation, Start, State
from .costs import objective, round_time_s
from .optimum import weighted_optimum
from .with_resources import answering

__all__ = ["Trace", "first_look", "observe", "simulate"]


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened, an entry per round.

    Attributes:
        f_s: the objective of [1], seconds, float64 [rounds].
        optimum_s: the least objective possible in that round, float64 [rounds].
        true_s: true time of the round, float64 [rounds].
        floor_s: largest P: no control makes the round shorter, float64 [rounds].
        links: links in use, int64 [rounds].
        sigma2: second singular value of W, float64 [rounds]; empty where it was not asked for.
        control: that of the last round.
        state: the controller's, after the last round.
    """

    f_s: Floats
    optimum_s: Floats
    true_s: Floats
    floor_s: Floats
    links: Indices
    sigma2: Floats
    control: Control
    state: State

    @property
    def regret_s(self) -> float:
        """Dynamic regret: f above its optimum, summed over the rounds."""
        return float((self.f_s - self.optimum_s).sum())

    def f_over_opt(self, last: int = 50) -> float:
        """Mean f over mean optimum, in the last rounds.

        Raises:
            ConfigError: of no round.
        """
        of = self._last(last)
        return float(self.f_s[of].mean() / self.optimum_s[of].mean())

    def true_over_floor(self, last: int | None = None) -> float:
        """Mean true time over mean floor, in the last rounds; in all if `last` is None.

        Raises:
            ConfigError: of no round.
        """
        of = self._last(len(self.f_s) if last is None else last)
        return float(self.true_s[of].mean() / self.floor_s[of].mean())

    def _last(self, last: int) -> slice:
        if last < 1 or not len(self.f_s):
            raise ConfigError(f"a mean over the last {last} of {len(self.f_s)} rounds; run and ask for one or more")
        return slice(-last, None)


def observe(world: World, round: int, payload_bits: Floats) -> Observation:
    """What would be measured in a round of this world if nothing were lost."""
    return Observation(
        world.processing_s(round), world.spectral_efficiency(round), payload_bits, world.latency_s(round)
    )


def first_look(world: World, payload_bits: float | Floats = LENET_BITS) -> Start:
    """What is known of a world before its first round: S as it is then, nothing about P; equal weights and bands.

    Raises:
        ConfigError: payloads for another number of nodes, or below 0.
    """
    bits = each("payload_bits", payload_bits, world.topology.nodes).copy()
    efficiency = world.spectral_efficiency(1)
    control = equal_control(world.topology, world.budget_hz, efficiency > 0.0)
    return Start(world.topology, control, world.budget_hz, bits, efficiency)


def simulate(
    controller: Controller,
    world: World,
    rounds: int,
    *,
    payload_bits: float | Floats = LENET_BITS,
    start: Start | None = None,
    sigma2: bool = False,
) -> Trace:
    """Runs a controller for `rounds` rounds, 1 to `rounds`.

    `init` gives the control of round 1; `step`, with what was measured in round t, that of round t + 1. A clairvoyant
    controller is asked to `step` before every round, the first one too, with what will be measured in it.

    Args:
        payload_bits: D of every node, or float64 [nodes]; not used where `start` is given.
        start: what is known before; `first_look(world, payload_bits)` if None.
        sigma2: whether to compute the second singular value of every round's W.

    Raises:
        ConfigError: fewer than 0 rounds, or payloads that do not fit the world.
    """
    if rounds < 0:
        raise ConfigError(f"rounds = {rounds}: expected 0 or more")
    topology = world.topology
    start = first_look(world, payload_bits) if start is None else start
    control, state = controller.init(start)
    f_s, optimum_s, true_s, floor_s, sigmas = (np.zeros(rounds) for _ in range(5))
    links = np.zeros(rounds, np.int64)
    for t in range(rounds):
        seen = observe(answering(world, control), t + 1, start.payload_bits)
        if controller.clairvoyant:
            control, state = controller.step(state, seen)
        best = weighted_optimum(topology, start.budget_hz, seen)
        f_s[t] = objective(topology, control, seen)
        optimum_s[t] = objective(topology, best, seen)
        true_s[t] = round_time_s(topology, control, seen)
        floor_s[t] = np.nanmax(seen.processing_s, initial=0.0)
        links[t] = int(control.in_use.sum())
        if sigma2:
            sigmas[t] = second_singular_value(topology, control.weights, control.self_weights)
        if not controller.clairvoyant and t + 1 < rounds:
            control, state = controller.step(state, seen)
    return Trace(f_s, optimum_s, true_s, floor_s, links, sigmas if sigma2 else np.zeros(0), control, state)
