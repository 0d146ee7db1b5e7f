"""What a terminal that holds a piece of a model is told, as checked values. Nothing here computes or sends.

chain     one copy of the model on one data segment: its pieces, in the order of the layers
piece     units start .. stop-1 of the model, on one terminal
place     of a piece in its chain, from 0 on; place 0 has the samples, the last one computes the loss

exact       place 0 -> 1 -> ... -> last: ACTIVATIONS with labels; last -> ... -> 0: GRADIENT
decoupled   place 0 -> 1 -> ... -> last: ACTIVATIONS with labels; each piece learns by a head of its own
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..splitting.order import WorkOrder

__all__ = ["Mode", "PieceOrder"]

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Mode = Literal["exact", "decoupled"]


class PieceOrder(BaseModel):
    """One terminal's work in one round.

    Attributes:
        work: round, `number` (the chain's), architecture, steps, batch size, seed, loss, optimiser, codecs. Its `cut`
            is `stop`: where this piece's activations leave.
        start, stop: units of this piece, at least one.
        place, pieces: which of how many pieces of the chain it is.
        mode: see the module.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    work: WorkOrder
    start: Count
    stop: Count
    place: Count
    pieces: Annotated[int, Field(ge=1, le=4096)]
    mode: Mode = "exact"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.start < self.stop or self.work.cut != self.stop:
            raise ValueError(
                f"units {self.start} to {self.stop} with cut = {self.work.cut}: expected start < stop = cut"
            )
        if self.place >= self.pieces or (self.place == 0) != (self.start == 0):
            raise ValueError(f"place {self.place} of {self.pieces} that begins at unit {self.start}")
        if self.work.labels != "cloud" or self.work.tail:
            raise ValueError("labels travel with the activations along a chain: labels='cloud' and no tail")
        return self

    @property
    def first(self) -> bool:
        """Whether it has the samples."""
        return self.place == 0

    @property
    def last(self) -> bool:
        """Whether it gives the model's output."""
        return self.place == self.pieces - 1
