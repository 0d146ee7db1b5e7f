"""Power of choice: of d candidates drawn by their share of the data, the m with the highest loss.

Draws and sorts. It evaluates nothing: the losses are those that nodes last reported, which the paper calls rpow-d.

Letters:
    d   candidates drawn
    m   nodes wanted

Source: Cho, Wang, Joshi, "Towards understanding biased client selection in federated learning", AISTATS 2022:
pow-d, its variant rpow-d, and the adaptive one in which d falls to m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from ..errors import ConfigError
from .candidates import Candidates, Positions
from .drawing import draw_by_weight, known_or_mean

__all__ = ["PowerOfChoice", "PowerOfChoiceState"]


class PowerOfChoiceState(TypedDict):
    """How often it has chosen."""

    choices: int


@dataclass(frozen=True)
class PowerOfChoice:
    """Of d candidates drawn by data share, the m with the highest last loss.

    Args:
        d: how many are drawn: an int is a number of nodes, a float a multiple of m. Never fewer than m.
        adaptive: let d fall to m, by half every `halve_every` choices. Without it the bias towards high losses stays,
            and with it a higher final loss.
        halve_every: choices in which an adaptive d halves.

    A node that was never asked comes before all known losses; where no data share is known all weigh the same. With
    d = m it is exactly sampling by data share. The paper merges the chosen by a plain mean; a strategy that weighs by
    `num-examples`, as Flower's do, counts the share a second time.

    Raises:
        ConfigError: d below 1, or `halve_every` not above 0.
    """

    d: int | float = 10.0
    adaptive: bool = True
    halve_every: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.d < math.inf:
            raise ConfigError(f"PowerOfChoice(d={self.d}): expected a number of nodes, or a multiple of m such as 3.0")
        if not self.halve_every > 0:
            raise ConfigError(f"PowerOfChoice(halve_every={self.halve_every}): expected more than 0 choices")

    @property
    def needs(self) -> frozenset[str]:
        """Data shares; losses come with the replies."""
        return frozenset({"num_examples"})

    def init(self) -> PowerOfChoiceState:
        """No choice yet."""
        return {"choices": 0}

    def drawn(self, count: int, choices: int) -> int:
        """d, for m = `count`, after so many choices.

        >>> [PowerOfChoice(8, halve_every=1).drawn(2, choices) for choices in range(4)]
        [8, 4, 2, 2]
        """
        d = self.d * count if isinstance(self.d, float) else float(self.d)
        if self.adaptive:
            d *= 0.5 ** (choices / self.halve_every)
        return max(count, math.ceil(d - 1e-9))

    def rank(
        self, table: Candidates, count: int, state: PowerOfChoiceState, round: int, rng: np.random.Generator
    ) -> tuple[Positions, PowerOfChoiceState]:
        """The d drawn by falling loss, then the others as they would have been drawn next."""
        order = draw_by_weight(known_or_mean(table.column("num_examples")), rng)
        d = self.drawn(count, state["choices"])
        after: PowerOfChoiceState = {"choices": state["choices"] + 1}
        if d <= count:
            return order, after
        drawn = order[:d]
        # Who was asked and has not answered has had its turn: it counts as one of average loss, not as unknown.
        loss = table.column("loss")
        loss = np.where(np.isnan(table.column("last_asked")), loss, known_or_mean(loss))
        # Stable: among equal losses, and among unknown ones, who was drawn first goes first.
        by_loss = np.argsort(-np.nan_to_num(loss[drawn], nan=np.inf), kind="stable")
        return np.concatenate([drawn[by_loss], order[d:]]), after
