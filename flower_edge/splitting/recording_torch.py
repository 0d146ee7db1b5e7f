"""Runs of a traced model, step by step, that leave the model and torch's random state as they found them.

`record` tells of every value what a cut needs to know. `chained` runs the same steps as if the model were cut at many
places at once. Neither decides where to cut.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import fx, nn

from .tracing_torch import Traced, attributes_kept

__all__ = [
    "DRAWING",
    "Gradients",
    "Record",
    "Value",
    "chained",
    "layout_of",
    "left_as_found",
    "record",
    "same",
    "trained",
]

#: torch has one random state for all threads of a process: who seeds it draws before anybody else does.
DRAWING: Final = threading.RLock()

#: By cut, of each value that arrived there.
Gradients = dict[int, list[torch.Tensor | None]]


@dataclass(frozen=True)
class Value:
    """What a step gave. All but `tensor` are of tensors only.

    Attributes:
        tensor: whether it is one.
        shape: with the batch.
        dtype: as torch writes it: torch.float32.
        layout: see `layout_of`.
        differentiable: it depends on a parameter that is trained.
    """

    tensor: bool
    shape: tuple[int, ...] = ()
    dtype: str = ""
    layout: tuple[int, ...] | None = None
    differentiable: bool = False


@dataclass
class Record:
    """One run of all steps.

    Attributes:
        values: by node, the input among them.
        random: steps that drew random numbers.
        output: what the model gave.
        trained: see `trained`.
        written: names of buffers that were written to.
    """

    values: dict[fx.Node, Value] = field(default_factory=dict)
    random: set[fx.Node] = field(default_factory=set)
    output: object = None
    trained: list[bool] = field(default_factory=list)
    written: list[str] = field(default_factory=list)


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[Callable[[], list[str]]]:
    """Restores attributes, buffers (BatchNorm's statistics) and random state after what is run in here.

    Yields:
        Tells the names of buffers written to so far.
    """
    # Whatever a forward does with them: written in place, or replaced.
    buffers = [
        (module, name, f"{prefix}.{name}".lstrip("."), buffer, buffer.detach().clone())
        for prefix, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]

    def written() -> list[str]:
        return [
            whole
            for module, name, whole, buffer, before in buffers
            if module._buffers[name] is not buffer or not same(buffer, before)  # BatchNorm does not count versions
        ]

    with DRAWING, attributes_kept(model), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield written
        finally:
            with torch.no_grad():
                for module, name, _, buffer, before in buffers:
                    module._buffers[name] = buffer
                    if not same(buffer, before):
                        buffer.copy_(before)


def _random_state(like: torch.Tensor) -> torch.Tensor:
    """State of the generators that steps on such a tensor draw from."""
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(like.device)]) if like.is_cuda else state


def layout_of(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Axes in the order in which they lie in memory, (0, 1, …) where contiguous; None if numbers overlap or have gaps.

    Matrix products may round otherwise where the same numbers lie in another order.
    """
    order = tuple(range(tensor.dim()))
    if tensor.is_contiguous():
        return order
    order = tuple(sorted(order, key=tensor.stride, reverse=True))
    return order if tensor.permute(order).is_contiguous() else None


def same(one: object, other: object) -> bool:
    """Whether both are tensors, alike bit for bit but for the sort of a NaN."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def record(traced: Traced, x: torch.Tensor, *, training: bool) -> Record:
    """Run all steps on a batch."""
    found = Record()
    with left_as_found(traced.module) as written:
        run = _Run(traced, x, training)
        found.values[traced.input(training)] = _described(run.env[traced.input(training)])
        for step in traced.steps(training):
            before = _random_state(x)
            value = run.take(step)
            if not torch.equal(before, _random_state(x)):
                found.random.add(step)
            found.values[step] = _described(value)  # now: a later step may change it in place
        found.output = run.env[traced.output(training)]
        if isinstance(found.output, torch.Tensor):
            found.trained = trained(traced.module, found.output)
            found.output = found.output.detach()
        found.written = written()
    return found


def trained(model: nn.Module, output: torch.Tensor) -> list[bool]:
    """Whether each parameter, in order, gets a gradient."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not output.requires_grad:
        return [False] * len(wanted)
    return [g is not None for g in torch.autograd.grad(output.sum(), wanted, allow_unused=True)]


def chained(
    traced: Traced, x: torch.Tensor, cuts: Mapping[int, Sequence[fx.Node]], *, backward: bool = True
) -> tuple[torch.Tensor, Gradients]:
    """Run all steps in training; at each cut, by the number of steps before it, live values are passed on as copies.

    Returns:
        The output, and by cut the gradients of what arrived there, for the sum of the outputs as the loss; None where
        there is none.
    """
    sent: dict[int, list[torch.Tensor]] = {}
    arrived: dict[int, list[torch.Tensor]] = {}
    with left_as_found(traced.module):
        run = _Run(traced, x, True)
        for number, step in enumerate(traced.steps(), 1):
            run.take(step)
            if number in cuts:
                sent[number] = [run.env[node] for node in cuts[number]]
                arrived[number] = [v.detach().clone().requires_grad_(v.requires_grad) for v in sent[number]]
                # Cloned once more: a step may write in place, which a leaf of autograd refuses.
                run.env |= {node: v.clone() for node, v in zip(cuts[number], arrived[number], strict=True)}
        output: torch.Tensor = run.env[traced.output()]
        return output.detach(), _gradients(output, sent, arrived) if backward else {}


def _gradients(
    output: torch.Tensor, sent: Mapping[int, list[torch.Tensor]], arrived: Mapping[int, list[torch.Tensor]]
) -> Gradients:
    found: Gradients = {}
    outputs, given = [output], [torch.ones_like(output)]
    for place in sorted(arrived, reverse=True):
        leaves = [leaf for leaf in arrived[place] if leaf.requires_grad]
        after = [(o, g) for o, g in zip(outputs, given, strict=True) if o.requires_grad]
        got: Iterator[torch.Tensor | None] = iter(
            torch.autograd.grad([o for o, _ in after], leaves, [g for _, g in after], allow_unused=True)
            if leaves and after
            else [None] * len(leaves)
        )
        found[place] = [next(got) if leaf.requires_grad else None for leaf in arrived[place]]
        back = [(s, g) for s, g in zip(sent[place], found[place], strict=True) if g is not None]
        outputs, given = [s for s, _ in back], [g for _, g in back]
    return found


class _Run:
    """A run under way: what each node gave, and the step that comes."""

    def __init__(self, traced: Traced, x: torch.Tensor, training: bool) -> None:
        torch.manual_seed(0)  # all runs draw alike
        self.module = traced.module.train(training)
        fetched = (node for node in (traced.training if training else traced.evaluation).nodes if node.op == "get_attr")
        self.env: dict[fx.Node, Any] = {node: operator.attrgetter(str(node.target))(self.module) for node in fetched}
        self.env[traced.input(training)] = x.clone()  # the model may write to its input

    def take(self, step: fx.Node) -> Any:
        args: Any = fx.node.map_arg(step.args, self.env.__getitem__)
        kwargs: Any = fx.node.map_arg(step.kwargs, self.env.__getitem__)
        if step.op == "call_module":
            value = self.module.get_submodule(str(step.target))(*args, **kwargs)
        elif step.op == "call_method":
            value = getattr(args[0], str(step.target))(*args[1:], **kwargs)
        else:
            assert callable(step.target)  # call_function
            value = step.target(*args, **kwargs)
        self.env[step] = value
        return value


def _described(value: object) -> Value:
    if not isinstance(value, torch.Tensor):
        return Value(False)
    return Value(True, tuple(value.shape), str(value.dtype), layout_of(value), value.requires_grad)
