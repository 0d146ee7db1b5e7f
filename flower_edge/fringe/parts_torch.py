"""What each machine of a pipeline runs: a module of its own steps, with its own arrays under the model's names.

A part is a `torch.fx.GraphModule`. Its placeholders are the tensors that are live at its start, its output is the tuple
of those live at its end; between them are the model's own modules (`nn.Conv2d`, `nn.BatchNorm2d`, …), so a part can be
pruned, trained and put in either mode. Of a model that takes other constants in training than in evaluation
(`functional.dropout`), it takes those of evaluation. Nothing here sends, compresses or decides where to cut.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy.typing as npt
import torch
from torch import fx, nn

from ..errors import FringeError, SplitError
from ..models.train_torch import get_arrays
from ..splitting.boundaries_torch import owned_by
from ..splitting.cutting_torch import CutModel
from ..splitting.tensors_torch import enter, leave
from .wire import TensorSpec

__all__ = ["Part", "copied", "evaluating", "laid_out", "make_part", "outputs_of", "position_of", "specs_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Part:
    """What one machine runs.

    Attributes:
        machine: its name.
        module: see `parts_torch`.
        units: of the model it was cut from, in the order they run.
    """

    machine: str
    module: fx.GraphModule = field(repr=False)
    units: tuple[str, ...] = field(repr=False)

    def step(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """From the arrays live at its start to those live at its end, in evaluation, without gradients.

        It is what a server does.
        """
        like = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))
        training = [self.module] if any(one.training for one in self.module.modules()) else []
        with torch.no_grad(), evaluating(*training):
            return leave(self.module(*enter(tuple(arrays), [False] * len(arrays), like.dtype, like.device)))

    def serving(self) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
        """`step`, bit for bit, of a part that nobody trains, moves or casts any more: it is put in evaluation now.

        What `step` looks up in each module at each call takes a small part as long as a convolution.
        """
        module = self.module.eval()
        like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))

        def run(arrays: Sequence[Array]) -> tuple[Array, ...]:
            with torch.no_grad():
                return leave(module(*enter(tuple(arrays), [False] * len(arrays), like.dtype, like.device)))

        return run

    def arrays(self) -> dict[str, Array]:
        """Copies of its parameters and buffers, by the model's names."""
        return get_arrays(self.module)


def position_of(cut_model: CutModel, cut: int | str) -> int:
    """The position of a cut that is named: by position, by unit, or by the module after whose last step it lies.

    Raises:
        SplitError: no such place, one at which a weight would be needed on both sides, or one that is no cut.
    """
    last = len(cut_model.units)
    if isinstance(cut, int) and not isinstance(cut, bool):
        if not 0 < cut < last:
            raise SplitError(f"cut = {cut} of a model of {last} units; use 1 to {last - 1}, so that no machine is idle")
        return cut
    if not isinstance(cut, str):
        raise SplitError(f"cut = {cut!r}: expected a position, or the name of the module it comes after")
    if cut in cut_model.units[:-1]:
        return cut_model.units.index(cut) + 1
    steps = cut_model.graphs.steps()
    inside = [number for number, step in enumerate(steps, 1) if _within(step, cut)]
    if not inside:
        raise SplitError(f"cut = {cut!r}: no step of the model lies in it; use one of {_shown(cut_model)}")
    possible = {place.steps: position for position, place in enumerate(cut_model.places) if 0 < position < last}
    number = inside[-1]
    # A recurrent layer gives a tuple, which is taken apart before a tensor can be sent.
    while number not in possible and number < len(steps) and steps[number].target is operator.getitem:
        number += 1
    if number in possible:
        return possible[number]
    both = _tied(cut_model, inside[-1])
    if both:
        raise SplitError(
            f"cut after {cut!r}: {both[0]!r} is needed on both sides, and one machine holds an array; "
            f"cut at one of {_shown(cut_model)}, or untie it: {both[0].rpartition('.')[0] or 'layer'}.weight = "
            "nn.Parameter(weight.clone())"
        )
    raise SplitError(
        f"cut after {cut!r}: the model cannot be cut there (it ends there, too many tensors are live, or one is no "
        f"batch); use one of {_shown(cut_model)}, or raise max_tensors"
    )


def _within(step: fx.Node, name: str) -> bool:
    places = [str(step.meta.get("owner", ""))]
    if step.op == "call_module":
        places.append(str(step.target))
    return any(place == name or place.startswith(f"{name}.") for place in places)


def _shown(cut_model: CutModel) -> str:
    names = cut_model.units[:-1]
    return ", ".join(map(repr, names[:8])) + (f", … ({len(names)} in all)" if len(names) > 8 else "")


def _tied(cut_model: CutModel, number: int) -> list[str]:
    """Names of arrays that steps before and after this place read."""
    traced = cut_model.graphs
    before, after = (
        {id(tensor) for step in steps for tensor in owned_by(step, traced)}
        for steps in (traced.steps()[:number], traced.steps()[number:])
    )
    state = cut_model.model.state_dict(keep_vars=True)
    return [name for name, tensor in state.items() if id(tensor) in before & after]


def make_part(cut_model: CutModel, start: int, stop: int, inputs: Sequence[torch.Tensor]) -> fx.GraphModule:
    """Units start .. stop-1 as a module that shares nothing with the model.

    Args:
        cut_model: where it is taken from; neither changed nor kept.
        start, stop: positions of cuts, start < stop.
        inputs: what is live at the start, of some batch.
    """
    part = _build(cut_model, start, stop, frozenset())
    given = [tensor.clone() for tensor in inputs]
    before = [tensor._version for tensor in given]
    with torch.no_grad(), evaluating(part):
        part(*given)
    # A first step that writes in place would change what the caller passed: such an input is copied first.
    written = frozenset(i for i, tensor in enumerate(given) if tensor._version != before[i])
    return _build(cut_model, start, stop, written) if written else part


def _build(cut_model: CutModel, start: int, stop: int, copied: frozenset[int]) -> fx.GraphModule:
    traced, places = cut_model.graphs, cut_model.places
    source = traced.evaluation
    own = dict(zip(traced.training.nodes, source.nodes, strict=True))  # alike step by step; cuts are of the first
    graph = fx.Graph()
    roots: dict[str, Any] = {}
    memo: dict[int, Any] = {}  # one for all: two names of one weight stay two names of one weight
    env: dict[fx.Node, fx.Node] = {}
    for number, node in enumerate(places[start].live):
        env[own[node]] = graph.placeholder(f"live_{number}")
    for number, (node, layout) in enumerate(zip(places[start].live, places[start].layouts, strict=True)):
        taken = own[node]
        if layout != tuple(range(len(layout))):
            env[taken] = graph.call_function(laid_out, (env[taken], layout))
        elif number in copied:
            env[taken] = graph.call_method("clone", (env[taken],))

    def fetched(node: fx.Node) -> fx.Node:
        if node not in env and node.op == "get_attr":
            env[node] = put(node)
        return env[node]

    def put(node: fx.Node) -> fx.Node:
        if node.op in ("get_attr", "call_module") and str(node.target) not in roots:
            roots[str(node.target)] = copy.deepcopy(operator.attrgetter(str(node.target))(traced.module), memo)
        return graph.node_copy(node, fetched)

    for step in traced.steps(training=False)[places[start].steps : places[stop].steps]:
        for node in step.all_input_nodes:  # fetched before: copying must not put nodes behind their use
            fetched(node)
        env[step] = put(step)
    graph.output(tuple(env[own[node]] for node in places[stop].live))
    part = fx.GraphModule(roots, graph, class_name="Part")
    persistent = cut_model.model.state_dict()
    for prefix, module in part.named_modules():
        for name in module._buffers:  # torch.fx takes every tensor it fetches for a persistent one
            if f"{prefix}.{name}".lstrip(".") not in persistent:
                module._non_persistent_buffers_set.add(name)
    return part.eval()


def laid_out(tensor: torch.Tensor, layout: Sequence[int]) -> torch.Tensor:
    """The same numbers with their axes in memory in this order: matrix products may round otherwise in another."""
    back = tuple(layout.index(axis) for axis in range(len(layout)))
    return tensor.permute(*layout).clone(memory_format=torch.contiguous_format).permute(back)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """In evaluation; every module is back in its own mode after."""
    before = [(one, one.training) for module in modules for one in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for one, training in before:
            one.training = training


def copied(part: fx.GraphModule) -> fx.GraphModule:
    """A part of its own: copies of all arrays under the same names, and as persistent as they were.

    `copy.deepcopy` of a `GraphModule` drops what no step uses, and makes every buffer persistent.
    """
    twin: fx.GraphModule = copy.deepcopy(part)
    for path, module in part.named_modules():
        try:
            own = twin.get_submodule(path)
        except AttributeError:  # torch.fx copies what steps use only
            twin.add_submodule(path, copy.deepcopy(module))
            own = twin.get_submodule(path)
        for name, parameter in module._parameters.items():
            if name not in own._parameters:
                own.register_parameter(name, copy.deepcopy(parameter))
        for name, buffer in module._buffers.items():
            if name not in own._buffers:
                own.register_buffer(name, copy.deepcopy(buffer))
        own._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
        own.training = module.training
    return twin


def specs_of(parts: Sequence[Part], example: torch.Tensor) -> list[tuple[TensorSpec, ...]]:
    """Of what crosses each connection, found by running parts one after the other.

    Raises:
        FringeError: as `outputs_of`, or parts that do not fit together.
    """
    found = []
    with torch.no_grad(), evaluating(*(part.module for part in parts)):
        tensors: tuple[torch.Tensor, ...] = (example,)
        for before, after in pairwise(parts):
            tensors = outputs_of(before, tensors)
            takes = sum(node.op == "placeholder" for node in after.module.graph.nodes)
            if takes != len(tensors):
                raise FringeError(f"{before.machine!r} gives {len(tensors)} tensors, {after.machine!r} takes {takes}")
            found.append(
                tuple(
                    TensorSpec(name, tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
                    for name, tensor in zip(_names(before.module), tensors, strict=True)
                )
            )
        outputs_of(parts[-1], tensors)
    return found


def outputs_of(part: Part, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """What a part gives, in the mode it is in; what it was given is not written to.

    Raises:
        FringeError: it fails, or gives something else than tensors with the batch first.
    """
    try:
        given: object = part.module(*(tensor.clone() for tensor in tensors))
    except Exception as error:  # a module's own code
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise FringeError(f"the part of {part.machine!r} fails on tensors {shapes}: {str(error)[:200]}") from error
    if not isinstance(given, tuple) or not all(isinstance(one, torch.Tensor) for one in given) or not given:
        raise FringeError(f"the part of {part.machine!r} gives {type(given).__name__}, expected a tuple of tensors")
    batch = len(tensors[0])
    if any(not one.dim() or len(one) != batch for one in given):
        shapes = ", ".join(str(tuple(one.shape)) for one in given)
        raise FringeError(f"the part of {part.machine!r} gives {shapes} of {batch} samples; expected the batch first")
    return given


def _names(module: fx.GraphModule) -> list[str]:
    """Of the steps whose values it gives."""
    output = next(node for node in module.graph.nodes if node.op == "output")
    return [node.name for node in output.args[0]]
