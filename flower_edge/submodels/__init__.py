"""Smaller models out of a large one: fewer channels in each layer, the same layers, the same names.

groups, coupling        which axes of which arrays carry the same channels; how they are found to be the same
channels_torch          those of a torch model, by tracing it (layers_torch, operations_torch: what a step does)
mlp                     those of a NumpyMLP, without torch
choices                 which channels a smaller model keeps: a prefix, a window that rolls, a rate that is drawn
order                   what a message says of the part it carries
narrow_torch, narrowed  the smaller model itself: any torch module, or a NumpyMLP
variants_torch          parameters, bytes and FLOPs of each size
statistics_torch        BatchNorm's statistics where training kept none
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .channels_torch import width_groups
    from .choices import prefix, rolling
    from .groups import WidthGroups, index_of, manifest_of
    from .mlp import mlp_groups
    from .narrow_torch import narrow
    from .order import SubmodelOrder
    from .variants_torch import Variant, width_variants

__all__ = [
    "SubmodelOrder",
    "Variant",
    "WidthGroups",
    "index_of",
    "manifest_of",
    "mlp_groups",
    "narrow",
    "prefix",
    "rolling",
    "width_groups",
    "width_variants",
]

_MODULES = {
    "channels_torch": ("width_groups",),
    "choices": ("prefix", "rolling"),
    "groups": ("WidthGroups", "index_of", "manifest_of"),
    "mlp": ("mlp_groups",),
    "narrow_torch": ("narrow",),
    "order": ("SubmodelOrder",),
    "variants_torch": ("Variant", "width_variants"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
