"""What a terminal has after its piece's share of a round. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from ..splitting.results import WorkResult

__all__ = ["PieceResult"]


@dataclass(frozen=True, eq=False)
class PieceResult(WorkResult):
    """A `WorkResult` of one piece, with the head it learns by.

    Attributes:
        head: parameters of the head in decoupled mode; empty in exact mode and in the last piece. They are no part of
            the model.
        head_optimiser: their state.
    """

    head: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    head_optimiser: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
