"""`DeviceWork`: a device's end of one round of split training. It computes and says frames; it does not send them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ProtocolError
from ..models.results import mean_loss as mean_of
from ..models.schedule import make_schedule
from .agreed import check_frame, check_tensors, parts
from .frame import Frame, Kind, Tensors
from .halves_torch import Half
from .leakage_torch import nopeek
from .losses_torch import backward, mean_loss
from .order import WorkOrder
from .results import WorkResult
from .tensors_torch import Pass

if TYPE_CHECKING:
    from .cutting_torch import CutModel

__all__ = ["DeviceWork"]

Arrays = Mapping[str, NDArray[Any]]
CLOUD = "the cloud"


class DeviceWork:
    """One device's work in one round.

    Say what `next(None)` gives, hand each answer to `next`, until it gives None; then `result`. Where the whole model
    is the device's, the first call makes all steps. Step k draws the samples that `flower_edge.models.train` draws
    with the same seed.

    Args:
        order: what to do.
        model: how units compute; its arrays are not used and not changed.
        x: samples [samples, ...], before standardisation; floating point is cast to the model's.
        y: targets, int64 [samples] or [samples, context]; for mse float32 [samples, ...].
        arrays: parameters and buffers of exactly the device's units.
        optimiser: their state; parameters without an entry begin at rest.

    Raises:
        SplitError: the order does not fit the model.
        ModelMismatch: arrays or state of other units.
        DataError, ConfigError: no samples, or an order that cannot be used.
    """

    def __init__(
        self, order: WorkOrder, model: CutModel, x: NDArray[Any], y: NDArray[Any], arrays: Arrays, optimiser: Arrays
    ) -> None:
        self.order = order
        self.parts = parts(order, model)
        self._half = Half(model, self.parts.device, order.optimiser, arrays, optimiser)
        self._x, self._y = x, y
        self._made = 0
        self._losses: list[float] = []
        self._sizes: list[int] = []
        self._compute_s = 0.0
        self._awaiting: Kind | None = None
        # Of the step under way: its samples, what the forward pass changes, its pass, what came for the tail, loss.
        self._batch: NDArray[np.int64] = np.empty(0, np.int64)
        self._before: dict[str, NDArray[Any]] = {}
        self._head: Pass | None = None
        self._outputs: Tensors = ()
        self._loss = math.nan
        if order.standard is not None:
            from .standardise import Standard

            self._x = Standard.from_config(order.standard).apply(x)
        self._batches = self._schedule()

    def next(self, incoming: Frame | None) -> Frame | None:
        """What to say next; None when the round's steps are done.

        Args:
            incoming: the answer to what was said last; None in the first call.

        Raises:
            ProtocolError: not the answer that is due; the work can go on with the right one.
            SplitError, DataError: the device's units fail on its samples, or the loss on its targets.
        """
        begun = time.perf_counter()
        try:
            if incoming is None:
                if self._awaiting is not None:
                    raise ProtocolError(f"nothing came where {self._awaiting.name} of step {self._step} is due")
                if self.parts.alone:
                    self._alone()
                return self._activations()
            if self._awaiting is None:
                raise ProtocolError(f"{CLOUD} sent {Kind(incoming.kind).name}; nothing was asked")
            check_frame(incoming, self._awaiting, self._step, CLOUD)
            self._repeat()
            return self._finish_tail(incoming) if self._awaiting is Kind.OUTPUTS else self._finish_head(incoming)
        finally:
            self._compute_s += time.perf_counter() - begun

    def result(self) -> WorkResult:
        """The device's units as they are now; of a step that is under way nothing is in it."""
        samples, profile = sum(self._sizes), self._half.model.profile()
        spent = sum(profile.train_flops(start, stop) for start, stop in self.parts.device)
        return WorkResult(
            self._arrays(),
            self._half.state(),
            self._made,
            samples,
            mean_of(self._losses, self._sizes) if self._losses else math.nan,
            spent * samples,
            self._compute_s,
        )

    def state(self) -> dict[str, Any]:
        """All there is between two frames, as plain values and arrays for `flower_edge.store.tree_to_bytes`.

        Of a step that is under way it holds what was there before its forward pass, and `next` of a resumed work
        repeats that pass: graphs cannot be stored, and BatchNorm's buffers advance once.
        """
        return {
            "arrays": self._arrays(),
            "optimiser": self._half.state(),
            "made": self._made,
            "awaiting": 0 if self._awaiting is None else int(self._awaiting),
            "outputs": list(self._outputs),
            "losses": list(self._losses),
            "sizes": list(self._sizes),
            "compute_s": self._compute_s,
        }

    @classmethod
    def resumed(
        cls, order: WorkOrder, model: CutModel, x: NDArray[Any], y: NDArray[Any], state: Mapping[str, Any]
    ) -> DeviceWork:
        """A work that goes on where `state` was taken, bit for bit, given the same order and data."""
        work = cls(order, model, x, y, state["arrays"], state["optimiser"])
        work._made = int(state["made"])
        work._awaiting = Kind(state["awaiting"]) if state["awaiting"] else None
        work._outputs = tuple(np.asarray(tensor) for tensor in state["outputs"])
        work._losses, work._sizes = list(state["losses"]), list(state["sizes"])
        work._compute_s = float(state["compute_s"])
        work._batches = work._schedule()
        return work

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """As they were before the step that is under way."""
        return {**self._half.arrays(), **self._before}

    @property
    def _step(self) -> int:
        return self.order.first_step + self._made

    def _schedule(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        order = self.order
        return iter(
            make_schedule(
                self._x,
                self._y,
                steps=order.steps - self._made,
                epochs=None,
                batch_size=order.batch_size,
                seed=order.seed,
                first_step=self._step,
            )
        )

    def _alone(self) -> None:
        """All steps, on the whole model."""
        for step, batch in self._batches:
            self._half.begin()
            whole = self._half.forward(0, self.parts.last, (self._x[batch],), seed=self.order.seed, step=step)
            loss = backward(mean_loss(self.order.loss, whole.outputs[0], self._targets(batch)))
            self._half.move()
            self._made += 1
            self._losses.append(loss)
            self._sizes.append(len(batch))

    def _activations(self) -> Frame | None:
        """Begin the next step, if there is one."""
        if self._made == self.order.steps:
            return None
        self._begin()
        assert self._head is not None
        sent = self._head.sent()
        if self.order.noise:
            from .leakage import cut_noise

            sent = cut_noise(sent, self.order.noise, seed=self.order.seed, step=self._step, number=self.order.number)
        there = self.order.labels == "cloud"
        self._awaiting = Kind.GRADIENT if there else Kind.OUTPUTS
        return Frame(Kind.ACTIVATIONS, self._step, sent, self._y[self._batch] if there else None)

    def _begin(self) -> None:
        """The forward pass of the head."""
        step, self._batch = next(self._batches)
        self._before = self._half.buffers()
        self._half.begin()
        self._head = self._half.forward(0, self.parts.cut, (self._x[self._batch],), seed=self.order.seed, step=step)

    def _finish_tail(self, incoming: Frame) -> Frame:
        """Through the tail, the loss and back."""
        cut = self._half.cuts[self.parts.tail]
        check_tensors(incoming.tensors, cut, CLOUD, batch=len(self._batch))
        self._outputs = incoming.tensors
        self._awaiting = Kind.GRADIENT
        return Frame(Kind.OUTPUT_GRADIENT, self._step, self._run_tail(), loss=self._loss)

    def _run_tail(self) -> Tensors:
        """Through the tail to the loss, and back to what came in."""
        parts = self.parts
        tail = self._half.forward(parts.tail, parts.last, self._outputs, seed=self.order.seed, step=self._step)
        self._loss = backward(mean_loss(self.order.loss, tail.outputs[0], self._targets(self._batch)))
        return tail.gradients()

    def _finish_head(self, incoming: Frame) -> Frame | None:
        """Back through the head, and one step of the optimiser."""
        assert self._head is not None
        cut = self._half.cuts[self.parts.cut]
        check_tensors(incoming.tensors, cut, CLOUD, batch=len(self._batch), gradients=True)
        self._head.back(incoming.tensors, nopeek(self.order.nopeek, self._head))
        self._half.move()
        self._losses.append(incoming.loss if self.order.labels == "cloud" else self._loss)
        self._sizes.append(len(self._batch))
        self._made += 1
        self._awaiting, self._outputs, self._before = None, (), {}
        self._head = None
        return self._activations()

    def _repeat(self) -> None:
        """In a resumed work: the passes of the step that is under way."""
        if self._head is not None:
            return
        self._begin()
        if self._outputs:
            self._run_tail()

    def _targets(self, batch: NDArray[np.int64]) -> torch.Tensor:
        return torch.tensor(self._y[batch]).to(self._half.device)
