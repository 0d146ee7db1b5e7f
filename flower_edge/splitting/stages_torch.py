"""`Stage`: some neighbouring units of a model as a module of their own, which shares the model's arrays.

It computes what those units compute in the whole model, and names its parameters and buffers as the whole model does.
It neither trains nor keeps tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ..models.seeding_torch import seed_torch
from .boundaries_torch import Boundary
from .recording_torch import layout_of
from .tracing_torch import Traced

__all__ = ["Stage"]

_SEEDS = "flower_edge_seeds"


class Stage(nn.Module):
    """Units start .. stop-1.

    Takes the tensors that are live at `start`, in the order of the profile's cut, and gives those live at `stop`. What
    it is given is not written to. `train()` and `eval()` work, and act on the modules it shares with the model.

    Attributes:
        start, stop: positions of cuts.
        random: units that draw random numbers; see `seeded`.
    """

    def __init__(
        self,
        traced: Traced,
        cuts: tuple[Boundary, ...],
        start: int,
        stop: int,
        *,
        random: Collection[int],
        persistent: Collection[str],
    ) -> None:
        super().__init__()
        self.start, self.stop = start, stop
        self.random = tuple(unit for unit in range(start, stop) if unit in random)
        self._layouts = cuts[start].layouts
        self._back = cuts[stop].back
        self._seeds = [_Seeds()]  # in a list: it has no arrays, and is none of the model's modules
        bodies = {True: self._body(traced, cuts, True)}
        # One body serves both modes, unless a constant differs.
        bodies[False] = bodies[True] if traced.evaluation is traced.training else self._body(traced, cuts, False)
        for body in bodies.values():
            # torch.fx takes every tensor it fetches for a persistent buffer.
            for prefix, module in body.named_modules():
                for name in module._buffers:
                    if f"{prefix}.{name}".lstrip(".") not in persistent:
                        module._non_persistent_buffers_set.add(name)
        self._bodies = [bodies]
        whole = bodies[True]
        for name, child in whole.named_children():
            if name != _SEEDS:
                self.add_module(name, child)
        for name, parameter in whole._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in whole._buffers.items():
            self.register_buffer(name, buffer, persistent=name in persistent)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """From tensors [batch, ...] to tensors [batch, ...]."""
        laid = [_copy(tensor, layout) for tensor, layout in zip(tensors, self._layouts, strict=True)]
        given: tuple[torch.Tensor, ...] = self._bodies[0][self.training](*laid)
        return tuple(
            tensor if layout is None or not tensor.requires_grad else _laid_back(tensor, layout)
            for tensor, layout in zip(given, self._back, strict=True)
        )

    @contextmanager
    def seeded(self, seed: int, step: int) -> Iterator[None]:
        """What units draw in here (dropout) follows from seed, step and the unit, so not from where the model is cut.

        torch's global random state is left as it was found. Without this, units draw from that.
        """
        if not self.random:
            yield
            return
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            self._seeds[0].key = (seed, step)
            try:
                yield
            finally:
                self._seeds[0].key = None

    def extra_repr(self) -> str:
        return f"units {self.start}..{self.stop - 1}"

    def _body(self, traced: Traced, cuts: tuple[Boundary, ...], training: bool) -> fx.GraphModule:
        """A module of the steps between the two cuts, with the model's own submodules, parameters and buffers."""
        # The two graphs are alike step by step; cuts are given in nodes of the one of training.
        source = traced.training if training else traced.evaluation
        own = dict(zip(traced.training.nodes, source.nodes, strict=True))
        graph = fx.Graph()
        roots: dict[str, Any] = {_SEEDS: self._seeds[0]}
        env = {own[node]: graph.placeholder(f"live_{number}") for number, node in enumerate(cuts[self.start].live)}

        def fetched(node: fx.Node) -> fx.Node:
            if node not in env and node.op == "get_attr":
                env[node] = copied(node)
            return env[node]

        def copied(node: fx.Node) -> fx.Node:
            if node.op in ("get_attr", "call_module"):
                roots[str(node.target)] = operator.attrgetter(str(node.target))(traced.module)
            return graph.node_copy(node, fetched)

        first = {cuts[unit].steps: unit for unit in self.random}
        steps = traced.steps(training)
        for number in range(cuts[self.start].steps, cuts[self.stop].steps):
            if number in first:
                graph.call_module(_SEEDS, (first[number],))
            step = steps[number]
            for node in step.all_input_nodes:  # fetched before: copying must not put nodes behind their use
                fetched(node)
            env[step] = copied(step)
        graph.output(tuple(env[own[node]] for node in cuts[self.stop].live))
        return fx.GraphModule(roots, graph, class_name="Stage")


def _copy(tensor: torch.Tensor, layout: tuple[int, ...]) -> torch.Tensor:
    """With its axes in memory in this order."""
    back = tuple(layout.index(axis) for axis in range(len(layout)))
    return tensor.permute(layout).clone(memory_format=torch.contiguous_format).permute(back)


class _GradientLaid(torch.autograd.Function):
    """Changes nothing but how a gradient that came back lies in memory."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, layout: tuple[int, ...]) -> torch.Tensor:
        ctx.layout = layout
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        laid = layout_of(gradients[0]) == ctx.layout
        return gradients[0] if laid else _copy(gradients[0], ctx.layout), None


def _laid_back(tensor: torch.Tensor, layout: tuple[int, ...]) -> torch.Tensor:
    same: torch.Tensor = _GradientLaid.apply(tensor, layout)  # type: ignore[no-untyped-call]
    return same


class _Seeds(nn.Module):
    """A step that seeds torch for the unit that comes; does nothing outside `Stage.seeded`."""

    key: tuple[int, int] | None = None

    def forward(self, unit: int) -> None:
        if self.key is not None:
            seed_torch(int(np.random.SeedSequence([*self.key, unit]).generate_state(1, np.uint64)[0]))
