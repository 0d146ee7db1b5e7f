"""fe_split_echo: what travels, a tensor of 102,400 bytes each way, and two ends that only give it back."""

from __future__ import annotations

import time

import numpy as np

from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile

__all__ = ["BATCH", "VALUES", "Device", "answer", "coder_of", "order_of"]

BATCH, VALUES = 32, 800


def order_of(batches: int) -> WorkOrder:
    """A round of that many batches; the model is named and never built."""
    model = ArchitectureSpec(name="none", input_shape=(VALUES,), num_classes=10)
    return WorkOrder(round=1, number=0, architecture=model, cut=1, steps=batches, batch_size=BATCH)


def coder_of(order: WorkOrder) -> FrameCoder:
    """Float32 as it is, with one tensor at the cut."""
    shapes, units = ((VALUES,), (VALUES,), (10,)), ("head", "tail")
    cuts = tuple(CutProfile(i, (shape,), (True,)) for i, shape in enumerate(shapes))
    return FrameCoder(order, ModelProfile(tuple(UnitProfile(name, 0.0, 0.0) for name in units), cuts))


def answer(frame: Frame) -> Frame:
    """The tensors as their own gradient."""
    return Frame(Kind.GRADIENT, frame.step, frame.tensors, loss=0.0)


class Device:
    """Says the same activations again and again, and notes when it was asked to."""

    def __init__(self, steps: int) -> None:
        rng = np.random.default_rng(0)
        self._steps = steps
        self._x = rng.normal(size=(BATCH, VALUES)).astype(np.float32)
        self._labels = rng.integers(0, 10, BATCH)
        self.asked_s: list[float] = []

    def next(self, incoming: Frame | None) -> Frame | None:
        """The next batch; None after the last."""
        del incoming
        self.asked_s.append(time.perf_counter())
        step = len(self.asked_s) - 1
        return Frame(Kind.ACTIVATIONS, step, (self._x,), self._labels) if step < self._steps else None
