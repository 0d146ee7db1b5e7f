"""`Held`: one piece on its terminal, step by step: what exact and decoupled training share. It says nothing itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError, ProtocolError, SplitError
from ..models.results import mean_loss as mean_of
from ..splitting.agreed import check_frame, check_tensors
from ..splitting.frame import Frame, Kind, Tensors
from ..splitting.halves_torch import Half
from ..splitting.losses_torch import backward, mean_loss
from ..splitting.tensors_torch import Pass
from .order import PieceOrder
from .samples import Samples

if TYPE_CHECKING:
    from ..splitting.cutting_torch import CutModel

__all__ = ["Held"]

Arrays = Mapping[str, NDArray[Any]]


class Held:
    """Units start .. stop-1, the samples where this is place 0, and what has been done with them.

    Args:
        order: of this piece.
        model: how units compute; its arrays are not used and not changed.
        arrays: parameters and buffers of exactly these units.
        optimiser: their state; parameters without an entry begin at rest.
        x, y: samples and targets for place 0, None for all others.

    Raises:
        SplitError: the order does not fit the model, or samples at the wrong place.
        ModelMismatch: arrays or state of other units.
        DataError: no samples, or not as many targets.
    """

    def __init__(
        self,
        order: PieceOrder,
        model: CutModel,
        arrays: Arrays,
        optimiser: Arrays,
        x: NDArray[Any] | None,
        y: NDArray[Any] | None,
    ) -> None:
        last = len(model.units)
        if order.stop > last or order.last != (order.stop == last):
            raise SplitError(
                f"place {order.place} of {order.pieces} with units {order.start} to {order.stop} of a model of {last}; "
                f"the last place, and no other, ends at {last}"
            )
        if (x is None) == order.first or (y is None) == order.first:
            raise SplitError(f"place {order.place} {_given(x, y)}; give x and y to place 0, and to no other")
        self.order = order
        self.half = Half(model, ((order.start, order.stop),), order.work.optimiser, arrays, optimiser)
        self._samples = None if x is None or y is None else Samples(order.work, x, y)
        self._before: dict[str, NDArray[Any]] = {}
        self.made = 0
        self.losses: list[float] = []
        self.sizes: list[int] = []

    @property
    def done(self) -> bool:
        """Whether all steps of the order are made."""
        return self.made == self.order.work.steps

    @property
    def step(self) -> int:
        """The one that is due, or under way."""
        return self.order.work.first_step + self.made

    def neighbour(self, by: int) -> str:
        """As errors call a piece before or behind this one."""
        return f"place {self.order.place + by} of chain {self.order.work.number}"

    def due(self, frame: Frame | None) -> tuple[Tensors, NDArray[Any]]:
        """What goes into this piece in the step that is due, and the labels.

        Args:
            frame: None at place 0, which draws samples; ACTIVATIONS at all others.

        Raises:
            ProtocolError: not the frame that is due, or tensors or labels that do not fit.
        """
        if self._samples is not None:
            if frame is not None:
                raise ProtocolError(
                    f"{self.neighbour(1)} sent {Kind(frame.kind).name} of step {frame.step} to place 0, which asked "
                    "for nothing; begin its step with None"
                )
            x, y = self._samples.at(self.step)
            return (x,), y
        sender, work = self.neighbour(-1), self.order.work
        if frame is None:
            raise ProtocolError(f"place {self.order.place} has no samples; hand it the ACTIVATIONS of {sender}")
        if self.done:
            raise ProtocolError(f"{sender} sent step {frame.step}; its round ended with step {self.step - 1}")
        check_frame(frame, Kind.ACTIVATIONS, self.step, sender)
        size = check_tensors(frame.tensors, self.half.cuts[self.order.start], sender, most=work.batch_size)
        if frame.labels is None or len(frame.labels) != size:
            raise ProtocolError(
                f"{sender} sent {'no' if frame.labels is None else len(frame.labels)} labels with {size} samples; "
                "labels travel with the activations to the end of the chain, one for each"
            )
        return frame.tensors, frame.labels

    def forward(self, inputs: Tensors) -> Pass:
        """Through these units, in training mode; gradients of the step before are forgotten.

        Raises:
            SplitError: the units fail on these tensors.
        """
        self._before = self.half.buffers()
        self.half.begin()
        order = self.order
        return self.half.forward(order.start, order.stop, inputs, seed=order.work.seed, step=self.step)

    def learn(self, scores: torch.Tensor, labels: NDArray[Any], penalty: torch.Tensor | None = None) -> float:
        """Back from the loss.

        Returns:
            The loss, without the penalty.

        Raises:
            ProtocolError: labels that came and do not fit.
            DataError: labels of this terminal that do not fit.
        """
        try:
            loss = mean_loss(self.order.work.loss, scores, torch.tensor(np.asarray(labels)).to(self.half.device))
        except DataError as error:
            if self.order.first:
                raise
            raise ProtocolError(f"{self.neighbour(-1)} sent labels that do not fit: {error}") from error
        backward(loss if penalty is None else loss + penalty)
        return float(loss.detach())

    def move(self, loss: float, size: int) -> None:
        """One step of the optimiser ends the step."""
        self.half.move()
        self._before = {}
        self.made += 1
        self.losses.append(loss)
        self.sizes.append(size)

    def drop(self) -> None:
        """Forget the step that is under way, as if it had not begun."""
        self.half.restore(self._before)
        self._before = {}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As they were before the step that is under way."""
        return {**self.half.arrays(), **self._before}

    @property
    def samples(self) -> int:
        """Drawn so far, repeats counted."""
        return sum(self.sizes)

    @property
    def loss(self) -> float:
        """Mean over them; NaN before the first."""
        return mean_of(self.losses, self.sizes) if self.losses else math.nan


def _given(x: object, y: object) -> str:
    names = [name for name, value in (("x", x), ("y", y)) if value is not None]
    return f"with {' and '.join(names)}" if names else "without samples"
