"""`StopWhen`: ends the whole training at a limit: time, rounds, a score, no improvement, a resource that runs out.

A layer for the centre, around any strategy: `Layered(FedAvg(), StopWhen(Limits(virtual_s=600.0)))`. The limits are
`flower_edge.termination`'s; for the training of a single terminal see `Retire`. The round that reaches a limit is
finished, recorded and kept. Nothing here changes a message or a model.

Source: [4] ¶65-66.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s
from flower_edge.termination import Limits, Spent

from .layers import Layer

__all__ = ["StopWhen", "WatchState"]


@dataclass(frozen=True)
class WatchState:
    """State of a `StopWhen`.

    Attributes:
        spent: what the training has used so far; counts on over a resume.
        begun_s: virtual time at its beginning.
        clock_s: the clock's last reading, and
        grid: where virtual time is read; both are of this process and in no checkpoint.
    """

    spent: Spent = field(default_factory=Spent)
    begun_s: float | None = None
    clock_s: float = 0.0
    grid: Grid | None = None


class StopWhen(Layer[WatchState]):
    """Ends the whole training after the round that reaches one of the limits.

    Args:
        limits: see `Limits`. Rounds are those of the centre. Scores are those of the round's evaluation: the centre's
            own where there is one, else the clients'; patience counts rounds with such an evaluation.
        clock: real seconds, monotonic. The budget `wall_s` counts over a resume, without the time in between.
        now: virtual seconds. By default they are read from the `VirtualClock` below this layer.
        conditions: what `limits.when` is asked about after each round: of the server's own machine, for example.

    Raises:
        ConfigError: `trained_s`, which is a terminal's; `when` without `conditions`. When asked after the first round:
            a virtual budget and no virtual time.
        NestingError (in a round): inside an edge, whose rounds the centre ends.

    >>> StopWhen(Limits(trained_s=60.0))
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: StopWhen(Limits(trained_s=60.0)): that is a terminal's limit; write \
Retire(Limits(trained_s=60.0)), or limit wall_s or virtual_s
    """

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float | None] | None = None,
        conditions: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        if not isinstance(limits, Limits):
            raise ConfigError(f"StopWhen({limits!r}): expected limits, such as StopWhen(Limits(rounds=10))")
        if limits.trained_s is not None:
            given = f"Limits(trained_s={limits.trained_s})"
            raise ConfigError(
                f"StopWhen({given}): that is a terminal's limit; write Retire({given}), or limit wall_s or virtual_s"
            )
        if (limits.when is None) != (conditions is None):
            raise ConfigError(
                "StopWhen(Limits(when=rule), conditions=function): the rule is asked about what the function returns, "
                "so give both or none"
            )
        self.limits = limits
        self.clock = clock
        self.now = now
        self.conditions = conditions

    def init(self) -> WatchState:
        """Nothing used yet; time counts from here."""
        return WatchState(clock_s=self.clock())

    def opened(self, state: WatchState, grid: Grid) -> WatchState:
        """The Grid is kept to read virtual time from."""
        return self._looked(replace(state, grid=grid))

    def outbound(self, state: WatchState, round: Round, messages: list[Message]) -> tuple[list[Message], WatchState]:
        """The messages as they are."""
        if round.cell:
            raise NestingError(
                f"StopWhen in the edge {round.cell!r}: the centre decides when the whole training ends; write "
                "Layered(Hierarchical(...), StopWhen(...)), or Retire(...) in the edge for its terminals"
            )
        return messages, self._looked(state)

    def inbound(self, state: WatchState, round: Round, replies: list[Message]) -> tuple[list[Message], WatchState]:
        """The replies as they are."""
        return replies, self._looked(state)

    def merged(
        self, state: WatchState, round: Round, before: ArrayRecord, after: ArrayRecord
    ) -> tuple[ArrayRecord, WatchState]:
        """The model as it is."""
        return after, self._looked(state)

    def scored(self, state: WatchState, round: Round, metrics: Mapping[str, float]) -> WatchState:
        """Take in what an evaluation found."""
        return replace(state, spent=self.limits.scored(state.spent, metrics))

    def events(self, state: WatchState) -> tuple[list[Event], WatchState]:
        """None: whoever drives the rounds records the reason. Times are looked at: a checkpoint follows."""
        return [], self._looked(state)

    def stop(self, state: WatchState, round: Round) -> str | None:
        """The first limit that is reached, in words."""
        spent = replace(self._looked(state).spent, rounds=round.cloud)
        if self.limits.virtual_s is not None and spent.virtual_s is None:
            raise ConfigError(
                f"StopWhen(Limits(virtual_s={self.limits.virtual_s})) has seen no virtual time; put VirtualClock "
                "around the grid, or tell it the time with now="
            )
        return self.limits.reached(spent, None if self.conditions is None else self.conditions())

    def metrics(self, state: WatchState) -> Mapping[str, float]:
        """Evaluations without an improvement, where there is such a limit."""
        return {} if self.limits.no_improvement is None else {"stale_evaluations": state.spent.stale}

    def dump(self, state: WatchState) -> Any:
        """What was used, as plain values."""
        return {"spent": state.spent.to_tree(), "begun_s": state.begun_s}

    def load(self, saved: Any) -> WatchState:
        """Inverse of `dump`; real time counts on from here."""
        return WatchState(Spent.from_tree(saved["spent"]), saved["begun_s"], self.clock())

    def _looked(self, state: WatchState) -> WatchState:
        clock_s = self.clock()
        spent = replace(state.spent, wall_s=state.spent.wall_s + clock_s - state.clock_s)
        time_s = self._virtual_s(state)
        begun_s = time_s if state.begun_s is None else state.begun_s
        if time_s is not None and begun_s is not None:
            spent = replace(spent, virtual_s=time_s - begun_s)
        return replace(state, spent=spent, begun_s=begun_s, clock_s=clock_s)

    def _virtual_s(self, state: WatchState) -> float | None:
        if self.now is not None:
            return self.now()
        return None if state.grid is None else now_s(state.grid)

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self.limits).items() if value is not None}
        return f"StopWhen(Limits({', '.join(f'{name}={value!r}' for name, value in given.items())}))"
