"""A controller as a user would write one: that of docs/howto_controller.md, word for word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from flower_edge.control import Control, Observation, Start, State
from flower_edge.control.baselines import equal_control
from flower_edge.control.known import look, remember, topology_of
from flower_edge.errors import ConfigError


@dataclass(frozen=True)
class TalkEvery:
    """Equal weights in every so many rounds, the first one among them; in between everybody trains alone."""

    every: int = 3
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"TalkEvery({self.every}): expected 1 round or more")

    def init(self, start: Start) -> tuple[Control, State]:
        known = {**remember(start), "rounds": 0}
        return self._control(known), known

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        known = {**look(state, observation), "rounds": state["rounds"] + 1}
        return self._control(known), known

    def _control(self, known: State) -> Control:
        carries = known["spectral_efficiency"] > 0.0  # of NaN, not known, it is False, too
        talks = known["rounds"] % self.every == 0
        return equal_control(topology_of(known), known["budget_hz"], carries & talks)
