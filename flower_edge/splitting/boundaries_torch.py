"""Where a traced model can be cut so that the halves compute, bit for bit, what the whole computes.

Between two steps the *live* values are those made before and used after. A cut is a place where

  - at most `max_tensors` values are live, all of them tensors whose first axis is the batch, and they and their
    gradients lie in memory without overlap, in an order of axes that can be restored after they travelled;
  - no parameter and no buffer of the model's state is used on both sides;
  - passing copies on changes nothing: no step behind it writes in place to memory another live value shares.

Places that fail are merged into the unit around them. Nothing here runs on its own: it judges `recording_torch`'s runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from ..errors import SplitError
from .recording_torch import Record, Value, chained, layout_of, same
from .tracing_torch import Traced

__all__ = ["Boundary", "boundaries", "owned_by"]


@dataclass(frozen=True, eq=False)
class Boundary:
    """A place to cut.

    Attributes:
        steps: how many are before it.
        live: what passes, in the order it was made.
        shapes: of one sample.
        dtypes: as torch writes them.
        differentiable: whether a gradient comes back.
        layouts: of each value, see `layout_of`.
        back: of each gradient; None where there is none, or the loss gives it.
    """

    steps: int
    live: tuple[fx.Node, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    differentiable: tuple[bool, ...]
    layouts: tuple[tuple[int, ...], ...]
    back: tuple[tuple[int, ...] | None, ...]


def owned_by(step: fx.Node, traced: Traced) -> list[torch.Tensor]:
    """Parameters and buffers a step reads or writes."""
    found: list[torch.Tensor] = []
    if step.op == "call_module":
        module: nn.Module = traced.module.get_submodule(str(step.target))
        found += [*module.parameters(), *module.buffers()]
    for node in step.all_input_nodes:
        if node.op == "get_attr":
            value: object = traced.module
            for name in str(node.target).split("."):
                value = getattr(value, name)
            if isinstance(value, torch.Tensor):
                found.append(value)
    return found


def boundaries(
    traced: Traced, x: torch.Tensor, first: Record, larger: Record, *, max_tensors: int, state: Iterable[torch.Tensor]
) -> tuple[Boundary, ...]:
    """All places to cut, the input and the output among them.

    Args:
        traced: a model.
        x: the batch `first` was recorded with, in training.
        first, larger: records of a batch, and of one that is larger by a sample.
        max_tensors: that may be live.
        state: the model's parameters and buffers that are in its state_dict.

    Raises:
        SplitError: the output is not a tensor with the batch as its first axis.
    """
    steps, output, size = traced.steps(), traced.output(), x.shape[0]

    def fit(node: fx.Node) -> bool:
        one, other = first.values[node], larger.values[node]
        alike = (one.shape[1:], one.layout) == (other.shape[1:], other.layout)
        return alike and _is_batch(one, size) and _is_batch(other, size + 1)

    if not fit(output):
        value = first.values[output]
        raise SplitError(
            f"{type(traced.module).__name__} gives {f'a tensor {value.shape}' if value.tensor else 'no tensor'} for a "
            f"batch of {size}; a model that is cut gives one tensor whose first axis is the batch"
        )
    shared = _shared(traced, state)
    places: dict[int, tuple[fx.Node, ...]] = {}
    last = _last_uses(traced)
    for number in range(1, len(steps)):
        live = tuple(node for node in (traced.input(), *steps[:number]) if last.get(node, -1) >= number)
        plain = len(live) <= max_tensors and all(fit(node) and first.values[node].layout for node in live)
        # A step nobody uses changes nothing that is live: no second cut that passes the same.
        if live and plain and number not in shared and live not in places.values():
            places[number] = live
    for place in _not_exact(traced, x, first, places):
        del places[place]
    gradients = chained(traced, x, places)[1]
    while strided := [place for place, found in gradients.items() if not all(map(_travels, found))]:
        for place in strided:
            del places[place]
        gradients = chained(traced, x, places)[1]  # without those, others may come to be laid out otherwise

    def boundary(number: int, live: tuple[fx.Node, ...], gradients: list[torch.Tensor | None]) -> Boundary:
        values = [first.values[node] for node in live]
        return Boundary(
            number,
            live,
            tuple(v.shape[1:] for v in values),
            tuple(v.dtype for v in values),
            tuple(gradient is not None for gradient in gradients),
            tuple(v.layout or tuple(range(len(v.shape))) for v in values),
            tuple(None if gradient is None else layout_of(gradient) for gradient in gradients),
        )

    end = boundary(len(steps), (output,), [None])
    return (
        boundary(0, (traced.input(),), [None]),
        *(boundary(number, live, gradients[number]) for number, live in places.items()),
        # Its gradient is laid out as the loss pleases.
        replace(end, differentiable=(first.values[output].differentiable,)),
    )


def _is_batch(value: Value, size: int) -> bool:
    return value.tensor and bool(value.shape) and value.shape[0] == size


def _last_uses(traced: Traced) -> dict[fx.Node, int]:
    """By value, the number of the last step that takes it, counted from 0; the output is used after all."""
    last: dict[fx.Node, int] = {}
    for number, step in enumerate(traced.steps()):
        last |= dict.fromkeys(step.all_input_nodes, number)
    last[traced.output()] = len(traced.steps())
    return last


def _shared(traced: Traced, state: Iterable[torch.Tensor]) -> set[int]:
    """Places between two uses of one parameter or buffer."""
    kept = {id(tensor) for tensor in state}
    spans: dict[int, list[int]] = {}
    for number, step in enumerate(traced.steps()):
        for tensor in owned_by(step, traced):
            if id(tensor) in kept:
                spans.setdefault(id(tensor), [number, number])[1] = number
    return {place for start, stop in spans.values() for place in range(start + 1, stop + 1)}


def _not_exact(traced: Traced, x: torch.Tensor, first: Record, places: Mapping[int, tuple[fx.Node, ...]]) -> list[int]:
    """Places at which passing copies on gives another output than the whole model's."""

    def exact(cuts: Mapping[int, tuple[fx.Node, ...]]) -> bool:
        return same(chained(traced, x, cuts, backward=False)[0], first.output)

    return [] if exact(places) else [place for place, live in places.items() if not exact({place: live})]


def _travels(gradient: torch.Tensor | None) -> bool:
    """Its layout can be restored."""
    return gradient is None or layout_of(gradient) is not None
