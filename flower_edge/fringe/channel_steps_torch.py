"""Which steps of a traced part let channels through, and what tensors have which shapes.

A step that is not listed is taken to need all channels. Nothing here changes a part.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional

from ..errors import FringeError
from .parts_torch import copied, evaluating, laid_out

__all__ = [
    "Shapes",
    "at_most_one",
    "copied",
    "does_not_fit",
    "elementwise",
    "in_place",
    "linear_in_channels",
    "module_at",
    "name_of",
    "normalises",
    "outputs",
    "placeholders",
    "places_only",
    "shapes_of",
    "zero_stays",
]

Shapes = dict[fx.Node, tuple[int, ...]]

_ZERO_STAYS: Final = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish tanh hardtanh hardswish softsign dropout dropout1d dropout2d "
    "dropout3d alpha_dropout identity contiguous clone abs neg relu_"
)
_LINEAR: Final = "identity contiguous clone dropout dropout1d dropout2d dropout3d neg"
_OTHER: Final = "sigmoid logsigmoid softplus hardsigmoid exp square clamp clip float double half to type"
_PAIRS: Final = (
    "add sub mul div truediv iadd isub imul itruediv maximum minimum multiply subtract true_divide add_ mul_"
)
_AVERAGES: Final = "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
_POOLS: Final = f"{_AVERAGES} max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d"
_NORMS: Final = "layer_norm rms_norm scaled_dot_product_attention multi_head_attention_forward"
#: Modules that are named as their functions are, but for capitals and underscores.
_MODULES: Final = {
    name.replace("_", ""): name
    for name in f"{_ZERO_STAYS} {_OTHER} {_POOLS} {_NORMS}".split()
    if not name.endswith("_")
} | {"flatten": "flatten", "multiheadattention": "multi_head_attention_forward"}
_SPACES: Final = (torch, functional, operator)


def _named(text: str) -> frozenset[str]:
    return frozenset(text.split())


def name_of(node: fx.Node, part: fx.GraphModule) -> str:
    """Of the operation, as torch names its function; empty for one that is nobody's we know."""
    if node.op == "call_method":
        return str(node.target)
    if node.op == "call_function" and node.target is laid_out:
        return "contiguous"  # where numbers lie in memory is all that it changes
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        return name if any(getattr(space, name, None) is node.target for space in _SPACES) else ""
    if node.op == "call_module":
        kind = type(part.get_submodule(str(node.target)))
        if kind.__module__.startswith("torch.nn.modules"):
            return _MODULES.get(kind.__name__.lower(), "")
    return ""


def elementwise(node: fx.Node, part: fx.GraphModule) -> bool:
    """Number by number, of one tensor or several of one shape."""
    return name_of(node, part) in _named(f"{_ZERO_STAYS} {_OTHER} {_PAIRS}")


def zero_stays(node: fx.Node, part: fx.GraphModule) -> bool:
    """Of one tensor, channel by channel, and channels of zeros give channels of zeros."""
    return name_of(node, part) in _named(f"{_ZERO_STAYS} {_POOLS}")


def linear_in_channels(node: fx.Node, part: fx.GraphModule) -> bool:
    """Of one tensor, and the same before and after a mixing of channels."""
    return name_of(node, part) in _named(f"{_LINEAR} {_AVERAGES}")


def places_only(node: fx.Node, part: fx.GraphModule) -> bool:
    """A pooling: channels stay, places are merged."""
    return name_of(node, part) in _named(_POOLS)


def normalises(node: fx.Node, part: fx.GraphModule) -> bool:
    """Needs all channels of the last axis to say what one of them is: the mark of a transformer's stream."""
    return name_of(node, part) in _named(_NORMS)


def in_place(node: fx.Node, part: fx.GraphModule) -> bool:
    """It writes to what it reads."""
    if node.op == "call_module":
        return bool(getattr(part.get_submodule(str(node.target)), "inplace", False))
    name = name_of(node, part)
    augmented = node.op == "call_function" and node.target in (
        operator.iadd, operator.isub, operator.imul, operator.itruediv,
    )  # fmt: skip
    return name.endswith("_") or augmented or bool(node.kwargs.get("inplace", False))


def at_most_one(node: fx.Node, tensor: fx.Node) -> bool:
    """`tensor` is the one tensor the step reads, once, and its first argument."""
    if not node.args or node.args[0] is not tensor or node.all_input_nodes != [tensor]:
        return False
    seen: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), seen.append)
    return len(seen) == 1


def module_at(node: fx.Node, part: fx.GraphModule, allowed: Sequence[str] | None) -> nn.Module | None:
    """The layer a step calls, if it may be changed: inside `allowed`, called once, its arrays of nobody else."""
    if node.op != "call_module":
        return None
    name = str(node.target)
    layer = part.get_submodule(name)
    inside = allowed is None or any(name == one or name.startswith(f"{one}.") for one in allowed)
    if not (inside or type(layer).__module__ == f"{__package__}.pruned_layers_torch"):
        return None
    if (
        sum(other.op == "call_module" and part.get_submodule(str(other.target)) is layer for other in part.graph.nodes)
        > 1
    ):
        return None
    own = {id(tensor) for tensor in (*layer.parameters(), *layer.buffers())}
    others = (*part.named_parameters(remove_duplicate=False), *part.named_buffers(remove_duplicate=False))
    if any(id(tensor) in own and not path.startswith(f"{name}.") for path, tensor in others):
        return None
    return layer


def placeholders(part: fx.GraphModule) -> list[fx.Node]:
    """The part's inputs, in order."""
    return [node for node in part.graph.nodes if node.op == "placeholder"]


def outputs(part: fx.GraphModule) -> tuple[fx.Node, list[fx.Node]]:
    """The step that gives, and the tensors it gives, in order.

    Raises:
        FringeError: it gives something else than tensors.
    """
    last = next(node for node in reversed(part.graph.nodes) if node.op == "output")
    given: Any = last.args[0]
    tensors = list(given) if isinstance(given, tuple | list) else [given]
    if not tensors or not all(isinstance(node, fx.Node) for node in tensors):
        raise FringeError(f"a part gives {given!r:.80}; expected a tuple of tensors, as a part of a pipeline gives")
    return last, tensors


def shapes_of(part: fx.GraphModule, example: Sequence[torch.Tensor]) -> Shapes:
    """Of every tensor in the part, by one run in evaluation mode that leaves the part as it was.

    Raises:
        FringeError: the example does not fit.
    """
    wanted = len(placeholders(part))
    came: Any = example  # a tensor has a length too
    if isinstance(came, torch.Tensor) or len(came) != wanted:
        what = "one tensor" if isinstance(came, torch.Tensor) else f"{len(came)} tensors"
        raise FringeError(f"example is {what}; expected a list of the {wanted} tensors the part takes")
    run = _Shapes(part)
    try:
        with torch.no_grad(), evaluating(part):
            run.run(*(tensor.clone() for tensor in example))
    except Exception as error:  # the model's own code
        raise does_not_fit(example, error) from error
    return run.shapes


def does_not_fit(given: Sequence[torch.Tensor], error: Exception) -> FringeError:
    """What is said where a part fails on tensors it was given."""
    shapes = [tuple(tensor.shape) for tensor in given]
    return FringeError(
        f"the part cannot take tensors of shapes {shapes}: {str(error).splitlines()[0]:.200}; give what the part "
        "before it sends"
    )


class _Shapes(fx.Interpreter):
    """Notes shapes on the way."""

    def __init__(self, part: fx.GraphModule) -> None:
        super().__init__(part)
        self.shapes: Shapes = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n] = tuple(value.shape)
        return value
