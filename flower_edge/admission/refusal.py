"""`Refusal`: why something that came back is not used: a code for programs, a sentence for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["CODES", "Refusal"]

#: Every code there is, and what it means. The first block is the gate's, the second the filter's.
CODES: Final[Mapping[str, str]] = {
    "unasked": "the node was not asked in this round",
    "duplicate": "a second reply to one assignment",
    "wrong-run": "a reply of another run",
    "wrong-version": "a reply to another round's assignment",
    "no-arrays": "no arrays, or more than one record of them",
    "too-large": "more bytes than the assignment can need",
    "missing-array": "an array of the assignment is not there",
    "extra-array": "an array that is not in the assignment",
    "shape": "an array of another shape",
    "dtype": "an array of another dtype",
    "bytes": "bytes that are not the array their label says",
    "not-finite": "NaN or infinity in an array",
    "metrics": "metrics that are not numbers, not finite, or not those the others sent",
    "num-examples": "a number of examples that is none, below 1, or above what the node is enrolled with",
    "steps": "more steps than the assignment has",
    "replayed": "the arrays it has sent before, or the model's own last step",
    "norm": "moved much farther than the others, or not at all",
    "cosine": "moved against the others",
    "copied": "the same update as another node's",
    "held-out": "the merge is worse with it than without it",
    "reference": "on the held-out set worse than the reference",
    "own-score": "by its own evaluation not good enough",
    "criteria": "does not satisfy the rule",
    "robust": "left out by the robust selection",
}


@dataclass(frozen=True)
class Refusal:
    """One reply that is not used.

    Attributes:
        code: one of `CODES`.
        text: a sentence with the value, what was expected and, where there is one, the fix.
        values: the numbers behind it, for the record.
    """

    code: str
    text: str
    values: Mapping[str, int | float | str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"refused ({self.code}): {self.text}"
