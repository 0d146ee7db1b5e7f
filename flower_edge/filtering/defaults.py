"""`default_judges`: the one configuration that docs/benchmarks.md measures: every figure, false refusals included."""

from __future__ import annotations

from .copies import Copies
from .cosine import Cosine
from .held_out import WithAndWithout
from .judging import Evaluate, Judge
from .norm import Norm

__all__ = ["default_judges"]


def default_judges(evaluate: Evaluate | None = None) -> tuple[Judge, ...]:
    """The tests of a filter that is told nothing else, cheap first; the last one only with held-out data.

    >>> [type(judge).__name__ for judge in default_judges()]
    ['Norm', 'Copies', 'Cosine']
    """
    cheap: tuple[Judge, ...] = (Norm(), Copies(), Cosine())
    return cheap if evaluate is None else (*cheap, WithAndWithout(evaluate))
