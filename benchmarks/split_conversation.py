"""One round of one device and the cloud in this process: the library's two ends, and frames as bytes between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy.typing as npt

from flower_edge.splitting.architecture import build
from flower_edge.splitting.conversation_torch import CloudWork, DeviceWork
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.optimiser_state import state_of
from flower_edge.splitting.order import WorkOrder

from .split_task import SPEC, Arrays, profile

__all__ = ["Ends", "Round", "converse", "ends"]


@dataclass(frozen=True, eq=False)
class Ends:
    """The model of each side: two objects, as on two machines."""

    device: CutModel
    cloud: CutModel


@cache
def ends() -> Ends:
    """The benchmark's model, once per side."""
    return Ends(build(SPEC), build(SPEC))


@dataclass(frozen=True, eq=False)
class Round:
    """What came of it: the whole model, the optimiser's state, mean loss, and bits of the frames both ways."""

    arrays: Arrays
    optimiser: Arrays
    loss: float
    up_bits: int
    down_bits: int


def converse(order: WorkOrder, x: npt.NDArray[Any], y: npt.NDArray[Any], arrays: Arrays, optimiser: Arrays) -> Round:
    """All steps of an order, from a whole model to a whole model."""
    both = ends()
    last = len(both.device.units)
    own = [*both.device.names(0, order.cut)]
    if order.cut < last and order.tail:
        own += both.device.names(last - order.tail, last)
    rest = [name for name in arrays if name not in set(own)]
    device = DeviceWork(order, both.device, x, y, _part(arrays, own), state_of(optimiser, own))
    coder, up_bits, down_bits = FrameCoder(order, profile()), 0, 0
    frame = device.next(None)
    cloud = None
    if frame is not None:
        cloud = CloudWork(order, both.cloud, _part(arrays, rest), state_of(optimiser, rest))
    while frame is not None:
        assert cloud is not None
        said = coder.encode(frame)
        answer = cloud.answer(coder.decode(said, frame.kind, frame.step))
        back = coder.encode(answer)
        up_bits, down_bits = up_bits + 8 * len(said), down_bits + 8 * len(back)
        frame = device.next(coder.decode(back, answer.kind, answer.step))
    done = [device.result(), *([] if cloud is None else [cloud.result()])]
    found = {name: array for one in done for name, array in one.arrays.items()}
    state = {name: array for one in done for name, array in one.optimiser.items()}
    return Round({name: found[name] for name in arrays}, state, done[0].loss, up_bits, down_bits)


def _part(arrays: Arrays, names: list[str]) -> Arrays:
    return {name: arrays[name] for name in names}
