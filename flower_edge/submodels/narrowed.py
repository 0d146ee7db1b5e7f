"""The smaller model that holds given arrays: a torch module or a `NumpyMLP`. It forwards, and imports torch late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from numpy.typing import NDArray

from ..models.numpy_mlp import NumpyMLP
from ..models.registry import set_arrays
from .mlp import narrow_mlp
from .order import SubmodelOrder

__all__ = ["narrowed"]

Model = TypeVar("Model")


def narrowed(model: Model, arrays: Mapping[str, NDArray[Any]], order: SubmodelOrder | None = None) -> Model:
    """A copy of the model that is as wide as these arrays, and holds them.

    Args:
        model: the whole one, a torch module or a `NumpyMLP`; it is not changed.
        arrays: all its arrays by name, each whole or with fewer places on some axes.
        order: what came with them; its scaler and static norm are put on (a `NumpyMLP` has neither).

    Raises:
        ModelMismatch: the arrays are not those of a part of this model.

    >>> import numpy as np
    >>> small = narrowed(NumpyMLP([4, 8, 2]), NumpyMLP([4, 2, 2], seed=1).arrays())
    >>> small.sizes, small.num_parameters
    ((4, 2, 2), 16)
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    small: Any
    if isinstance(model, NumpyMLP):
        small = narrow_mlp(model, shapes)
        small.load(arrays)
        return cast(Model, small)
    from . import narrow_torch

    whole = cast(Any, model)
    small = narrow_torch.narrow_to(whole, shapes)
    set_arrays(small, arrays)
    if order is not None and order.scaler:
        narrow_torch.scale_narrowed(small, whole, order.rate)
    if order is not None and order.static_norm:
        narrow_torch.static_norm(small)
    return cast(Model, small)
