"""`freeze`: everything but the fringe stays as it is, whatever mode a part is put in and whatever trains it.

Frozen parameters take no gradient. Frozen modules with buffers (BatchNorm's statistics) stay in evaluation when they
run, also after `part.module.train()`: a hook of theirs sees to it, and is copied with them. Nothing here trains.

Source: [2] ¶35, fixed parameters.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .digest_torch import FrozenProof
from .fringe_torch import Fringe
from .pipeline_torch import Pipeline

__all__ = ["freeze", "thaw"]


def freeze(pipeline: Pipeline, fringe: Fringe) -> FrozenProof:
    """Freeze all but the fringe, whose parameters take gradients. What an earlier call froze is freed first.

    Returns:
        What is frozen, to be checked at every iteration.

    Raises:
        FringeError: a fringe of another pipeline.
    """
    thaw(pipeline)
    own = {id(tensor) for tensor in fringe.parameters(pipeline)}
    held = pipeline.named_tensors()
    frozen = fringe.frozen(pipeline)
    for name in frozen:
        if isinstance(held[name], nn.Parameter):
            held[name].requires_grad_(False)
    inside = {id(held[name]) for name in fringe.arrays(pipeline)}
    for part in pipeline.parts:
        for parameter in part.module.parameters():
            if id(parameter) in own and parameter.is_floating_point():
                parameter.requires_grad_(True)
        for module in part.module.modules():
            if (
                any(b is not None and id(b) not in inside for b in module._buffers.values())
                and module is not part.module
            ):
                module.register_forward_pre_hook(_in_evaluation)
    return FrozenProof.of(pipeline, frozen)


def thaw(pipeline: Pipeline) -> None:
    """Let everything move again: parameters take gradients, and norms go with the mode of their part."""
    for part in pipeline.parts:
        for parameter in part.module.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        for module in part.module.modules():
            for key, hook in list(module._forward_pre_hooks.items()):
                if hook is _in_evaluation:
                    del module._forward_pre_hooks[key]
                    module.train(part.module.training)


def _in_evaluation(module: nn.Module, args: Any) -> None:
    """Where it runs, so that no call of `train` on whatever holds it can undo it."""
    for one in module.modules():
        one.training = False
