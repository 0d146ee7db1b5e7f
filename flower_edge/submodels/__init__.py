"""Smaller models out of a large one: fewer channels in each layer, fewer layers, or both; the same names.

groups, coupling        which axes of which arrays carry the same channels; how they are found to be the same
channels_torch          those of a torch model, by tracing it (layers_torch, operations_torch: what a step does)
mlp                     those of a NumpyMLP, without torch
choices                 which channels a smaller model keeps: a prefix, a window that rolls, a rate that is drawn
order                   what a message says of the part it carries
narrow_torch, narrowed  the smaller model itself: any torch module, or a NumpyMLP
sizes                   how large a terminal's model is: a share of the channels, so many of the exits
depth_torch             a model with exits, of which a shallow one has the first (depth_*_torch: where, how trained)
catalogue               the model list: parameters, bytes, FLOPs and memory of each size (variants_torch too)
step_times              what a training step takes each terminal, measured or told from other sizes
carried                 the optimiser's state where a model changes (carried_torch)
statistics_torch        BatchNorm's statistics where training kept none
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .carried_torch import optimiser_state, resume_optimiser
    from .catalogue import Catalogue, Variant, mlp_catalogue
    from .channels_torch import width_groups
    from .choices import prefix, rolling
    from .depth_torch import DepthModel, depth_model
    from .depth_training_torch import distill_weight, exits_loss, train_exits
    from .groups import WidthGroups, index_of, manifest_of
    from .mlp import mlp_groups
    from .narrow_torch import narrow
    from .order import SubmodelOrder
    from .sizes import Depths, Size
    from .step_times import StepTimes
    from .variants_torch import width_variants

__all__ = [
    "Catalogue",
    "DepthModel",
    "Depths",
    "Size",
    "StepTimes",
    "SubmodelOrder",
    "Variant",
    "WidthGroups",
    "depth_model",
    "distill_weight",
    "exits_loss",
    "index_of",
    "manifest_of",
    "mlp_catalogue",
    "mlp_groups",
    "narrow",
    "optimiser_state",
    "prefix",
    "resume_optimiser",
    "rolling",
    "train_exits",
    "width_groups",
    "width_variants",
]

_MODULES = {
    "carried_torch": ("optimiser_state", "resume_optimiser"),
    "catalogue": ("Catalogue", "Variant", "mlp_catalogue"),
    "channels_torch": ("width_groups",),
    "choices": ("prefix", "rolling"),
    "depth_torch": ("DepthModel", "depth_model"),
    "depth_training_torch": ("distill_weight", "exits_loss", "train_exits"),
    "groups": ("WidthGroups", "index_of", "manifest_of"),
    "mlp": ("mlp_groups",),
    "narrow_torch": ("narrow",),
    "order": ("SubmodelOrder",),
    "sizes": ("Depths", "Size"),
    "step_times": ("StepTimes",),
    "variants_torch": ("width_variants",),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
