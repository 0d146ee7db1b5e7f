"""How often honest terminals are refused whose data are one-sided: Dirichlet(0.1), nobody attacks.

The configuration of every other figure, and beside it the strict form, in which a reply has to be as accurate by itself
as the model it began with. Whole federations of 30 rounds; the rate is that of replies over all rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .filtering_cells import HONEST, Cell, Outcome
from .harness.figures import mean_and_error

__all__ = ["refusal_cells", "refusal_figures"]

_ALPHA: Final = 0.1
_FORMS: Final = ("ours", "strict")


def refusal_cells(seeds: Sequence[int], **options: Any) -> list[Cell]:
    """A run of each form, and one without a gate, per seed."""
    cell = Cell(HONEST, "FedAvg", 0.0, gated=True, seed=0, alpha=_ALPHA)
    forms: tuple[dict[str, Any], ...] = ({}, {"strict": True}, {"gated": False})
    return [Cell(**{**vars(cell), "seed": seed, **form, **options}) for seed in seeds for form in forms]


def refusal_figures(outcomes: Mapping[Cell, Outcome]) -> dict[str, Any]:
    """`false_refusal_rate`, and under `refusals` both forms with what they cost in accuracy."""
    told: dict[str, Any] = {}
    plain = {cell.seed: outcome.accuracy for cell, outcome in outcomes.items() if not cell.gated}
    for form in _FORMS:
        chosen = {cell: of for cell, of in outcomes.items() if cell.gated and cell.strict == (form == "strict")}
        rates = [_rate(outcome.honest) for outcome in chosen.values()]
        lost = [plain[cell.seed] - _left(outcome) for cell, outcome in chosen.items()]
        codes: dict[str, int] = {}
        for outcome in chosen.values():
            for code, count in outcome.honest.items():
                codes[code or "used"] = codes.get(code or "used", 0) + count
        rate, rate_error = mean_and_error(rates)
        points, points_error = mean_and_error(lost)
        told[form] = {
            "rate": rate,
            "rate_se": rate_error,
            "by_code": dict(sorted(codes.items())),
            "points_lost": points,
            "points_lost_se": points_error,
            "runs_ended_early": sum(bool(outcome.error) for outcome in chosen.values()),
        }
    return {
        "false_refusal_rate": told["ours"]["rate"],
        "false_refusal_rate_se": told["ours"]["rate_se"],
        "strict_refusal_rate": told["strict"]["rate"],
        "strict_refusal_rate_se": told["strict"]["rate_se"],
        "refusals": told,
    }


def _left(outcome: Outcome) -> float:
    """The accuracy there is in the end: of a run that ended early, that of its last model."""
    return outcome.accuracies[-1] if outcome.error else outcome.accuracy


def _rate(honest: Mapping[str, int]) -> float:
    """The share of replies that were refused.

    >>> _rate({"": 97, "norm": 3})
    0.03
    """
    return sum(count for code, count in honest.items() if code) / max(sum(honest.values()), 1)
