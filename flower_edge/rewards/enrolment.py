"""`Enrolment`: what the operator knows of a node before it says anything. A value; its claims are in `claims`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Enrolled", "Enrolment"]


@dataclass(frozen=True)
class Enrolment:
    """What a node was enrolled with. What is `None` was not looked at, and then no claim of the node counts for it.

    Attributes:
        most_examples: how many examples its data set has at most.
        freshest_age_s: age of the newest of its data at enrolment or at the last look, at least; s.
        most_examples_per_s: how many examples it can train on in a second at most.
    """

    most_examples: int | None = None
    freshest_age_s: float | None = None
    most_examples_per_s: float | None = None


#: By the node's key; a key that is not there is nobody that was enrolled.
Enrolled = Mapping[str, Enrolment] | Callable[[str], Enrolment | None] | Enrolment
