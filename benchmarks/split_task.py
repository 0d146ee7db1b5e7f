"""What split learning is measured on: a small ResNet on digits of 32x32 pixels, four unequal devices, one cloud.

The set-up of the figures this benchmark is held against: a residual network of one block each of 8, 16 and 32 maps
(the library's own `resnet`), batches of 32, SGD with momentum, four devices of 2, 1, 0.1 and 5 GFLOP/s behind links of
200, 100, 200 and 50 Mbit/s, each device's speed times U(0.4, 1) anew in each round, shares of classes from
Dirichlet(0.5), four batches per round, whole models merged every five rounds. Two things are ours, because the set-up
does not name them: a delay of 5 ms each way, and a cloud of 50 GFLOP/s that all devices share. Nothing here trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flower_edge.data import load_dataset, make_partition
from flower_edge.models import get_arrays, make_model
from flower_edge.splitting.order import ArchitectureSpec, OptimiserSpec
from flower_edge.splitting.profile import ModelProfile

__all__ = [
    "BATCH",
    "CLOUD_FLOPS_PER_S",
    "DELAY_S",
    "DEVICES",
    "FIXED_AFTER",
    "LINK_BPS",
    "MERGE_EVERY",
    "OPTIMISER",
    "ROUNDS",
    "SPEC",
    "SPEED_FLOPS_PER_S",
    "STEPS",
    "TRAIN_S",
    "TRANSFER_S",
    "Federation",
    "cut_after",
    "federation",
    "first_model",
    "profile",
    "speeds",
]

DEVICES: Final = 4
SPEED_FLOPS_PER_S: Final = (2e9, 1e9, 0.1e9, 5e9)
LINK_BPS: Final = (200e6, 100e6, 200e6, 50e6)
DELAY_S: Final = 0.005
CLOUD_FLOPS_PER_S: Final = 50e9
SLOWEST, FASTEST = 0.4, 1.0
ALPHA: Final = 0.5
BATCH: Final = 32
#: Batches of a device per round; the set-up's 2,014 MB in 60 rounds are four.
STEPS: Final = 4
ROUNDS: Final = 60
MERGE_EVERY: Final = 5
#: Budgets of one batch: computing at a device, and tensors there and back.
TRAIN_S: Final = 0.25
TRANSFER_S: Final = 0.06
OPTIMISER: Final = OptimiserSpec(name="sgd", lr=0.05, options={"momentum": 0.9})
SPEC: Final = ArchitectureSpec(name="resnet", input_shape=(1, 32, 32), num_classes=10)
#: The end of a cut that is the same for all, always: of the cuts the set-up had, the one its 3,312 ms come from.
FIXED_AFTER: Final = "block1"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Federation:
    """The data of one seed.

    Attributes:
        x, y: of each device.
        test_x, test_y: what no device has.
    """

    x: tuple[npt.NDArray[Any], ...]
    y: tuple[npt.NDArray[np.int64], ...]
    test_x: npt.NDArray[Any]
    test_y: npt.NDArray[np.int64]


@cache
def federation(seed: int) -> Federation:
    """Digits dealt to the devices, and 360 for testing."""
    train, test = load_dataset("digits", size=32, seed=seed)
    dealt = make_partition("dirichlet", train.labels, DEVICES, seed=seed, alpha=ALPHA)
    own = [train.subset(dealt[number]) for number in range(DEVICES)]
    return Federation(tuple(one.x for one in own), tuple(one.y for one in own), test.x, test.y)


def first_model(seed: int) -> Arrays:
    """The whole model before training."""
    return get_arrays(make_model(SPEC.name, input_shape=SPEC.input_shape, num_classes=SPEC.num_classes, seed=seed))


def speeds(seed: int, rounds: int = ROUNDS) -> npt.NDArray[np.float64]:
    """What each device has left in each round, FLOP/s, [rounds, devices]."""
    factors = np.random.default_rng([seed, 4]).uniform(SLOWEST, FASTEST, (rounds, DEVICES))
    return np.asarray(factors * SPEED_FLOPS_PER_S)


@cache
def profile() -> ModelProfile:
    """The model, unit by unit; FLOPs counted, nothing timed."""
    import torch

    from flower_edge.splitting.architecture import build
    from flower_edge.splitting.profile_torch import measure

    example = torch.randn(2, *SPEC.input_shape, generator=torch.Generator().manual_seed(0))
    return measure(build(SPEC), example)


def cut_after(found: ModelProfile, member: str) -> int:
    """The last cut whose unit belongs to a member of the model, such as `block1`.

    Where units are parts of a block, this is the block's end.
    """
    inside = [cut.position for cut in found.cuts if cut.name == member or cut.name.split(".")[0] == member]
    return max(inside)
