"""Whether an order fits a model, and whether a frame is the one that is due. Checks only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import ProtocolError, SplitError
from .frame import Frame, Kind, Tensors
from .order import WorkOrder
from .profile import CutProfile

__all__ = ["Parts", "check_frame", "check_tensors", "parts"]


class _HasUnits(Protocol):
    @property
    def units(self) -> Sequence[object]: ...


class Parts(NamedTuple):
    """Who has what: the device units 0 .. cut-1 and tail .. last-1, the cloud what is between.

    Attributes:
        cut, tail: positions.
        last: how many units there are.
        alone: the cloud has none: nothing is sent, the device trains the whole model.
    """

    cut: int
    tail: int
    last: int

    @property
    def alone(self) -> bool:
        return self.cut == self.tail

    @property
    def device(self) -> tuple[tuple[int, int], ...]:
        """The device's units, as [start, stop)."""
        if self.alone:
            return ((0, self.last),)
        return ((0, self.cut), (self.tail, self.last)) if self.tail < self.last else ((0, self.cut),)


def parts(order: WorkOrder, model: _HasUnits) -> Parts:
    """Where an order cuts a model.

    Args:
        order: with cut and tail.
        model: a `CutModel`, or its profile.

    Raises:
        SplitError: there are no such cuts, or a tail where the cloud has the labels.
    """
    last = len(model.units)
    if order.tail and order.labels != "device":
        raise SplitError(
            f"a tail of {order.tail} units with labels = {order.labels!r}; use labels = 'device', or no tail"
        )
    if order.cut + order.tail > last:
        raise SplitError(
            f"cut {order.cut} and a tail of {order.tail} in a model of {last} units; they may be {last} together"
        )
    return Parts(order.cut, last - order.tail, last)


def check_frame(frame: Frame, kind: Kind, step: int, sender: str) -> None:
    """Refuse what is not due.

    Raises:
        ProtocolError: another kind, or of another step.
    """
    if (frame.kind, frame.step) != (kind, step):
        raise ProtocolError(
            f"{sender} sent {Kind(frame.kind).name} of step {frame.step}, expected {kind.name} of step {step}; frames "
            "of a round go back and forth one by one, in order"
        )


def check_tensors(
    tensors: Tensors,
    cut: CutProfile,
    sender: str,
    *,
    batch: int | None = None,
    most: int | None = None,
    gradients: bool = False,
) -> int:
    """Refuse tensors that do not fit a cut.

    Args:
        tensors: that came.
        cut: where they come from.
        sender: as the error should call it.
        batch: how many samples there must be, if that is known.
        most: how many there may be.
        gradients: of the differentiable tensors only.

    Returns:
        Samples in them.

    Raises:
        ProtocolError: another number of tensors, or shapes that do not fit.
    """
    shapes: Sequence[tuple[int, ...]] = cut.shapes
    if gradients:
        shapes = [shape for shape, wanted in zip(shapes, cut.differentiable, strict=True) if wanted]
    found = [np.shape(tensor) for tensor in tensors]
    size = batch if batch is not None else (found[0][0] if found and found[0] else 0)
    fits = len(found) == len(shapes) and all(got == (size, *shape) for got, shape in zip(found, shapes, strict=True))
    if not fits or (batch is None and not 1 <= size <= (most or size)):
        raise ProtocolError(
            f"{sender} sent tensors of shapes {found} for cut {cut.position} ({cut.name}), expected "
            f"{[('batch' if batch is None else batch, *shape) for shape in shapes]}"
            + (f" with a batch of at most {most}" if most is not None and batch is None else "")
        )
    return size
