"""Makes the torch module that an architecture names, and a batch to trace it with. `architecture.build` checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import SplitError
from ..models.zoo_torch import make_model
from .cutting_torch import CutModel
from .order import ArchitectureSpec
from .recording_torch import DRAWING

__all__ = ["example_of", "make", "module_of"]

#: Models of `flower_edge.models` that read symbols: whole numbers below `num_classes`.
_READ_SYMBOLS = ("char-transformer",)


def make(spec: ArchitectureSpec, seed: int, models: Mapping[str, Callable[..., Any]]) -> CutModel:
    """The model, cut; its digest is not compared.

    Raises:
        SplitError: see `architecture.build`.
    """
    model, factory = module_of(spec, seed, models), models.get(spec.name)
    return CutModel.of(model, example_of(spec, factory), blocks=spec.blocks, max_tensors=spec.max_tensors)


def module_of(spec: ArchitectureSpec, seed: int, models: Mapping[str, Callable[..., Any]]) -> nn.Module:
    """The model, not cut: nothing is traced, so other threads may run models meanwhile.

    Raises:
        SplitError: a factory that fails, or gives no module of float32.
    """
    how: dict[str, Any] = {"input_shape": spec.input_shape, "num_classes": spec.num_classes, **spec.options}
    factory = models.get(spec.name)
    try:
        with DRAWING, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model: Any = make_model(spec.name, seed=seed, **how) if factory is None else factory(**how)
    except Exception as error:  # a factory's own code, and options that came from elsewhere
        raise SplitError(f"architecture {spec.name!r} with {how} cannot be built: {str(error)[:500]}") from error
    if not isinstance(model, nn.Module):
        raise SplitError(f"the factory of {spec.name!r} gave a {type(model).__name__}; return a torch.nn.Module")
    other = next((p for p in model.named_parameters() if p[1].dtype != torch.float32), None)
    if other is not None:
        raise SplitError(
            f"architecture {spec.name!r}: parameter {other[0]!r} is {other[1].dtype}; machines send each other "
            "torch.float32: give the model .float()"
        )
    return model


def example_of(spec: ArchitectureSpec, factory: Callable[..., Any] | None = None) -> torch.Tensor:
    """Two samples of the shape and the kind the model takes; the same whenever they are asked for."""
    own = getattr(factory, "example", None)
    if own is not None:
        given: Any = own(input_shape=spec.input_shape, num_classes=spec.num_classes, **spec.options)
        if not isinstance(given, torch.Tensor):
            raise SplitError(
                f"`example` of the factory of {spec.name!r} gave a {type(given).__name__}; return a tensor of 2 samples"
            )
        return given
    generator = torch.Generator().manual_seed(0)
    shape = (2, *spec.input_shape)
    if factory is None and spec.name in _READ_SYMBOLS:
        return torch.randint(0, spec.num_classes, shape, generator=generator)
    return torch.randn(shape, generator=generator)
