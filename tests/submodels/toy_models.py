"""Models by name, each with an example, for laws that hold of all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from submodel_cases import Dense, Mobile, Patches, Picture, Shared, images, plain_cnn
from torch import nn

from flower_edge.models.zoo_torch import make_model

__all__ = ["TOYS"]


def _zoo(name: str, side: int) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    return lambda: (make_model(name, input_shape=(1, side, side), num_classes=5, seed=0), images(side))


def _own(kind: Callable[[], nn.Module], example: torch.Tensor) -> Callable[[], tuple[nn.Module, torch.Tensor]]:
    def made() -> tuple[nn.Module, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return kind(), example

    return made


TOYS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "plain": _own(plain_cnn, images()),
    "mobile": _own(Mobile, images()),
    "dense": _own(Dense, images(4)),
    "shared": _own(Shared, torch.randn(3, 6, generator=torch.Generator().manual_seed(1))),
    "patches": _own(Patches, images()),
    "picture": _own(Picture, images()),
    "lenet5": _zoo("lenet5", 28),
    "cnn": _zoo("cnn", 8),
    "resnet": _zoo("resnet", 8),
}
