"""Which variant of a model list each terminal is given, by its speed, its load, its link and its memory.

A value that decides for all terminals of a round at once. Nothing here asks a terminal, keeps anything or slices a
model: `ModelList` asks and keeps, `SubModels` slices.

Letters, for one terminal and one variant:
    t    seconds of a step under its present load, measured or predicted (`StepTimes`)
    n    steps of a round
    S    bits of the variant's state, which travel down and up
    T    seconds of a round, T = n t + S / down + S / up

Source: [4] ¶34-37: a model with more hidden layers and nodes for better performance and load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError
from flower_edge.submodels.catalogue import Catalogue
from flower_edge.submodels.sizes import Size
from flower_edge.submodels.step_times import StepTimes

from .choosing import Decision, Terminal

__all__ = ["ByLoad", "by_load"]


@dataclass(frozen=True)
class ByLoad:
    """The first variant of the list with which a terminal ends its round in time, and which fits into its memory.

    Args:
        deadline: seconds of a round: a number, which no terminal should exceed; or
            `median`: as long as the terminal in the middle takes for the first variant of the list. Half of all then
            train the whole model, which is what data that differ from terminal to terminal need. Or
            `fastest`: as long as the fastest terminal takes for it: the shortest rounds, where data are alike.
            Neither of the two is below what the slowest takes for its quickest variant: the round lasts that long in
            any case, and the others may use the time.
        steps: of a round; `None` takes what each terminal's replies have told, and before that its examples. Where
            nobody has told either, a number of seconds cannot be kept, and the lightest is given for a round.
        memory_share: of a terminal's free memory that training may take.
        hysteresis: so much (0.1 is 10 %) lies between going up and going down, so that a terminal at the edge does not
            change in every round. With a number, up is below it: no round is late. With the two others, down is above.
        unknown: the variant for a terminal of whose speed nothing is known; `None` is the lightest.

    Raises:
        ConfigError: an argument out of its range.
    """

    deadline: float | Literal["fastest", "median"] = "median"
    steps: int | None = None
    memory_share: float = 0.5
    hysteresis: float = 0.1
    unknown: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.deadline, str):
            if self.deadline not in ("fastest", "median"):
                raise ConfigError(f"deadline = {self.deadline!r}: expected seconds, 'fastest' or 'median'")
        elif isinstance(self.deadline, bool) or not 0.0 < self.deadline < math.inf:
            raise ConfigError(f"deadline = {self.deadline!r}: expected seconds above 0, 'fastest' or 'median'")
        if self.steps is not None and (type(self.steps) is not int or self.steps < 1):
            raise ConfigError(f"steps = {self.steps!r}: expected a whole number from 1, or None")
        if not 0.0 < self.memory_share <= 1.0:
            raise ConfigError(f"memory_share = {self.memory_share!r}: expected a share above 0 and up to 1")
        if not 0.0 <= self.hysteresis <= 1.0:
            raise ConfigError(f"hysteresis = {self.hysteresis!r}: expected a share from 0 to 1, such as 0.1")

    def check(self, catalogue: Catalogue) -> None:
        """Refuse a list without the variant `unknown`."""
        if self.unknown is not None:
            catalogue[self.unknown]

    def decide(
        self, catalogue: Catalogue, times: StepTimes, terminals: Mapping[str, Terminal]
    ) -> Mapping[str, Decision]:
        """A decision for every terminal.

        >>> from flower_edge.submodels.catalogue import mlp_catalogue
        >>> models = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.5, "c": 0.25})
        >>> times = StepTimes().noted("fast", "a", 0.1).noted("slow", "a", 0.2)
        >>> terminals = {"fast": Terminal(steps=10), "slow": Terminal(steps=10)}
        >>> for key, given in ByLoad("fastest").decide(models, times, terminals).items():
        ...     print(key, given.variant, "|", given.why)
        fast a | 1 s of 1 s, measured
        slow b | 1 s of 1 s, predicted; 'a' would take 2 s
        """
        known = {key: Conditions.read(one.row) for key, one in terminals.items()}
        steps = self._steps(terminals, known, times.batch)
        rounds = {
            key: self._round_s(catalogue, times, key, one, known[key], steps[key]) for key, one in terminals.items()
        }
        limit_s = self._limit_s(catalogue, [found for found in rounds.values() if found])
        return {
            key: self._one(catalogue, times.batch, one, known[key], rounds[key], limit_s)
            for key, one in terminals.items()
        }

    def _steps(
        self, terminals: Mapping[str, Terminal], known: Mapping[str, Conditions], batch: int
    ) -> dict[str, float]:
        """Steps of each terminal's round; of whom nothing is told, those of the one in the middle."""
        if self.steps is not None:
            return dict.fromkeys(terminals, float(self.steps))
        told: dict[str, float] = {}
        for key, one in terminals.items():
            examples = known[key].num_examples
            if one.steps:
                told[key] = one.steps
            elif examples:
                told[key] = float(math.ceil(examples / batch))
        # By how much two terminals differ is known without steps, how long a round is not.
        middle = median(told.values()) if told else 1.0 if isinstance(self.deadline, str) else 0.0
        return {key: told.get(key, middle) for key in terminals}

    def _round_s(
        self,
        catalogue: Catalogue,
        times: StepTimes,
        key: str,
        terminal: Terminal,
        known: Conditions,
        steps: float,
    ) -> dict[str, tuple[float, str]]:
        """By variant T and where t comes from; empty where nothing is known."""
        if not steps:
            return {}
        down_bps, up_bps = terminal.down_bps or known.down_bps, terminal.up_bps or known.up_bps
        found: dict[str, tuple[float, str]] = {}
        for one in catalogue:
            step = times.predicted(
                key, one.name, catalogue, load=known.load, told_s=known.step_s, told_of=terminal.before or None
            )
            if step is None:
                return {}
            bits = 8 * one.state_bytes
            travel_s = sum(bits / rate for rate in (down_bps, up_bps) if rate)
            found[one.name] = steps * step.step_s + travel_s, step.how
        return found

    def _limit_s(self, catalogue: Catalogue, rounds: list[dict[str, tuple[float, str]]]) -> float:
        if not isinstance(self.deadline, str):
            return self.deadline
        if not rounds:
            return math.inf
        whole = [found[catalogue.names[0]][0] for found in rounds]
        slowest_s = max(min(seconds for seconds, _ in found.values()) for found in rounds)
        return max(min(whole) if self.deadline == "fastest" else median(whole), slowest_s)

    def _one(
        self,
        catalogue: Catalogue,
        batch: int,
        terminal: Terminal,
        known: Conditions,
        rounds: Mapping[str, tuple[float, str]],
        limit_s: float,
    ) -> Decision:
        if not rounds:
            name = self.unknown or catalogue.lightest.name
            return Decision(terminal.before or name, "how long a round takes it is not known yet")
        free = known.memory_free_bytes
        fits = [one for one in catalogue if free is None or one.train_bytes(batch) <= self.memory_share * free]
        if not fits:
            name = min(catalogue, key=lambda one: one.train_bytes(batch)).name
            return Decision(name, f"no variant fits into {free} free bytes; the smallest is given", rounds[name][0])
        # Going up needs room below a hard limit; going down from a soft one needs an excess.
        soft = isinstance(self.deadline, str)
        up_s, stay_s = (
            (limit_s, limit_s * (1 + self.hysteresis)) if soft else (limit_s / (1 + self.hysteresis), limit_s)
        )
        place = catalogue.place(terminal.before) if terminal.before in catalogue else len(catalogue)
        too_slow = ""
        for one in fits:
            seconds, how = rounds[one.name]
            here = catalogue.place(one.name)
            if place == len(catalogue):
                # Of devices that are alike, half are slower than the middle: by noise, which is no reason.
                most_s = max(limit_s, stay_s)
            else:
                most_s = limit_s if here > place else stay_s if here == place else up_s
            # Sums of the same numbers in another order are the same.
            if seconds <= most_s * (1 + 1e-9):
                return Decision(one.name, f"{seconds:.3g} s of {limit_s:.3g} s, {how}{too_slow}", seconds)
            too_slow = f"; {one.name!r} would take {seconds:.3g} s"
        quickest = min(fits, key=lambda one: rounds[one.name][0])
        seconds = rounds[quickest.name][0]
        return Decision(quickest.name, f"the quickest: {seconds:.3g} s, more than {limit_s:.3g} s", seconds)


def by_load(
    catalogue: Catalogue, times: StepTimes, choice: ByLoad, terminals: Mapping[str, Terminal] | None = None
) -> Callable[[int, str, Mapping[str, Any]], Size]:
    """`ByLoad` on times that are known beforehand, for `SubModels(assign=...)` without a layer that asks.

    Args:
        catalogue: the list.
        times: of every terminal by its key.
        choice: how; give it `steps`.
        terminals: what is known of them beside their times, such as the rates of their links.

    It remembers nothing: the same for every round, but for the load that a terminal's properties tell.

    >>> from flower_edge.submodels.catalogue import mlp_catalogue
    >>> models = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.25})
    >>> times = StepTimes().noted("0", "a", 0.1).noted("1", "a", 0.4)
    >>> by_load(models, times, ByLoad(steps=10))(1, "1", {})
    Size(rate=0.25, depth=0)
    """
    choice.check(catalogue)
    others = dict(terminals or {key: Terminal() for key in times.idle_s})

    def assign(round: int, key: str, row: Mapping[str, Any]) -> Size:
        known = others.get(key, Terminal())
        asked = Terminal({**known.row, **row}, known.steps, known.up_bps, known.down_bps, known.chosen)
        return catalogue[choice.decide(catalogue, times, {**others, key: asked})[key].variant].size

    return assign
