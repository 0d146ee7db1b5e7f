"""What of a node's claims is believed: never more than the operator knows or has measured. Nothing here is a factor.

A told number may lower what is credited and never raise it beyond the enrolment. Without an enrolment all nodes count
as equally large and equally fresh, whatever they tell. A measured time only ever lowers, too: a node can be slow on
purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from .enrolment import Enrolled, Enrolment

__all__ = ["Claim", "Credited", "Measured", "credited", "enrolment_of", "others_examples_per_s"]


@dataclass(frozen=True)
class Claim:
    """What a node told of a round; `None` is not told. Not to be trusted: any number, also none, may be here.

    Attributes:
        examples: how many it trained on.
        data_age_s: how old its data are.
    """

    examples: float | None = None
    data_age_s: float | None = None


@dataclass(frozen=True)
class Measured:
    """What was seen from outside; `None` is not seen.

    Attributes:
        duration_s: between handing the work out and its result, at least the time the node had to train.
        examples_per_s: how many examples such a node can train on in a second at most, by what the others take; see
            `others_examples_per_s`. An enrolled rate goes before it.
    """

    duration_s: float | None = None
    examples_per_s: float | None = None


@dataclass(frozen=True)
class Credited:
    """What a node's base score is computed from.

    Attributes:
        examples: how many examples count.
        age_s: how old its data count as.
    """

    examples: float
    age_s: float


def credited(claim: Claim, enrolment: Enrolment | None, measured: Measured, unknown: Credited) -> Credited:
    """What counts of a claim.

    Examples: the smallest of those told, those enrolled (where none are: `unknown.examples`) and, where rate and time
    are known, rate times time. Age: the larger of the told one and the enrolled one; where nothing was enrolled or
    told, at least `unknown.age_s`. A told number that is none (NaN, below 0) counts as not told.

    Args:
        claim: what the node told.
        enrolment: what the operator knew before; `None`: nothing.
        measured: what was seen in the round.
        unknown: what counts of a node of which nothing is known.

    >>> unknown = Credited(examples=1.0, age_s=3600.0)
    >>> credited(Claim(examples=10**18), Enrolment(most_examples=600), Measured(), unknown).examples
    600.0
    >>> credited(Claim(examples=10**18), None, Measured(), unknown).examples
    1.0
    >>> credited(Claim(examples=600), Enrolment(600, most_examples_per_s=50.0), Measured(duration_s=4.0), unknown)
    Credited(examples=200.0, age_s=3600.0)
    """
    known = Enrolment() if enrolment is None else enrolment
    examples = unknown.examples if known.most_examples is None else float(known.most_examples)
    told = _number(claim.examples)
    examples = min(examples, unknown.examples if told is None else told)
    rate = measured.examples_per_s if known.most_examples_per_s is None else known.most_examples_per_s
    duration_s = _number(measured.duration_s)
    if rate is not None and duration_s is not None:
        examples = min(examples, rate * duration_s)

    told_age_s = _number(claim.data_age_s)
    if known.freshest_age_s is None:
        return Credited(examples, unknown.age_s if told_age_s is None else max(told_age_s, unknown.age_s))
    return Credited(examples, max(known.freshest_age_s, unknown.age_s if told_age_s is None else told_age_s))


def others_examples_per_s(
    node: str, enrolled: Enrolled | None, durations_s: Mapping[str, float], *, times: float = 3.0, least: int = 3
) -> float | None:
    """How fast a node can be at most if it is `times` as fast as the median of the others.

    Another node's rate is its enrolled examples over the time it was seen to take: nothing anybody told is in it, so
    nobody's claim changes another's credit.

    Args:
        node: whose rate is asked for; its own time is left out.
        enrolled: what the operator knows of nodes.
        durations_s: seen in the round, by node.
        times: how much faster than the others it may be.
        least: of so many others at least; of fewer nothing is concluded.

    Returns:
        examples/s, or `None` where too few others are known.

    >>> others_examples_per_s("a", Enrolment(most_examples=100), {"a": 0.1, "b": 10.0, "c": 20.0, "d": 5.0})
    30.0
    """
    rates: list[float] = []
    for other, duration_s in durations_s.items():
        known = enrolment_of(enrolled, other)
        if other == node or known is None or known.most_examples is None:
            continue
        if 0.0 < duration_s < math.inf:
            rates.append(known.most_examples / duration_s)
    return times * median(rates) if len(rates) >= max(1, least) else None


def enrolment_of(enrolled: Enrolled | None, node: str) -> Enrolment | None:
    """What a node was enrolled with, however enrolments were given; `None` where it was not.

    >>> enrolment_of({"a": Enrolment(5)}, "a") == enrolment_of(Enrolment(5), "anybody") == Enrolment(5)
    True
    """
    if enrolled is None or isinstance(enrolled, Enrolment):
        return enrolled
    return enrolled(node) if callable(enrolled) else enrolled.get(node)


def _number(told: float | None) -> float | None:
    """A told number as a float; `None` where it is not one that could be true."""
    if told is None or isinstance(told, bool) or not isinstance(told, int | float):
        return None
    try:
        number = float(told)
    except OverflowError:
        return math.inf if told > 0 else None
    return number if number >= 0.0 else None
