"""Many reports of one hyperparameter become one value: a geometric mean, a median, or a vote.

Functions of values; nothing here is remembered, so reports of one exchange are merged the same in whatever order they
came. Reports are strangers' words: what is none of its kind is left out and counted, and nobody's weight counts more
than a few times the middle one.

Letters:
    w[i]    weight of a report, such as its examples; at most `most_weight` times the median weight
    f[i]    factor for its validation score, 0..1
    v[i]    its value

    LogScale    exp(Σ w f log v / Σ w f) over what is left when the share `trim` of Σ w f is cut at both ends
    Count       the least v[i] with at least half of Σ w f at or below it
    Choice      the option with the largest Σ w f

The rules are our own. Khodak et al., "Federated hyperparameter tuning: challenges, baselines, and connections to
weight-sharing" (FedEx), NeurIPS 2021, learn a distribution over configurations by an exponentiated gradient; here
there is no distribution, and what is merged is what terminals say.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigError
from .kinds import Choice, Kind, LogScale, Value, as_told

__all__ = ["ByScore", "Merged", "Report", "check_merging", "merge"]

#: How a validation score weighs: not at all, by its rank, or by its softmax.
ByScore = Literal["no", "rank", "softmax"]

#: Weights outside of these are nobody's examples, and would make sums overflow or vanish.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-9, 1e15
_RANGES = {"temperature": (1e-300, 1e300), "trim": (0.0, 0.49), "most_weight": (1.0, _MOST_WEIGHT)}


@dataclass(frozen=True)
class Report:
    """What one terminal says of one hyperparameter.

    Attributes:
        value: what it found best; anything may have come.
        weight: how much it counts, such as its examples.
        score: its validation score, higher is better; `None` where it told none.
    """

    value: object
    weight: object = 1.0
    score: object = None


@dataclass(frozen=True)
class Merged:
    """What became of the reports.

    Attributes:
        value: the merged value; `None` where no report could be used.
        used: reports in it.
        left_out: how many were not, by reason: `type`, `out of bounds`, `weight`, `score`.
    """

    value: Value | None
    used: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def merge(
    kind: Kind,
    reports: Iterable[Report],
    *,
    by_score: ByScore = "rank",
    temperature: float = 1.0,
    trim: float = 0.0,
    most_weight: float = 4.0,
) -> Merged:
    """One value of all reports, within their range; equal reports give exactly what they say.

    Args:
        kind: of the hyperparameter.
        reports: in any order.
        by_score: `rank` weighs the best of n by 1, the worst by 1/n, and who told no score by the middle of the two,
            so that a boast is worth no more than being first. `softmax` weighs by exp((score − best) / temperature),
            and who told none by the mean factor of those who did. Scores of different terminals are of different
            data; let them report what they *gained* where that is uneven.
        temperature: of the softmax, in units of the score, above 0.
        trim: the share of the weight that is cut at each end of a log scale, 0 to 0.49. Reports that hold no
            more than this share cannot move the result out of the range of the others. A median and a vote need none:
            there it takes half.
        most_weight: no report weighs more than this times the median weight, 1 or more.

    Raises:
        ConfigError: an option out of its range.

    >>> from flower_edge.tuning import Choice, Count
    >>> round(merge(LogScale(1e-4, 1.0), [Report(0.01), Report(0.04)]).value, 6)
    0.02
    >>> merge(Count(1, 15), [Report(3), Report(5), Report(15), Report(400)])
    Merged(value=5, used=3, left_out={'out of bounds': 1})
    >>> votes = [Report("ce", score=0.5), Report("mse", score=0.9), Report("mse", score=0.7)]
    >>> merge(Choice(("ce", "mse")), votes).value
    'mse'
    """
    check_merging(by_score, temperature, trim, most_weight)
    usable: list[tuple[Value, float, float | None]] = []
    left_out: dict[str, int] = {}
    for report in reports:
        if reason := kind.problem(report.value) or problem_of(report.weight, report.score):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            score = None if report.score is None else float(report.score)  # type: ignore[arg-type]
            usable.append((as_told(kind, report.value), float(report.weight), score))  # type: ignore[arg-type]
    if not usable:
        return Merged(None, 0, left_out)
    most = most_weight * _weighted_median([(weight, 1.0) for _, weight, _ in usable])
    factors = _factors([score for _, _, score in usable], by_score, temperature)
    weighted = [(value, min(weight, most) * factor) for (value, weight, _), factor in zip(usable, factors, strict=True)]
    return Merged(_merged(kind, weighted, trim), len(usable), left_out)


def problem_of(weight: object, score: object) -> str:
    """Why a report cannot be used, whatever its value: `weight`, `score`; empty where it can."""
    if not _is_number(weight) or not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:  # type: ignore[operator]
        return "weight"
    if score is not None and (not _is_number(score) or not -_MOST_WEIGHT <= score <= _MOST_WEIGHT):  # type: ignore[operator]
        return "score"
    return ""


def check_merging(by_score: str, temperature: float, trim: float, most_weight: float) -> None:
    """Refuse options of `merge` out of their range.

    Raises:
        ConfigError: names the option.
    """
    if by_score not in ("no", "rank", "softmax"):
        raise ConfigError(f"by_score = {by_score!r}: expected 'no', 'rank' or 'softmax'")
    for name, number, expected in (
        ("temperature", temperature, "a finite number above 0"),
        ("trim", trim, "a share, 0 to 0.49"),
        ("most_weight", most_weight, "a finite number, 1 or more"),
    ):
        low, high = _RANGES[name]
        if not _is_number(number) or not low <= number <= high:
            raise ConfigError(f"{name} = {number!r}: expected {expected}")


def _merged(kind: Kind, weighted: Sequence[tuple[Value, float]], trim: float) -> Value:
    if isinstance(kind, Choice):
        votes = {option: math.fsum(weight for value, weight in weighted if value == option) for option in kind.options}
        return max(kind.options, key=lambda option: votes[option])
    if isinstance(kind, LogScale):
        return _geometric_mean([(float(value), weight) for value, weight in weighted], trim)
    return int(_weighted_median([(int(value), weight) for value, weight in weighted]))


def _geometric_mean(weighted: Sequence[tuple[float, float]], trim: float) -> float:
    heaps = _heaps(weighted)
    total = math.fsum(heaps.values())
    kept: list[tuple[float, float]] = []
    below: list[float] = []
    for value, weight in heaps.items():
        start = math.fsum(below)
        below.append(weight)
        inside = min(math.fsum(below), (1.0 - trim) * total) - max(start, trim * total)
        if inside > 0.0:
            kept.append((value, inside))
    mean = math.fsum(weight * math.log(value) for value, weight in kept) / math.fsum(weight for _, weight in kept)
    # A logarithm and back rounds; equal reports come out as they are.
    return min(max(math.exp(mean), kept[0][0]), kept[-1][0])


def _weighted_median(weighted: Sequence[tuple[float, float]]) -> float:
    heaps = _heaps(weighted)
    half = math.fsum(heaps.values()) / 2.0
    below: list[float] = []
    for value, weight in heaps.items():
        below.append(weight)
        if math.fsum(below) >= half:
            return value
    raise AssertionError("the whole is at least its half")


def _heaps(weighted: Iterable[tuple[float, float]]) -> dict[float, float]:
    """Weight by value, least value first; exact sums, so the order of the reports leaves no trace."""
    heaps: dict[float, list[float]] = {}
    for value, weight in weighted:
        heaps.setdefault(value, []).append(weight)
    return {value: math.fsum(heaps[value]) for value in sorted(heaps)}


def _factors(scores: Sequence[float | None], by_score: ByScore, temperature: float) -> list[float]:
    told = sorted(score for score in scores if score is not None)
    if by_score == "no" or not told:
        return [1.0] * len(scores)
    if by_score == "softmax":
        factor = {score: math.exp((score - told[-1]) / temperature) for score in told}
    else:
        # Equal scores share the mean of their ranks.
        factor = {
            score: (bisect_left(told, score) + 1 + bisect_right(told, score)) / (2.0 * len(told)) for score in told
        }
    middle = math.fsum(factor[score] for score in told) / len(told)
    return [middle if score is None else factor[score] for score in scores]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
