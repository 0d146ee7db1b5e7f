"""Models with exits for tests: by name, with an example and how many exits they have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from submodel_cases import Dense, Mobile, Patches, images
from torch import nn

from flower_edge.models.zoo_torch import make_model
from flower_edge.submodels.depth_torch import DepthModel, depth_model


class Written(nn.Module):
    """Writes in place to what an exit reads, holds an array that nothing uses, and a constant of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.BatchNorm1d(8))
        self.shift = nn.Parameter(torch.linspace(0.0, 1.0, 8))
        self.spare = nn.Linear(3, 2)
        self.unused = nn.Parameter(torch.ones(2))
        self.scale = torch.tensor(2.0)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 6] to scores."""
        x = self.body(x) * self.scale
        out: torch.Tensor = self.last(torch.tanh(x + self.shift))
        return out


def _zoo(name: str, shape: tuple[int, ...], **options: Any) -> Callable[[], nn.Module]:
    return lambda: make_model(name, input_shape=shape, num_classes=5, seed=0, **options)


def _own(kind: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return kind()

    return made


def _vectors() -> torch.Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(2))


def _symbols() -> torch.Tensor:
    return torch.randint(0, 5, (3, 6), generator=torch.Generator().manual_seed(2))


PLAIN: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], Any]] = {
    "lenet5": (_zoo("lenet5", (1, 28, 28)), lambda: images(28), 3),
    "resnet": (_zoo("resnet", (1, 8, 8)), images, ["block1", "block2"]),
    "mlp": (_zoo("mlp", (6,), hidden=(8, 8)), _vectors, 3),
    "char-transformer": (_zoo("char-transformer", (6,), width=8, heads=2, blocks=2), _symbols, ["block1", "block2"]),
    "mobile": (_own(Mobile), images, ["norm", "point"]),
    "dense": (_own(Dense), lambda: images(4), ["three"]),
    "patches": (_own(Patches), images, ["patch"]),
    "written": (_own(Written), _vectors, ["body.0", "body"]),
}
#: Those of which some layers cannot be narrower, with what to keep whole.
FIXED = {"char-transformer": ["embed", "block1.query_key_value", "block2.query_key_value"]}


def toy(name: str, **options: Any) -> tuple[nn.Module, DepthModel, torch.Tensor]:
    """The plain model, the one with exits, and an example."""
    make, example, exits = PLAIN[name]
    model, x = make(), example()
    return model, depth_model(model, x, exits, seed=3, **options), x
