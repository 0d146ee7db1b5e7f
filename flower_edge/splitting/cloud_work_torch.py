"""`CloudWork`: the cloud's end of one device's round of split training; it answers frames and does not send them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError, ProtocolError, SplitError
from ..models.results import mean_loss as mean_of
from .agreed import check_frame, check_tensors, parts
from .frame import Frame, Kind
from .halves_torch import Half
from .losses_torch import backward, mean_loss
from .optimiser_state import state_of
from .order import OptimiserSpec, WorkOrder
from .results import WorkResult
from .tensors_torch import Pass

if TYPE_CHECKING:
    from .cutting_torch import CutModel

__all__ = ["CloudHalf", "CloudWork"]

Arrays = Mapping[str, NDArray[Any]]


class CloudHalf(Half):
    """The cloud's units: kept for one device (SplitFed v1), or shared by several (v2), whose batches take turns.

    A device may be cut anywhere at or behind `start`: its batches train the units behind its own cut.

    Args:
        model: how units compute; its arrays are not used and not changed.
        start, stop: units start .. stop-1.
        optimiser, arrays, state: as of `Half`.
    """

    def __init__(
        self,
        model: CutModel,
        start: int,
        stop: int,
        optimiser: OptimiserSpec,
        arrays: Arrays,
        state: Arrays | None = None,
    ) -> None:
        super().__init__(model, ((start, stop),), optimiser, arrays, state)
        #: Whose batch is under way; None between batches.
        self.turn: CloudWork | None = None


class CloudWork:
    """The cloud's end for one device in one round.

    Args:
        order: the device's.
        model: how units compute; its arrays are not used and not changed.
        arrays: parameters and buffers of exactly the cloud's units; not looked at with `shared`.
        optimiser: their state; parameters without an entry begin at rest. Not looked at with `shared`.
        shared: one half for several devices; a batch of one must be answered to its end before another's begins.

    Raises:
        SplitError: the order does not fit the model.
        ModelMismatch: arrays or state of other units.
    """

    def __init__(
        self, order: WorkOrder, model: CutModel, arrays: Arrays, optimiser: Arrays, shared: CloudHalf | None = None
    ) -> None:
        self.order = order
        self.parts = parts(order, model)
        self._model = model
        cut, tail, _ = self.parts
        self._half = shared or CloudHalf(model, cut, tail, order.optimiser, arrays, optimiser)
        self._made = 0
        self._losses: list[float] = []
        self._sizes: list[int] = []
        self._compute_s = 0.0
        self._pass: Pass | None = None
        self._before: dict[str, NDArray[Any]] = {}

    def answer(self, frame: Frame) -> Frame:
        """What the cloud says to a frame of the device.

        Raises:
            ProtocolError: not the frame that is due, or tensors or labels that do not fit.
            SplitError: another device's batch is under way on the shared half, or the cloud's units fail on these
                tensors, see `Half.forward`.
        """
        begun = time.perf_counter()
        due = Kind.ACTIVATIONS if self._pass is None else Kind.OUTPUT_GRADIENT
        check_frame(frame, due, self._step, self._sender)
        try:
            if self._pass is not None:
                return self._finish(frame, self._pass)
            return self._begin(frame)
        except Exception:
            self.drop()
            raise
        finally:
            self._compute_s += time.perf_counter() - begun

    def drop(self) -> None:
        """Forget the batch that is under way, as if it had not begun; for a device that is lost. Safe at any time."""
        if self._half.turn is self:
            self._half.restore(self._before)
            self._half.turn = None
        self._pass, self._before = None, {}

    def result(self) -> WorkResult:
        """The units behind this device's cut as they are now; of a batch that is under way nothing is in it."""
        names = self._model.names(self.parts.cut, self.parts.tail)
        samples = sum(self._sizes)
        arrays = {**self._half.arrays(), **self._before}
        return WorkResult(
            {name: array for name, array in arrays.items() if name in names},
            state_of(self._half.state(), names),
            self._made,
            samples,
            mean_of(self._losses, self._sizes) if self._losses else math.nan,
            self._model.profile().train_flops(self.parts.cut, self.parts.tail) * samples,
            self._compute_s,
        )

    @property
    def _step(self) -> int:
        return self.order.first_step + self._made

    @property
    def _sender(self) -> str:
        return f"device {self.order.number}"

    def _begin(self, frame: Frame) -> Frame:
        """Forward; with labels also back."""
        half, order, (cut, tail, _) = self._half, self.order, self.parts
        if self._made == order.steps:
            raise ProtocolError(f"{self._sender} sent step {frame.step}; its round ended with step {frame.step - 1}")
        if half.turn is not None:
            raise SplitError(
                f"{self._sender} begins a batch on a shared half while one of {half.turn._sender} is under way; answer "
                "that one to its end, or drop it"
            )
        size = check_tensors(frame.tensors, half.cuts[cut], self._sender, most=order.batch_size)
        if order.labels == "cloud" and (frame.labels is None or len(frame.labels) != size):
            raise ProtocolError(
                f"{self._sender} sent {'no' if frame.labels is None else len(frame.labels)} labels with {size} "
                "samples; the cloud computes the loss in this run and needs one for each sample"
            )
        self._before = half.buffers()
        half.turn = self
        half.begin()
        through = half.forward(cut, tail, frame.tensors, seed=order.seed, step=frame.step)
        if frame.labels is None or order.labels == "device":
            self._pass = through
            return Frame(Kind.OUTPUTS, frame.step, through.sent())
        targets = torch.tensor(np.asarray(frame.labels)).to(half.device)
        try:
            loss = backward(mean_loss(order.loss, through.outputs[0], targets))
        except DataError as error:
            raise ProtocolError(f"{self._sender} sent labels that do not fit: {error}") from error
        return self._end(frame.step, through, loss, size)

    def _finish(self, frame: Frame, through: Pass) -> Frame:
        """Back, with the gradients that came."""
        cut = self._half.cuts[self.parts.tail]
        size = len(through.leaves[0])
        check_tensors(frame.tensors, cut, self._sender, batch=size, gradients=True)
        through.back(frame.tensors)
        return self._end(frame.step, through, frame.loss, size)

    def _end(self, step: int, through: Pass, loss: float, size: int) -> Frame:
        self._half.move()
        self._half.turn = None
        self._pass, self._before = None, {}
        self._losses.append(loss)
        self._sizes.append(size)
        self._made += 1
        return Frame(Kind.GRADIENT, step, through.gradients(), loss=loss)
