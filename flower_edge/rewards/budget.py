"""`Budget`: how many micro-credits a round may pay; `Purse`: what was granted, paid and carried over so far.

Whole numbers only. Nothing here decides who gets them; what is not paid in a round is carried to the next.

    paid + carried = granted        after every round, exactly
    granted <= run
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from ..errors import ConfigError, RewardError
from .credits import MOST_MICRO

__all__ = ["Budget", "Purse"]


class Purse(TypedDict):
    """What became of a budget so far. Plain numbers, for a checkpoint.

    `rounds` are over; `granted` micro-credits were theirs, of which `paid` were paid and `carried` wait.
    """

    rounds: int
    granted: int
    paid: int
    carried: int


@dataclass(frozen=True)
class Budget:
    """So many micro-credits for a round, for a run, or for a run spread over its rounds.

    Args:
        per_round: granted in each round.
        run: never more than this in all.
        rounds: with `run` and without `per_round`: the run's budget is spread evenly over so many rounds, and rounds
            after them have only what is carried.

    `micro_of("12.5")` makes micro-credits of credits.

    Raises:
        ConfigError: floats, numbers below 0, or a combination that says nothing or two things.

    >>> budget = Budget(per_round=100, run=250)
    >>> purse = budget.start()
    >>> budget.pot(purse)
    100
    >>> purse = budget.spent(purse, paid=30)  # 70 are carried
    >>> purse = budget.spent(purse, paid=budget.pot(purse))
    >>> budget.pot(purse), purse["paid"], purse["carried"]
    (50, 200, 0)
    """

    per_round: int | None = None
    run: int | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        for name in ("per_round", "run", "rounds"):
            given = getattr(self, name)
            if given is None:
                continue
            if isinstance(given, bool) or not isinstance(given, int):
                raise ConfigError(
                    f"Budget({name}={given!r}): expected a whole number, not a {type(given).__name__}; "
                    "micro_of('12.5') makes micro-credits of credits"
                )
            if not (name == "rounds") <= given <= MOST_MICRO:
                raise ConfigError(f"Budget({name}={given}): expected {int(name == 'rounds')} to {MOST_MICRO}")
        if (self.per_round is None) == (self.rounds is None) or (self.rounds is not None and self.run is None):
            raise ConfigError(f"{self}: expected per_round, or per_round and run, or run and rounds")

    def start(self) -> Purse:
        """The purse of a run that has not begun."""
        return {"rounds": 0, "granted": 0, "paid": 0, "carried": 0}

    def grant(self, purse: Purse) -> int:
        """Micro-credits that the next round brings, without those carried over."""
        if self.per_round is not None:
            granted = self.per_round
        elif self.run is not None and self.rounds is not None and purse["rounds"] < self.rounds:
            # Whole numbers whose sums are never off: what should be granted by then, less what should be by now.
            granted = self.run * (purse["rounds"] + 1) // self.rounds - self.run * purse["rounds"] // self.rounds
        else:
            granted = 0
        left = MOST_MICRO if self.run is None else self.run
        return max(0, min(granted, left - purse["granted"]))

    def pot(self, purse: Purse) -> int:
        """Micro-credits that the next round may pay: its own and those carried over."""
        return self.grant(purse) + purse["carried"]

    def spent(self, purse: Purse, paid: int) -> Purse:
        """The purse after a round that paid so much; the rest of the pot is carried over.

        Raises:
            RewardError: no whole number, below 0, or more than was in the pot.
        """
        pot = self.pot(purse)
        if isinstance(paid, bool) or not isinstance(paid, int) or not 0 <= paid <= pot:
            raise RewardError(f"{paid!r} micro-credits paid of a pot of {pot}; expected a whole number from 0 to {pot}")
        return {
            "rounds": purse["rounds"] + 1,
            "granted": purse["granted"] + self.grant(purse),
            "paid": purse["paid"] + paid,
            "carried": pot - paid,
        }
