"""`try_updates`: tests one after the other, each about what the ones before have let pass. Nothing here is a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..updates.update import Update
from .judging import Judge, Judgement
from .norm import Norm, not_finite

__all__ = ["Trial", "try_updates"]


@dataclass(frozen=True)
class Trial:
    """What all tests together say of a round's replies.

    Attributes:
        refused: code and sentence by place in what was tried.
        measured: numbers for the record by place, of all tests that saw the reply.
        clipped: by which factor the update of a place is to be shortened, of those that passed.
        cost: what it took, added up over the tests.
    """

    refused: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    measured: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    clipped: Mapping[int, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


def try_updates(judges: Sequence[Judge], updates: Sequence[Update], rng: np.random.Generator) -> Trial:
    """Ask each test about the replies that are left, in the order given: cheap ones first.

    A reply with a number that is not finite is refused before any of them; where `Norm` is the first, by its norm,
    which saves reading it twice. The replies may come in any order: they are judged in that of their keys, and all
    places are those of `updates` as they came. A reply that one test shortens is judged by the next ones as it came.

    >>> from flower_edge.updates.manifest import whole_manifest
    >>> manifest, base = whole_manifest({"w": ((1,), "float32")}), {"w": np.float32([0])}
    >>> sent = [Update(str(i), {"w": np.float32([w])}, base, 1.0, manifest) for i, w in enumerate([1, 1, 50, 1])]
    >>> try_updates([Norm()], sent, np.random.default_rng(0)).refused[2][0]
    'norm'
    """
    order = sorted(range(len(updates)), key=lambda place: updates[place].node)
    refused: dict[int, tuple[str, str]] = {}
    measured: dict[int, dict[str, float]] = {}
    clipped: dict[int, float] = {}
    cost: Counter[str] = Counter()
    if judges and not isinstance(judges[0], Norm):
        for place in order:
            if name := not_finite(updates[place]):
                refused[place] = ("not-finite", f"array {name!r} has NaN or infinity")
    for judge in judges:
        left = [place for place in order if place not in refused]
        if not left:
            break
        said: Judgement = judge.judge([updates[place] for place in left], rng)
        refused |= {left[i]: why for i, why in said.refused.items()}
        for i, numbers in said.measured.items():
            measured.setdefault(left[i], {}).update(numbers)
        for i, factor in said.clipped.items():
            clipped[left[i]] = min(factor, clipped.get(left[i], 1.0))
        cost.update(said.cost)
    passed = {place: factor for place, factor in clipped.items() if place not in refused}
    return Trial(dict(sorted(refused.items())), measured, passed, dict(cost))
