"""`MiddleWork`: an edge between a device and the cloud, or between two edges; it answers and asks, no more."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import SplitError
from ..models.results import mean_loss as mean_of
from .agreed import check_frame, check_tensors
from .frame import Frame, Kind
from .halves_torch import Half
from .order import WorkOrder
from .results import WorkResult
from .tensors_torch import Pass

if TYPE_CHECKING:
    from .cutting_torch import CutModel

__all__ = ["MiddleWork"]

Arrays = Mapping[str, NDArray[Any]]
UPSTREAM = "the next machine"


class MiddleWork:
    """Units start .. stop-1 for one device in one round: forward on the way up, back on the way down.

    To the device it looks like the cloud, to the cloud like a device whose cut is `stop`: the cloud's order is the
    device's with that cut. Several may follow each other.

    Args:
        order: the device's; its `cut` need not be `start`.
        model: how units compute; its arrays are not used and not changed.
        start, stop: units of this machine, at least one.
        arrays: parameters and buffers of exactly these units.
        optimiser: their state; parameters without an entry begin at rest.

    Raises:
        SplitError: units that are not between the device's and its tail.
        ModelMismatch: arrays or state of other units.
    """

    def __init__(
        self, order: WorkOrder, model: CutModel, start: int, stop: int, arrays: Arrays, optimiser: Arrays
    ) -> None:
        last = len(model.units) - order.tail
        if not order.cut <= start < stop <= last:
            raise SplitError(
                f"units {start} to {stop} between a device's cut at {order.cut} and {last}; use "
                f"{order.cut} <= start < stop <= {last}"
            )
        self.order = order
        self.start, self.stop = start, stop
        self._half = Half(model, ((start, stop),), order.optimiser, arrays, optimiser)
        self._made = 0
        self._losses: list[float] = []
        self._sizes: list[int] = []
        self._compute_s = 0.0
        self._pass: Pass | None = None
        self._before: dict[str, NDArray[Any]] = {}

    def answer(self, frame: Frame, ask: Callable[[Frame], Frame]) -> Frame:
        """What this machine says to a frame from below.

        Args:
            frame: from below.
            ask: brings a frame to the next machine, and its answer back.

        Raises:
            ProtocolError: not the frame or the answer that is due.
        """
        begun = time.perf_counter()
        step, sender, cuts = self.order.first_step + self._made, f"device {self.order.number}", self._half.cuts
        if self._pass is None:
            check_frame(frame, Kind.ACTIVATIONS, step, sender)
            check_tensors(frame.tensors, cuts[self.start], sender, most=self.order.batch_size)
            self._before = self._half.buffers()
            self._half.begin()
            self._pass = self._half.forward(self.start, self.stop, frame.tensors, seed=self.order.seed, step=step)
            onward = replace(frame, tensors=self._pass.sent())
        else:
            check_frame(frame, Kind.OUTPUT_GRADIENT, step, sender)
            onward = frame
        waiting = time.perf_counter()
        answer = ask(onward)
        waited = time.perf_counter() - waiting
        ends = frame.kind is Kind.OUTPUT_GRADIENT or self.order.labels == "cloud"
        check_frame(answer, Kind.GRADIENT if ends else Kind.OUTPUTS, step, UPSTREAM)
        if ends:
            answer = self._end(answer, self._pass)
        self._compute_s += time.perf_counter() - begun - waited
        return answer

    def result(self) -> WorkResult:
        """This machine's units as they are now; of a batch that is under way nothing is in it."""
        samples = sum(self._sizes)
        return WorkResult(
            {**self._half.arrays(), **self._before},
            self._half.state(),
            self._made,
            samples,
            mean_of(self._losses, self._sizes) if self._losses else math.nan,
            self._half.model.profile().train_flops(self.start, self.stop) * samples,
            self._compute_s,
        )

    def _end(self, answer: Frame, through: Pass) -> Frame:
        """Back through these units, and one step of the optimiser."""
        size = len(through.leaves[0])
        check_tensors(answer.tensors, self._half.cuts[self.stop], UPSTREAM, batch=size, gradients=True)
        through.back(answer.tensors)
        self._half.move()
        self._pass, self._before = None, {}
        self._made += 1
        self._losses.append(answer.loss)
        self._sizes.append(size)
        return replace(answer, tensors=through.gradients())
