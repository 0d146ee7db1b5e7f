"""What the encodings are measured on: digits, a CNN of 91,658 numbers, eight nodes with 500 pictures each.

The set-up of the figures this benchmark is held against: 1,200 pictures of scikit-learn's digits, each node's 500 drawn
from them and each drawn one turned, shifted, scaled and noisy; tested on the other 597, four times each. Equal shares
of all classes at every node (iid), or shares drawn from Dirichlet(0.3). Nothing here encodes or sends.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from flower_edge.data.digits import load_digits
from flower_edge.models.train_torch import get_arrays, set_arrays

__all__ = [
    "NODES",
    "PARAMS",
    "SPLITS",
    "Federation",
    "accuracy",
    "collect_updates",
    "cosine",
    "first_model",
    "gradient",
    "local_update",
    "make_federation",
    "make_model",
]

NODES: Final = 8
SAMPLES: Final = 500
PARAMS: Final = 91_658
SPLITS: Final = ("iid", "dirichlet")
ALPHA: Final = 0.3
EPOCHS: Final = 2
BATCH: Final = 32
LEARNING_RATE: Final = 0.08
MOMENTUM: Final = 0.9
_BASE: Final = 1_200
_TEST_COPIES: Final = 4
_TURN_DEG, _SHIFT, _SCALE, _NOISE = 12.0, 0.125, 0.1, 0.06

Model = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Federation:
    """The data of one run.

    Attributes:
        x, y: of each node, float32 [nodes, samples, 1, 8, 8] and int64 [nodes, samples].
        test_x, test_y: of nobody.
        seed: of which they were made.
    """

    x: torch.Tensor
    y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    seed: int


def make_federation(split: str, seed: int, nodes: int = NODES) -> Federation:
    """Data of all nodes; the same arguments give the same pictures."""
    pictures, labels = _pictures()
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    order = np.random.default_rng(seed).permutation(len(labels))
    base, test = order[:_BASE], order[_BASE:]
    chosen = np.stack([_draw(labels[base], split, rng) for _ in range(nodes)])
    x = _altered(pictures[base[chosen.ravel()]], rng).view(nodes, SAMPLES, 1, 8, 8)
    repeated = np.repeat(test, _TEST_COPIES)
    return Federation(
        x,
        torch.from_numpy(labels[base[chosen]]),
        _altered(pictures[repeated], rng),
        torch.from_numpy(labels[repeated]),
        seed,
    )


@cache
def _pictures() -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
    parts = load_digits()
    x = np.concatenate([np.asarray(part.x, np.float32) for part in parts])
    return torch.from_numpy(x), np.concatenate([part.y for part in parts])


def _draw(labels: npt.NDArray[np.int64], split: str, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Places of one node's pictures among the base pictures."""
    if split == "iid":
        return rng.integers(len(labels), size=SAMPLES)
    shares = rng.dirichlet(np.full(10, ALPHA))
    classes = rng.choice(10, size=SAMPLES, p=shares)
    places = [np.flatnonzero(labels == label) for label in range(10)]
    return np.array([rng.choice(places[label]) for label in classes])


def _altered(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Turned by up to 12 degrees, shifted by up to half a pixel, scaled by up to a tenth, and noisy."""
    count = len(pictures)
    angle = np.deg2rad(rng.uniform(-_TURN_DEG, _TURN_DEG, count))
    scale = rng.uniform(1 - _SCALE, 1 + _SCALE, count)
    shift = rng.uniform(-_SHIFT, _SHIFT, (count, 2))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.stack([np.stack([cos, -sin, shift[:, 0]], 1), np.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = functional.affine_grid(
        torch.from_numpy(matrix.astype(np.float32)), list(pictures.shape), align_corners=False
    )
    moved = functional.grid_sample(pictures, grid, align_corners=False)
    noise = rng.normal(scale=_NOISE, size=tuple(pictures.shape)).astype(np.float32)
    return moved + torch.from_numpy(noise)


# -- the model -------------------------------------------------------------------------------------------------------


def make_model() -> nn.Module:
    """1-16-32-64 by three convolutions, two with stride 2, then 256-256-10."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, stride=2, padding=1),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 64, 3, stride=2, padding=1),
            relu3=nn.ReLU(),
            flat=nn.Flatten(),
            fc1=nn.Linear(256, 256),
            relu4=nn.ReLU(),
            fc2=nn.Linear(256, 10),
        )
    )


def first_model(seed: int) -> Model:
    """Arrays of a new model, by name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_arrays(make_model())


def cosine(round: int, rounds: int) -> float:
    """The learning rate of a round, falling along half a cosine."""
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * round / rounds))


def local_update(
    federation: Federation, arrays: Mapping[str, npt.NDArray[Any]], node: int, round: int, lr: float
) -> Model:
    """By what local training moves a model in one round: two epochs of SGD with momentum, which starts from zero."""
    network = make_model()
    set_arrays(network, arrays)
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=MOMENTUM, foreach=True)
    rng = np.random.default_rng([federation.seed, round, node])
    x, y = federation.x[node], federation.y[node]
    for _ in range(EPOCHS):
        order = torch.from_numpy(rng.permutation(SAMPLES))
        for batch in (order[begin : begin + BATCH] for begin in range(0, SAMPLES, BATCH)):
            optimizer.zero_grad()
            functional.cross_entropy(network(x[batch]), y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: array - arrays[name] for name, array in get_arrays(network).items()}


def gradient(
    federation: Federation, arrays: Mapping[str, npt.NDArray[Any]], node: int, step: int, batch: int
) -> tuple[Model, float]:
    """The gradient of one batch at one node, and the loss there."""
    parameters = {name: torch.tensor(array).requires_grad_() for name, array in arrays.items()}
    rng = np.random.default_rng([federation.seed, step, node])
    places = torch.from_numpy(rng.integers(SAMPLES, size=batch))
    scores = functional_call(_skeleton(), parameters, (federation.x[node][places],))
    loss = functional.cross_entropy(scores, federation.y[node][places])
    found = torch.autograd.grad(loss, list(parameters.values()))
    return {name: g.numpy() for name, g in zip(parameters, found, strict=True)}, float(loss.detach())


@cache
def _skeleton() -> nn.Module:
    """A model whose own numbers nobody looks at."""
    return make_model()


def accuracy(federation: Federation, arrays: Mapping[str, npt.NDArray[Any]]) -> float:
    """The share of test pictures a model gets right."""
    network = make_model()
    set_arrays(network, arrays)
    with torch.inference_mode():
        return float((network(federation.test_x).argmax(1) == federation.test_y).float().mean())


def collect_updates(split: str, rounds: int, seed: int) -> list[npt.NDArray[np.float32]]:
    """What the nodes would send in a run without encoding, one array float32 [nodes, params] per round.

    >>> [updates.shape for updates in collect_updates("iid", rounds=1, seed=0)]
    [(8, 91658)]
    """
    federation, arrays = make_federation(split, seed), first_model(seed)
    found = []
    for round in range(rounds):
        lr = cosine(round, rounds)
        updates = [local_update(federation, arrays, node, round, lr) for node in range(len(federation.x))]
        arrays = {name: array + np.mean([u[name] for u in updates], axis=0) for name, array in arrays.items()}
        found.append(np.stack([np.concatenate([part.ravel() for part in u.values()]) for u in updates]))
    return found
