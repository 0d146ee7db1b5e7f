"""The groups of a `NumpyMLP`, and a smaller one: for terminals without torch. Widths by formula, nothing is traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..errors import ConfigError, ModelMismatch
from ..models.numpy_mlp import NumpyMLP
from .groups import Axis, Segment, WidthGroups

__all__ = ["mlp_groups", "narrow_mlp"]


def mlp_groups(sizes: Sequence[int]) -> WidthGroups:
    """Groups of a `NumpyMLP` of these sizes, and of the torch model "mlp" of the same: one for each hidden layer.

    Raises:
        ConfigError: fewer than two sizes, or one below 1.

    >>> mlp_groups([64, 32, 10]).sizes
    {'linear0': 32}
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ConfigError(f"sizes = {list(sizes)}; give inputs, hidden layers and classes, for example [64, 32, 10]")
    spec: dict[str, tuple[tuple[int, ...], str]] = {}
    axes: dict[str, tuple[Axis | None, ...]] = {}
    groups = {f"linear{layer}": size for layer, size in enumerate(sizes[1:-1])}
    read: Axis | None = None
    for layer, (before, after) in enumerate(pairwise(sizes)):
        name = f"linear{layer}"
        made: Axis | None = (Segment(name, after),) if name in groups else None
        spec |= {f"{name}.weight": ((after, before), "float32"), f"{name}.bias": ((after,), "float32")}
        axes |= {f"{name}.weight": (made, read), f"{name}.bias": (made,)}
        read = made
    return WidthGroups(spec, groups, dict.fromkeys(groups, 1), axes)


def narrow_mlp(model: NumpyMLP, shapes: Mapping[str, tuple[int, ...]]) -> NumpyMLP:
    """Another `NumpyMLP` with as many layers, of the widths that arrays of these shapes have; its numbers mean nothing.

    Raises:
        ModelMismatch: other names than the model's, or shapes that are no chain of layers.

    >>> small = narrow_mlp(NumpyMLP([4, 8, 2]), {name: s[0] for name, s in mlp_groups([4, 3, 2]).spec.items()})
    >>> small.sizes
    (4, 3, 2)
    """
    layers = len(model.sizes) - 1
    try:
        weights = [shapes[f"linear{layer}.weight"] for layer in range(layers)]
        sizes = [weights[0][1], *(weight[0] for weight in weights)]
    except (KeyError, IndexError):
        sizes = []
    whole = sizes[:1] + sizes[-1:] == [model.sizes[0], model.sizes[-1]]
    if not whole or {name: s[0] for name, s in mlp_groups(sizes).spec.items()} != dict(shapes):
        raise ModelMismatch(
            f"arrays {dict(shapes)} are not those of a NumpyMLP of {list(model.sizes)} with narrower hidden layers; "
            "make the model with the same options at both ends"
        )
    return NumpyMLP(sizes)
