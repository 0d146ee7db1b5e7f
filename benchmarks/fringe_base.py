"""The model that fringe compression starts from: a residual network on the clutter pictures, trained once and kept.

The network is He et al.'s for small pictures: a 3x3 convolution, then three layers of two blocks each with 16, 32 and
64 channels, the mean over the picture and a linear layer, 174,970 parameters. What was trained is kept in a file whose
name follows from recipe, seed and data; another recipe or other data train anew. Nothing here compresses.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2 (there with three blocks or
more, and short cuts without parameters; here 1x1 convolutions where the size changes).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from flower_edge.data.clutter import SIDE, ClutterParts
from flower_edge.errors import StateError
from flower_edge.fringe import Pipeline, distribute
from flower_edge.models.registry import evaluate, get_arrays, set_arrays
from flower_edge.models.zoo_torch import Residual
from flower_edge.store import load_tree, save_tree

from .fringe_task import ACCEPTED_PERCENT, CUT_AFTER, MACHINES, data_digest, parts
from .harness.printing import progress

__all__ = [
    "CACHE_VARIABLE",
    "RECIPE",
    "Base",
    "Recipe",
    "base_model",
    "cache_folder",
    "network",
    "on_machines",
    "train_base",
]

#: Environment variable: the folder that trained models are kept in.
CACHE_VARIABLE: Final = "FLOWER_EDGE_CACHE"
BLOCKS: Final = 2
CHANNELS: Final = (16, 32, 64)
CLASSES: Final = 10


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov's momentum; the rate rises to `lr` in a straight line and falls to 0 by a cosine.

    Each batch is moved as a whole, down and right, by its own -shift .. shift pixels; what leaves on one side comes
    back on the other. Without, the network knows its 1,078 digits by heart and tells fewer new ones.

    Attributes:
        epochs: over the training part.
        batch: pictures a step.
        lr: the highest rate.
        rising: share of the steps before it.
        momentum: of SGD.
        decay: of weights.
        shift: pixels, at most.
    """

    epochs: int = 8
    batch: int = 64
    lr: float = 0.1
    rising: float = 0.25
    momentum: float = 0.9
    decay: float = 5e-4
    shift: int = 3

    def rate(self, step: int, steps: int) -> float:
        """The rate of a step, counted from 0.

        >>> [round(Recipe().rate(step, 100), 4) for step in (0, 24, 99)]
        [0.004, 0.1, 0.0]
        """
        top = max(1, round(self.rising * steps))
        if step < top:
            return self.lr * (step + 1) / top
        return self.lr * 0.5 * (1.0 + float(np.cos(np.pi * (step + 1 - top) / (steps - top))))


#: What the figures are measured with.
RECIPE: Final = Recipe()


class Base(NamedTuple):
    """A trained model.

    Attributes:
        model: in evaluation mode.
        validation_percent, test_percent: of pictures it gets right.
        digest: of recipe, seed and data; the name of its file.
        cached: it was read, not trained.
    """

    model: nn.Sequential
    validation_percent: float
    test_percent: float
    digest: str
    cached: bool

    @property
    def accepted(self) -> bool:
        """Whether the task is as hard for it as it is meant to be."""
        return ACCEPTED_PERCENT[0] <= self.test_percent <= ACCEPTED_PERCENT[1]


def network(seed: int = 0) -> nn.Sequential:
    """The network, not yet trained: conv, norm, relu, layer1, layer2, layer3, pool, flatten, linear.

    >>> sum(parameter.numel() for parameter in network().parameters())
    174970
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        members: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(1, CHANNELS[0], 3, padding=1, bias=False), norm=nn.BatchNorm2d(CHANNELS[0]), relu=nn.ReLU()
        )
        before = CHANNELS[0]
        for number, channels in enumerate(CHANNELS, 1):
            layer: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(1, BLOCKS + 1):
                layer[f"block{block}"] = Residual(before, channels, stride=2 if channels > before else 1)
                before = channels
            members[f"layer{number}"] = nn.Sequential(layer)
        members |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(before, CLASSES)}
        return nn.Sequential(members)


def on_machines(model: nn.Sequential) -> Pipeline:
    """Three copies of its parts, with two connections on which nothing is compressed."""
    return distribute(model, torch.zeros(2, 1, SIDE, SIDE), MACHINES, CUT_AFTER)


def train_base(
    data: ClutterParts, recipe: Recipe = RECIPE, seed: int = 0, told: Callable[[str], None] = progress
) -> nn.Sequential:
    """Train anew; the same arguments give the same model on one machine with one number of threads.

    Args:
        data: its training part is learnt from; the validation part is looked at after each epoch, for `told`.
        recipe: how.
        seed: of the initial parameters and the order of the pictures.
        told: what is said of each epoch.

    Returns:
        The model in evaluation mode.
    """
    model = network(seed)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.decay, nesterov=True
    )
    order = np.random.default_rng([seed, 3])
    # The last pictures of an epoch that are no whole batch wait for another epoch.
    batches = max(1, len(y) // recipe.batch)
    step = 0
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        places = torch.from_numpy(order.permutation(len(y)))
        losses = []
        for number in range(batches):
            batch = places[number * recipe.batch : (number + 1) * recipe.batch]
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step, batches * recipe.epochs)
            step += 1
            optimiser.zero_grad(set_to_none=True)
            moved = order.integers(-recipe.shift, recipe.shift + 1, size=2).tolist()
            inputs = x[batch].roll(moved, dims=(2, 3)).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(inputs), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
        right = _percent(model, data.validation.x, data.validation.y)
        told(f"base model: epoch {epoch}/{recipe.epochs}, loss {np.mean(losses):.3f}, validation {right:.1f} %")
    # Which order numbers lie in memory is nobody's business after training.
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model.eval()


def base_model(
    seed: int = 0, folder: str | Path | None = None, recipe: Recipe = RECIPE, data: ClutterParts | None = None
) -> Base:
    """The trained model, from its file if there is one; a damaged file is replaced.

    Args:
        seed: of data and training.
        folder: see `cache_folder`.
        recipe: how it is trained.
        data: another task than `parts(seed)`, to try something out.

    Raises:
        OSError: the folder cannot be written.
    """
    data = parts(seed) if data is None else data
    digest = _digest(data, recipe, seed)
    path = cache_folder(folder) / f"fringe-base-{digest[:16]}.safetensors"
    kept = _kept(path, digest)
    model = network(seed).eval()
    if kept is None:
        model = train_base(data, recipe, seed)
        percent = [_percent(model, part.x, part.y) for part in (data.validation, data.test)]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tree(path, {"digest": digest, "percent": percent, "arrays": get_arrays(model)})
    else:
        set_arrays(model, kept["arrays"])
        percent = kept["percent"]
    return Base(model, percent[0], percent[1], digest, kept is not None)


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where trained models are kept: the argument, else FLOWER_EDGE_CACHE, else ~/.cache/flower-edge."""
    return Path(folder or os.environ.get(CACHE_VARIABLE) or "~/.cache/flower-edge").expanduser().absolute()


def _digest(data: ClutterParts, recipe: Recipe, seed: int) -> str:
    shapes = {name: list(array.shape) for name, array in get_arrays(network()).items()}
    told = {"recipe": asdict(recipe), "seed": seed, "data": data_digest(data), "network": shapes}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _kept(path: Path, digest: str) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = load_tree(path)
    except StateError as error:
        progress(f"base model: {error}; training anew")
        return None
    return found if found["digest"] == digest else None


def _percent(model: nn.Module, x: NDArray[Any], y: NDArray[np.int64]) -> float:
    return 100.0 * evaluate(model, x, y, batch_size=250).accuracy
