"""Makes the torch module that an architecture names, and a batch to trace it with. `architecture.build` checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, SplitError
from ..models.zoo_torch import make_model
from .cutting_torch import CutModel
from .order import ArchitectureSpec

__all__ = ["example_of", "make"]

#: Models of `flower_edge.models` that read symbols: whole numbers below `num_classes`.
_READ_SYMBOLS = ("char-transformer",)


def make(spec: ArchitectureSpec, seed: int, models: Mapping[str, Callable[..., Any]]) -> CutModel:
    """The model, cut; its digest is not compared.

    Raises:
        SplitError: see `architecture.build`.
    """
    how: dict[str, Any] = {"input_shape": spec.input_shape, "num_classes": spec.num_classes, **spec.options}
    factory = models.get(spec.name)
    try:
        if factory is None:
            model: Any = make_model(spec.name, seed=seed, **how)
        else:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(seed)
                model = factory(**how)
    except (ConfigError, TypeError, ValueError) as error:
        raise SplitError(f"architecture {spec.name!r} with {how} cannot be built: {error}") from error
    if not isinstance(model, nn.Module):
        raise SplitError(f"the factory of {spec.name!r} gave a {type(model).__name__}; return a torch.nn.Module")
    return CutModel.of(model, example_of(spec, factory), blocks=spec.blocks, max_tensors=spec.max_tensors)


def example_of(spec: ArchitectureSpec, factory: Callable[..., Any] | None = None) -> torch.Tensor:
    """Two samples of the shape and the kind the model takes; the same whenever they are asked for."""
    own = getattr(factory, "example", None)
    if own is not None:
        given: torch.Tensor = own(input_shape=spec.input_shape, num_classes=spec.num_classes, **spec.options)
        return given
    generator = torch.Generator().manual_seed(0)
    shape = (2, *spec.input_shape)
    if factory is None and spec.name in _READ_SYMBOLS:
        return torch.randint(0, spec.num_classes, shape, generator=generator)
    return torch.randn(shape, generator=generator)
