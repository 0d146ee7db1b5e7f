"""`ChainFrames`: what the pieces of a chain may say to one another, as whoever passes it on checks it, on every plane.

A frame is decoded, and compared with what it is computed from: labels and the number of samples stay as place 0 said
them, and the loss as the last place did. So a terminal that says what cannot be is found out itself, and not its
neighbour that would have to compute with it. Nothing here sends or computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ProtocolError
from ...pieces.order import PieceOrder
from ...splitting.frame import Frame, Kind
from ...splitting.profile import ModelProfile
from .messages import coder_at

__all__ = ["ChainFrames"]


class ChainFrames:
    """Of one chain in one attempt at a round. Frames of different places may be checked at the same time.

    Args:
        orders: by place.
        profile: of the model that they name.

    Raises:
        SplitError, CodecError: orders that frames cannot be made of, see `coder_at`.
    """

    def __init__(self, orders: Sequence[PieceOrder], profile: ModelProfile) -> None:
        #: By cut: between place k and the next one.
        self._coders = [coder_at(order, profile, "next") for order in orders[:-1]]
        self._exact = orders[0].mode == "exact"
        #: By step that is under way: labels as place 0 said them, loss as the last place did.
        self._labels: dict[int, NDArray[Any]] = {}
        self._losses: dict[int, float] = {}

    def check(self, place: int, side: Literal["next", "previous"], step: int, data: bytes) -> None:
        """Take a frame in.

        Args:
            place: says it.
            side: to whom.
            step: of which it is due.
            data: as it came.

        Raises:
            ProtocolError: not that frame, or one that does not go with what it is computed from.
        """
        if side == "next":
            self._forward(place, step, data)
        else:
            self._back(place, step, data)

    def _forward(self, place: int, step: int, data: bytes) -> None:
        coder = self._coders[place]
        if place == 0:
            self._labels[step] = _labels(coder.decode(data, Kind.ACTIVATIONS, step))
        else:
            before = self._begun(place, step)
            frame = coder.decode(data, Kind.ACTIVATIONS, step, batch=len(before))
            if not np.array_equal(_labels(frame), before):
                raise ProtocolError(
                    f"place {place} sent other labels with step {step} than place 0; labels travel along a chain as "
                    "they are"
                )
        if not self._exact and place == len(self._coders) - 1:
            del self._labels[step]

    def _back(self, place: int, step: int, data: bytes) -> None:
        before = self._begun(place, step)
        loss = self._coders[place - 1].decode(data, Kind.GRADIENT, step, batch=len(before)).loss
        if place == len(self._coders):
            self._losses[step] = loss
        elif self._losses.get(step) != loss:
            told = self._losses.get(step)
            raise ProtocolError(
                f"place {place} sent GRADIENT of step {step} with loss {loss:g}, "
                + ("before the last place has sent any" if told is None else f"and the last place said {told:g}")
            )
        if place == 1:
            del self._labels[step], self._losses[step]

    def _begun(self, place: int, step: int) -> NDArray[Any]:
        """Labels of a step that is under way."""
        if (labels := self._labels.get(step)) is None:
            raise ProtocolError(f"place {place} sent a frame of step {step}, which is not under way")
        return labels


def _labels(frame: Frame) -> NDArray[Any]:
    assert frame.labels is not None  # a coder without a tail decodes no activations without
    return frame.labels
