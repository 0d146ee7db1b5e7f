"""The groups of a torch model, found by following an example through it.

A model is traced as for cutting (`flower_edge.splitting`), and what each step does to channels is looked up. Inputs and
outputs stay as they are. Where a step is not known to work on fewer channels, the error names it and what to keep
whole; nothing is guessed. A narrower model is tried once before it is said that it can be made.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..errors import SplitError
from ..splitting.recording_torch import Record, left_as_found, record
from ..splitting.tracing_torch import Traced, attributes_kept, one_input, traced
from ..updates.manifest import Spec
from .choices import prefix
from .coupling import Axes, Coupling
from .depth_torch import DepthModel
from .groups import Axis, WidthGroups, index_of
from .layers_torch import Call, after_layer
from .narrow_torch import narrow
from .operations_torch import Operation, Tensor, after_operation

__all__ = ["spec_of", "width_groups"]


def width_groups(
    model: nn.Module, example: torch.Tensor, *, fixed: Sequence[str] = (), blocks: Sequence[str] = ()
) -> WidthGroups:
    """Which axes of the model's arrays carry the same channels.

    Convolutions (in groups and depthwise too), linear layers, embeddings, normalisations, sums, products,
    concatenations, pooling and flattening are followed, through modules of your own and functions. A module that cannot
    be traced, or computes something that is not known (recurrence, attention with heads), needs its channels whole.

    Args:
        model: any module of one tensor; it is left as it was.
        example: [2 or more samples, ...], such as the model takes.
        fixed: names of modules or arrays whose channels are kept whole: `"block1.query_key_value"`, `"embed"`.
        blocks: names of layers in the order in which they run, for a chain of layers that cannot be traced.

    Raises:
        SplitError: a layer that cannot work on fewer channels, by name, with what to write in `fixed`; a model that
            cannot be traced; a name that is not there.

    >>> from flower_edge.models import make_model
    >>> model = make_model("lenet5", input_shape=(1, 28, 28), num_classes=10, seed=0)
    >>> width_groups(model, torch.zeros(2, 1, 28, 28)).sizes
    {'conv1': 6, 'conv2': 16, 'linear1': 120, 'linear2': 84}
    """
    if isinstance(model, DepthModel):
        model = model.every_exit()  # the channels that classifiers read follow those of their place
    with attributes_kept(model):
        steps = traced(one_input(model), blocks)
        try:
            found = record(steps, example, training=True)
        except SplitError:
            raise
        except Exception as error:  # the model's own code
            raise SplitError(
                f"{type(model).__name__} cannot take an example of shape {tuple(example.shape)} and {example.dtype}: "
                f"{error}; give one of 2 samples as in training"
            ) from error
        walk = _Walk(model, steps, found, fixed)
        groups = walk.groups()
    _try(model, groups, example)
    return groups


def spec_of(model: nn.Module) -> Spec:
    """Shape and dtype of every array of its state, in order."""
    return {
        name: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in model.state_dict().items()
    }


class _Walk:
    """One walk along the steps."""

    def __init__(self, model: nn.Module, steps: Traced, found: Record, fixed: Sequence[str]) -> None:
        self.model, self.steps, self.found = model, steps, found
        self.fixed = _checked(model, fixed)
        self.coupling = Coupling()
        self.labels: dict[int, Axes] = {}
        self.tensors: dict[str, torch.Tensor] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }

    def groups(self) -> WidthGroups:
        env: dict[fx.Node, Any] = {}
        for node in self.steps.training.nodes:
            if node.op == "get_attr":
                env[node] = self._attribute(str(node.target))
        given = self.steps.input()
        shape = self.found.values[given].shape
        env[given] = Tensor(shape, (None,) * len(shape))
        for step in self.steps.steps():
            env[step] = self._after(step, env)
        last = env[self.steps.output()]
        if not isinstance(last, Tensor):
            raise SplitError(
                f"{type(self.model).__name__} gives what {self.steps.output()} gives, which is not one tensor; wrap it "
                "in a module whose forward returns what the loss needs"
            )
        # What the model gives is what the loss reads: its classes.
        self.coupling.keep_whole(*last.axes)
        self.coupling.check(type(self.model).__name__)
        spec = spec_of(self.model)
        axes: dict[str, Axes] = {}
        for name in spec:
            label = self.labels.get(id(self.tensors.get(name)), ())
            settled = tuple(axis if axis is None else self.coupling.settled(axis) for axis in label)
            plain = tuple(a if a is not None and any(s.group is not None for s in a) else None for a in settled)
            if any(axis is not None for axis in plain):
                axes[name] = plain
        used = {s.group for label in axes.values() for axis in label for s in axis or ()}
        names = [group for group in self.coupling.groups() if group in used]
        sizes = {name: self.coupling.size(name) for name in names}
        return WidthGroups(spec, sizes, {name: self.coupling.unit(name) for name in names}, axes)

    def _after(self, step: fx.Node, env: dict[fx.Node, Any]) -> Any:
        args: Any = fx.node.map_arg(step.args, env.get)
        kwargs: Any = fx.node.map_arg(step.kwargs, env.get)
        value = self.found.values[step]
        after = value.shape if value.tensor else None
        if step.op != "call_module":
            name = str(step.target) if step.op == "call_method" else getattr(step.target, "__name__", str(step.target))
            owner = step.meta.get("owner") or type(self.model).__name__
            plain = name if name.startswith("_") else name.rstrip("_")
            operation = Operation(plain, f"`{name}` in {owner}", tuple(args), dict(kwargs), after, self.coupling)
            return after_operation(operation)
        target = str(step.target)
        layer = self.model.get_submodule(target)
        where = f"layer {target!r} ({type(layer).__name__})"
        first = args[0] if args else None
        # Weights that are computed (weight norm, spectral norm) are no arrays that could be cut.
        computed = isinstance(getattr(layer, "weight", None), torch.Tensor) and f"{target}.weight" not in self.tensors
        if isinstance(first, Tensor) and after is not None and len(args) == 1 and not kwargs and not computed:
            call = Call(
                target, where, first.axes, first.shape, after, self.coupling,
                lambda name, axes: self._label(f"{target}.{name}", axes),
                lambda size: self._made(target, size),
            )  # fmt: skip
            axes = after_layer(layer, call)
            if axes is not None:
                return Tensor(after, axes)
        return after_operation(Operation(type(layer).__name__, where, tuple(args), dict(kwargs), after, self.coupling))

    def _attribute(self, name: str) -> Any:
        tensor = self.tensors.get(name)
        if tensor is None:
            value: Any = self.steps.module
            for part in name.split("."):
                value = getattr(value, part)
            if not isinstance(value, torch.Tensor):
                return value
            # A constant of the forward's own: it cannot be cut, so it is as it is.
            return Tensor(tuple(value.shape), tuple(self.coupling.fixed(n) if n > 1 else None for n in value.shape))
        shape = tuple(tensor.shape)
        return Tensor(shape, self._label(name, tuple(self._made(name, n) if n > 1 else None for n in shape)))

    def _made(self, name: str, size: int) -> Axis:
        axis = self.coupling.new(name, size)
        if any(name == kept or name.startswith(f"{kept}.") or kept.startswith(f"{name}.") for kept in self.fixed):
            self.coupling.keep_whole(axis)
        return axis

    def _label(self, name: str, axes: Axes) -> Axes:
        key = id(self.tensors[name])
        before = self.labels.get(key)
        if before is not None:
            axes = tuple(self.coupling.same(a, b, name) for a, b in zip(before, axes, strict=True))
        self.labels[key] = axes
        return axes


def _checked(model: nn.Module, fixed: Sequence[str]) -> tuple[str, ...]:
    if isinstance(fixed, str):
        raise SplitError(f"fixed = {fixed!r}: expected a list of names, [{fixed!r}]")
    known = [*(name for name, _ in model.named_modules() if name), *spec_of(model)]
    for name in fixed:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known[:8]
            raise SplitError(
                f"fixed: {type(model).__name__} has no layer or array {name!r}; near it: {', '.join(near)}"
            )
    return tuple(fixed)


def _try(model: nn.Module, groups: WidthGroups, example: torch.Tensor) -> None:
    """Whether a narrower model runs, and gives what the whole one gives."""
    if not groups.sizes:
        return
    small = narrow(model, index_of(groups, prefix(groups, 0.5)))
    try:
        with left_as_found(small), left_as_found(model), torch.no_grad():
            shapes = tuple(small.train()(example).shape), tuple(model.train()(example).shape)
    except Exception as error:  # the model's own code
        raise SplitError(
            f"{type(model).__name__} does not run with half of its channels: {str(error).splitlines()[0]:.300}; its "
            f"own code counts on a width: keep it whole with fixed=, of {sorted(groups.sizes)}"
        ) from error
    if shapes[0] != shapes[1]:
        raise SplitError(
            f"{type(model).__name__} gives {shapes[0]} with half of its channels and {shapes[1]} with all; keep the "
            f"layers before its output whole with fixed=, of {sorted(groups.sizes)}"
        )
