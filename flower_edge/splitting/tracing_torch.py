"""From a model to the list of what it computes, in order, by `torch.fx`.

A submodule that cannot be traced (its control flow depends on data) or computes in evaluation by other steps than in
training is kept whole, as one step, and so are torch's own modules; only where the model's own `forward` is such is
tracing impossible. Nothing here runs the model or decides where to cut.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from ..errors import SplitError

__all__ = ["Traced", "attributes_kept", "one_input", "traced"]

_TORCH = os.path.dirname(os.path.abspath(torch.__file__))


@dataclass(frozen=True, eq=False)
class Traced:
    """A model as a list of steps.

    Attributes:
        training, evaluation: graphs alike but for constants, such as whether `functional.dropout` is on.
        module: the model with a forward of one argument; a graph's names are looked up in it.
    """

    training: fx.Graph
    evaluation: fx.Graph
    module: nn.Module

    def steps(self, training: bool = True) -> tuple[fx.Node, ...]:
        """What is computed, in order: neither the input, nor the output, nor fetching a parameter."""
        graph = self.training if training else self.evaluation
        return tuple(node for node in graph.nodes if node.op.startswith("call_"))

    def input(self, training: bool = True) -> fx.Node:
        """The model's input."""
        graph = self.training if training else self.evaluation
        found: fx.Node = next(node for node in graph.nodes if node.op == "placeholder")
        return found

    def output(self, training: bool = True) -> fx.Node:
        """What the model gives.

        Raises:
            SplitError: several things, or none.
        """
        found = next(node for node in (self.training if training else self.evaluation).nodes if node.op == "output")
        if not isinstance(found.args[0], fx.Node) or found.args[0].op in ("placeholder", "get_attr"):
            raise SplitError(
                f"{type(self.module).__name__} gives {found.args[0]!r:.80}; a model that is cut has one tensor as its "
                "output: wrap it in a module whose forward returns what the loss needs"
            )
        return found.args[0]


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Whatever is done to it in here, its modules get back the attributes they had: modes, and what they noted."""
    before = [(module, dict(module.__dict__)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)


def one_input(model: nn.Module) -> nn.Module:
    """The same model (same submodules, parameters, buffers) with a forward of one argument; others keep their defaults.

    Raises:
        SplitError: its forward needs more than one.
    """
    kind: Any = type(model)
    wanted = list(inspect.signature(kind.forward).parameters.values())[1:]
    fixed = [p for p in wanted if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    needed = [p.name for p in wanted if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not fixed or len(needed) > 1 or (needed and needed[0] != fixed[0].name):
        raise SplitError(
            f"{kind.__name__}.forward takes {', '.join(needed) or 'nothing'}; a model that is cut takes one tensor: "
            "wrap it in a module whose forward takes one, and give the others defaults"
        )

    def forward(self: nn.Module, x: Any) -> Any:
        return kind.forward(self, x)

    one: nn.Module = copy.copy(model)
    one.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return one


def traced(module: nn.Module, blocks: Sequence[str] = ()) -> Traced:
    """Trace it, or take it as the chain of `blocks`.

    Args:
        module: what `one_input` gave.
        blocks: qualified names of submodules in the order they run; empty: trace.

    Raises:
        SplitError: it cannot be traced, or has no such submodule.
    """
    if blocks:
        graph = _chain(module, blocks)
        return Traced(graph, graph, module)
    leaves: set[str] = set()
    with ExitStack() as kept:
        for child in module.children():  # not the model itself: its copy here is where constants are put
            kept.enter_context(attributes_kept(child))
        while True:
            graphs = []
            for training in (True, False):
                module.train(training)
                tracer = _Tracer(leaves)
                try:
                    graphs.append(tracer.trace(module))
                except Exception as error:  # tracing runs the model's own code, which may raise anything
                    entered = [name for name in tracer.within if name not in leaves]
                    if not entered:
                        raise SplitError(_why_not(module, error)) from error
                    leaves.add(entered[-1])
                    break
            else:
                different = _first_difference(*graphs)
                if different is None:
                    alike = [repr([(n.op, n.target, n.args, n.kwargs) for n in graph.nodes]) for graph in graphs]
                    return Traced(graphs[0], graphs[alike[0] != alike[1]], module)
                if not different:
                    raise SplitError(
                        f"{type(module).__name__}.forward takes other steps in training than in evaluation; "
                        + _ask_for_blocks(module)
                    )
                leaves.add(different)


class _Tracer(fx.Tracer):
    """Remembers which module each step came from, and, where tracing fails, in which module it failed."""

    proxy_buffer_attributes = True  # else what a forward computes of buffers alone happens once, while tracing

    def __init__(self, leaves: set[str]) -> None:
        super().__init__()
        self.leaves = leaves
        self.within: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # What a hook does to gradients is in no graph: its module stays whole, and the hook with it.
        hooked = bool(m._backward_hooks or m._backward_pre_hooks)
        return hooked or module_qualified_name in self.leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.within.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)
        self.within.pop()  # not in a `finally`: who failed is read from what is left
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["owner"] = self.within[-1] if self.within else ""
        return node


def _chain(module: nn.Module, blocks: Sequence[str]) -> fx.Graph:
    known = [name for name, _ in module.named_modules() if name]
    graph = fx.Graph()
    value = graph.placeholder("x")
    for name in blocks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or known[:8]
            raise SplitError(f"blocks: {type(module).__name__} has no submodule {name!r}; near it: {', '.join(near)}")
        value = graph.call_module(name, (value,))
        value.meta["owner"] = name
    graph.output(value)
    return graph


def _first_difference(training: fx.Graph, evaluation: fx.Graph) -> str | None:
    """Name of the module of the first step that differs in more than constants; None if there is none."""
    numbers: dict[fx.Node, int] = {}
    for graph in (training, evaluation):
        numbers |= {node: number for number, node in enumerate(graph.nodes)}
    for one, other in zip(training.nodes, evaluation.nodes, strict=False):
        # A tensor that the forward makes of nothing is a new attribute in each trace.
        made = all(node.op == "get_attr" and str(node.target).startswith("_tensor_constant") for node in (one, other))
        done = made or (one.op, one.target) == (other.op, other.target)
        if not done or [numbers[n] for n in one.all_input_nodes] != [numbers[n] for n in other.all_input_nodes]:
            return str(one.meta.get("owner", "") or other.meta.get("owner", ""))
    return None if len(training.nodes) == len(evaluation.nodes) else ""


def _why_not(model: nn.Module, error: Exception) -> str:
    """Says which line of the model's own code torch.fx stumbled on."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not os.path.abspath(frame.filename).startswith((_TORCH, os.path.abspath(__file__)))
    ]
    where = f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno} `{own[-1].line}`" if own else ""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"torch.fx cannot trace {type(model).__name__}{where}: {said[:160]}; {_ask_for_blocks(model)}"


def _ask_for_blocks(model: nn.Module) -> str:
    names = [name for name, _ in model.named_children()]
    return f"pass the submodules that make up the model, in the order they run: blocks={names[:6]}"
