"""`Judge`: one test of a round's replies against each other or against held-out data. A promise; no test is here.

Tests are asked in the order of their cost, each about those that the ones before have let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..updates.update import Arrays, Update

__all__ = ["Evaluate", "Judge", "Judgement", "Scored"]


class Scored(Protocol):
    """What an evaluation says; `flower_edge.models.EvalResult` is one."""

    @property
    def loss(self) -> float:
        """The mean loss."""
        ...

    @property
    def accuracy(self) -> float:
        """The share that is right, 0 to 1."""
        ...


#: A model, by name, in the whole model's shapes and dtypes, to what it does on held-out data.
Evaluate = Callable[[Arrays], Scored]


@dataclass(frozen=True)
class Judgement:
    """What one test says of a round's replies.

    Attributes:
        refused: code and sentence by the reply's place in what was judged.
        measured: numbers for the record by place, such as `{0: {"norm": 1.2}}`; also of those that pass.
        clipped: by which factor the update of a place is to be shortened, where the test shortens and not refuses.
        cost: what it took, such as `{"evaluations": 21.0}`.
    """

    refused: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    measured: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    clipped: Mapping[int, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


class Judge(Protocol):
    """One test. Frozen, without state: what it needs of a round it is handed."""

    def judge(self, updates: Sequence[Update], rng: np.random.Generator) -> Judgement:
        """What it says of a round's updates.

        Args:
            updates: in the order of their keys; all finite.
            rng: fresh in every round; what it draws is not known to the nodes.
        """
        ...
