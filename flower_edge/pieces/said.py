"""`Said`: a frame and where it goes. A value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..splitting.frame import Frame

__all__ = ["Said"]


@dataclass(frozen=True, eq=False)
class Said:
    """What a piece says.

    Attributes:
        to: the piece behind it (`next`), or the one before (`previous`).
        frame: ACTIVATIONS with labels to the next, GRADIENT with the loss to the previous.
    """

    to: Literal["next", "previous"]
    frame: Frame
