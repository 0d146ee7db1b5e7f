"""Small models with data, one of each kind that a cut can go wrong with, and a conversation in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flower_edge.models import get_arrays
from flower_edge.models.zoo_torch import make_model
from flower_edge.splitting.conversation_torch import CloudWork, DeviceWork, converse
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.optimiser_state import state_of
from flower_edge.splitting.order import ArchitectureSpec, OptimiserSpec, WorkOrder
from flower_edge.splitting.results import WorkResult

Arrays = Mapping[str, NDArray[Any]]

SGD = OptimiserSpec(lr=0.05, options={"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3})
ADAM = OptimiserSpec(name="adam", lr=0.01)


class Fan(nn.Module):
    """One tensor is used several times, by layers of different shapes; sums of three gradients depend on the order."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(8)
        self.arms = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.tanh(self.norm(self.first(x.flatten(1))))
        b = self.arms[0](a) * a
        c = functional.relu(self.arms[1](b) + a, inplace=True)
        d = torch.tanh(self.arms[2](c) * 3.1 + a * b)
        e = self.arms[3](d) + a + c * a
        out: torch.Tensor = self.last(e + b)
        return out


class Tied(nn.Module):
    """One matrix encodes and decodes, between layers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(16, 8)
        self.inner = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.inner.weight
        self.after = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.before(x.flatten(1)))
        x = torch.relu(self.inner(x))
        x = torch.relu(self.again(x))
        out: torch.Tensor = self.after(x)
        return out


def dropped() -> nn.Module:
    """Dropout at two places, and an operation in place."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.ReLU(inplace=True),
        nn.Dropout(0.3),
        nn.Linear(12, 8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
        nn.Linear(8, 4),
    )


class Case(NamedTuple):
    """A model with something to learn."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    symbols: bool = False

    def model(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make()

    def data(self, samples: int = 10) -> tuple[NDArray[Any], NDArray[np.int64]]:
        rng = np.random.default_rng(5)
        if self.symbols:
            return (
                rng.integers(0, self.classes, (samples, *self.shape)),
                rng.integers(0, self.classes, (samples, *self.shape)),
            )
        return rng.normal(size=(samples, *self.shape)).astype(np.float32), rng.integers(0, self.classes, samples)

    def cut_model(self) -> CutModel:
        return CutModel.of(self.model(), torch.tensor(self.data()[0][:4]))


def zoo(name: str, shape: tuple[int, ...], classes: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: make_model(name, input_shape=shape, num_classes=classes, seed=0, **options)


CASES = {
    case.name: case
    for case in (
        Case("resnet", zoo("resnet", (1, 8, 8), 4), (1, 8, 8), 4),
        Case("lenet5", zoo("lenet5", (1, 28, 28), 4), (1, 28, 28), 4),
        Case("char-transformer", zoo("char-transformer", (6,), 9, width=8, heads=2, blocks=1), (6,), 9, symbols=True),
        Case("dropout", dropped, (4, 4), 4),
        Case("fan", Fan, (4, 4), 4),
        Case("tied", Tied, (4, 4), 4),
    )
}


def make_order(cut: int, **changes: Any) -> WorkOrder:
    architecture = ArchitectureSpec(name="test", input_shape=(1,), num_classes=2)
    values = {"round": 1, "number": 0, "steps": 3, "batch_size": 4, "seed": 3, "optimiser": SGD}
    return WorkOrder(architecture=architecture, cut=cut, **{**values, **changes})


class Whole(NamedTuple):
    """A whole model and its optimiser's state, as arrays."""

    arrays: dict[str, NDArray[Any]]
    optimiser: dict[str, NDArray[Any]]


def start_of(case: Case, seed: int = 0) -> Whole:
    return Whole(get_arrays(case.model(seed)), {})


def pick(model: CutModel, whole: Whole, *spans: tuple[int, int]) -> Whole:
    """The arrays of some units."""
    names = [name for start, stop in spans for name in model.names(start, stop)]
    return Whole({name: whole.arrays[name] for name in names}, state_of(whole.optimiser, names))


def device_of(order: WorkOrder, model: CutModel, x: Any, y: Any, whole: Whole) -> DeviceWork:
    last = len(model.units)
    half = pick(model, whole, (0, order.cut), (last - order.tail, last))
    return DeviceWork(order, model, x, y, half.arrays, half.optimiser)


def cloud_of(order: WorkOrder, model: CutModel, whole: Whole) -> CloudWork:
    half = pick(model, whole, (order.cut, len(model.units) - order.tail))
    return CloudWork(order, model, half.arrays, half.optimiser)


def joined(model: CutModel, *results: WorkResult) -> Whole:
    """Parts put together; each array is of exactly one of them."""
    arrays: dict[str, NDArray[Any]] = {}
    optimiser: dict[str, NDArray[Any]] = {}
    for result in results:
        assert not arrays.keys() & result.arrays.keys()
        arrays |= result.arrays
        optimiser |= result.optimiser
    order = list(model.model.state_dict())
    assert sorted(arrays) == sorted(order)
    return Whole({name: arrays[name] for name in order}, optimiser)


def split(order: WorkOrder, model: CutModel, x: Any, y: Any, whole: Whole) -> tuple[Whole, float]:
    """A round of a device and the cloud: what both have together afterwards, and the loss."""
    device, cloud = device_of(order, model, x, y, whole), cloud_of(order, model, whole)
    converse(device, cloud.answer)
    mine, theirs = device.result(), cloud.result()
    assert mine.steps == order.steps
    return joined(model, mine, theirs), mine.loss


def assert_same(one: Arrays, other: Arrays) -> None:
    """Equal names, dtypes and bits."""
    assert sorted(one) == sorted(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_same_whole(one: Whole, other: Whole) -> None:
    assert_same(one.arrays, other.arrays)
    assert_same(one.optimiser, other.optimiser)
