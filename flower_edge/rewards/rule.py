"""`RewardRule`: a node's score is size times recency times frequency, times what it contributed. Shares are elsewhere.

Source: [4], paragraph 72 (size, recency, frequency); contribution is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import RewardError
from .claims import Claim, Credited, Measured, credited
from .enrolment import Enrolment
from .factors import Frequency, Recency, Size

__all__ = ["RewardRule", "Scored"]


@dataclass(frozen=True)
class Scored:
    """One node's score and what it was made of, for the record.

    Attributes:
        score: its weight in the shares of the pot; 0 or more.
        contribution: as measured; negative where the merge was better without.
        size: the factor, 1 where it is not counted.
        recency: the factor, 1 where it is not counted.
        frequency: the factor, 1 where it is not counted.
        credited: what the factors were computed from.
    """

    score: float
    contribution: float
    size: float
    recency: float
    frequency: float
    credited: Credited


@dataclass(frozen=True)
class RewardRule:
    """How a node's part of the pot is found; `None` for a factor leaves it out.

    Args:
        size: how much data.
        recency: how fresh they are.
        frequency: how often the node takes part.

    >>> rule = RewardRule(size=Size("linear"), recency=None, frequency=None)
    >>> known = Enrolment(most_examples=50)
    >>> [rule.scored(Claim(examples), known, contribution=2.0).score for examples in (10, 50, 5000)]
    [20.0, 100.0, 100.0]
    >>> rule.scored(Claim(10), known, contribution=-2.0).score
    0.0
    """

    size: Size | None = field(default_factory=Size)
    recency: Recency | None = field(default_factory=Recency)
    frequency: Frequency | None = field(default_factory=Frequency)

    def credited(self, claim: Claim, enrolment: Enrolment | None, measured: Measured | None = None) -> Credited:
        """What of a claim counts; see `claims`."""
        unknown = Credited(
            examples=float((self.size or Size()).unknown), age_s=(self.recency or Recency()).unknown_age_s
        )
        return credited(claim, enrolment, measured or Measured(), unknown)

    def scored(
        self,
        claim: Claim,
        enrolment: Enrolment | None,
        *,
        contribution: float,
        accepted: int = 1,
        measured: Measured | None = None,
    ) -> Scored:
        """A node's score: its base times its contribution, or 0 where that is not above 0.

        Args:
            claim: what it told.
            enrolment: what was known of it before; `None`: nothing.
            contribution: what it was measured to have added, in any unit that is the same for all nodes of the round.
            accepted: in how many of the last rounds its update was accepted, this one among them.
            measured: what was seen of it in the round.

        Raises:
            RewardError: a contribution that is not finite.
        """
        if not math.isfinite(contribution):
            raise RewardError(f"a contribution of {contribution}; expected a finite number")
        counts = self.credited(claim, enrolment, measured)
        size = 1.0 if self.size is None else self.size.of(counts.examples)
        recency = 1.0 if self.recency is None else self.recency.of(counts.age_s)
        frequency = 1.0 if self.frequency is None else self.frequency.of(accepted)
        return Scored(
            score=size * recency * frequency * max(0.0, contribution),
            contribution=contribution,
            size=size,
            recency=recency,
            frequency=frequency,
            credited=counts,
        )
