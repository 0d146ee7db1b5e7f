"""What functions and methods of tensors do to channels: sums, concatenations, changes of shape.

A function that is not here needs all channels of its inputs, and gives an output that is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .coupling import Axes, Coupling, Size, reshaped
from .groups import Axis

__all__ = ["Operation", "Tensor", "after_operation"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: On every number alone.
_POINTWISE: Final = _names(
    "relu relu6 leaky_relu rrelu elu selu celu gelu silu mish sigmoid logsigmoid tanh hardtanh hardswish hardsigmoid "
    "softplus softsign dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout stochastic_depth abs "
    "neg exp log sqrt rsqrt square pow clamp clip contiguous clone detach float double half to type type_as erf "
    "requires_grad_ threshold bernoulli"
)
#: On two tensors, number by number.
_PAIRS: Final = _names(
    "add sub mul div truediv iadd isub imul itruediv maximum minimum multiply subtract true_divide where"
)
_PLACES: Final = _names(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate pad"
)
_REDUCTIONS: Final = _names("mean sum amax amin std var norm")
_RESHAPES: Final = _names("flatten view reshape squeeze unsqueeze unflatten")


@dataclass(frozen=True)
class Tensor:
    """A tensor on its way through the model: its shape, and what lies on each axis."""

    shape: tuple[int, ...]
    axes: Axes


@dataclass(frozen=True)
class Operation:
    """One step.

    Attributes:
        name: of the function or method, without an underscore at its end.
        where: for errors.
        args, kwargs: `Tensor`, `Size`, tuples of them, or plain values.
        after: shape of the output; `None` where it is no tensor.
        coupling: takes up what is found.
    """

    name: str
    where: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    after: tuple[int, ...] | None
    coupling: Coupling

    def argument(self, place: int, *names: str, default: Any = None) -> Any:
        """By place or by one of its names."""
        if place < len(self.args):
            return self.args[place]
        return next((self.kwargs[name] for name in names if name in self.kwargs), default)


def after_operation(step: Operation) -> Any:
    """What it gives: a `Tensor`, a `Size`, a tuple of sizes, or `None` for what is nothing of these."""
    first = step.args[0] if step.args else None
    if step.name == "getattr" and isinstance(first, Tensor):
        return _sizes(first) if step.args[1] == "shape" else None
    if step.name == "size" and isinstance(first, Tensor):
        at = step.argument(1, "dim")
        return _sizes(first) if at is None else _sizes(first)[at]
    if step.name == "getitem" and isinstance(first, tuple):
        return first[step.args[1]]
    if step.after is None:
        sizes = not any(isinstance(value, Tensor) for value in (*step.args, *step.kwargs.values()))
        what = "computes with how many channels there are" if sizes else f"makes several tensors by `{step.name}`"
        _demanded(step, what)
        return None
    if not isinstance(first, Tensor) and step.name not in ("cat", "concat", "concatenate", *_PAIRS):
        return _unknown(step)
    for names, rule in _RULES:
        if step.name in names:
            return Tensor(step.after, rule(step, step.after))
    return _unknown(step)


def _sizes(tensor: Tensor) -> tuple[Size, ...]:
    return tuple(Size(axis, length) for axis, length in zip(tensor.axes, tensor.shape, strict=True))


def _unknown(step: Operation) -> Tensor | None:
    _demanded(step, f"computes `{step.name}`, which is not known to work on fewer channels")
    return None if step.after is None else Tensor(step.after, (None,) * len(step.after))


def _demanded(step: Operation, why: str) -> None:
    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            step.coupling.demand(step.where, why, *value.axes)
        elif isinstance(value, Size):
            step.coupling.demand(step.where, why, value.axis)
        elif isinstance(value, tuple | list):
            for one in value:
                visit(one)

    visit(list(step.args))
    visit(list(step.kwargs.values()))


def _pointwise(step: Operation, after: tuple[int, ...]) -> Axes:
    return _broadcast(step, after, [step.args[0]])


def _pair(step: Operation, after: tuple[int, ...]) -> Axes:
    values = [*step.args, *step.kwargs.values()]
    for value in values:
        if isinstance(value, Size):
            step.coupling.demand(step.where, "computes with how many channels there are", value.axis)
    return _broadcast(step, after, [value for value in values if isinstance(value, Tensor)])


def _broadcast(step: Operation, after: tuple[int, ...], tensors: list[Tensor]) -> Axes:
    out: list[Axis | None] = []
    for place, length in enumerate(after):
        here: list[Axis | None] = []
        for tensor in tensors:
            own = place - (len(after) - len(tensor.shape))
            if own >= 0 and (tensor.shape[own] == length) and length > 1:
                here.append(tensor.axes[own])
            elif own >= 0 and tensor.axes[own] is not None:
                # A single channel that is spread over many: it is one, and stays.
                step.coupling.keep_whole(tensor.axes[own])
        if here:
            found = here[0]
            for other in here[1:]:
                found = step.coupling.same(found, other, step.where)
            out.append(found)
        else:
            out.append(None)
    return tuple(out)


def _places(step: Operation, after: tuple[int, ...]) -> Axes:
    tensor: Tensor = step.args[0]
    out: list[Axis | None] = []
    for axis, old, new in zip(tensor.axes, tensor.shape, after, strict=True):
        if old != new:
            step.coupling.demand(step.where, "changes how many channels there are", axis)
        out.append(axis if old == new else None)
    return tuple(out)


def _reduced(step: Operation, after: tuple[int, ...]) -> Axes:
    tensor: Tensor = step.args[0]
    dims = step.argument(1, "dim", "axis")
    rank = len(tensor.shape)
    gone = set(range(rank)) if dims is None else {d % rank for d in ((dims,) if isinstance(dims, int) else dims)}
    step.coupling.demand(step.where, f"takes the {step.name} over channels", *(tensor.axes[d] for d in gone))
    left = [None if d in gone else axis for d, axis in enumerate(tensor.axes)]
    return tuple(left) if len(after) == rank else tuple(axis for d, axis in enumerate(left) if d not in gone)


def _reshape(step: Operation, after: tuple[int, ...]) -> Axes:
    tensor: Tensor = step.args[0]
    asked: Any = None
    if step.name in ("view", "reshape"):
        asked = step.argument(1, "shape", "size") if len(step.args) < 3 else step.args[1:]
        asked = list(asked) if isinstance(asked, tuple | list) else [asked]
    elif step.name == "unflatten":
        asked = list(after)
    return reshaped(step.coupling, tensor.shape, tensor.axes, after, step.where, asked)


def _permuted(step: Operation, after: tuple[int, ...]) -> Axes:
    tensor: Tensor = step.args[0]
    order = list(range(len(tensor.shape)))
    if step.name == "permute":
        dims = step.argument(1, "dims") if len(step.args) < 3 else step.args[1:]
        order = [int(d) for d in dims]
    elif step.name == "t":
        order.reverse()
    else:
        one, other = (int(d) for d in (step.argument(1, "dim0", "axis0"), step.argument(2, "dim1", "axis1")))
        order[one], order[other] = order[other], order[one]
    return tuple(tensor.axes[d] for d in order)


def _joined(step: Operation, after: tuple[int, ...]) -> Axes:
    tensors: list[Tensor] = list(step.argument(0, "tensors"))
    at = int(step.argument(1, "dim", "axis", default=0)) % len(after)
    out: list[Axis | None] = []
    for place in range(len(after)):
        axes = [tensor.axes[place] for tensor in tensors]
        if place == at:
            parts = [step.coupling.fixed(t.shape[at]) if t.axes[at] is None else t.axes[at] for t in tensors]
            whole = all(axis is None for axis in axes)
            out.append(None if whole else tuple(s for part in parts if part is not None for s in part))
        else:
            found = axes[0]
            for axis in axes[1:]:
                found = step.coupling.same(found, axis, step.where)
            out.append(found)
    return tuple(out)


def _normalised(step: Operation, after: tuple[int, ...]) -> Axes:
    tensor: Tensor = step.args[0]
    dim = step.argument(1, "dim", default=None)
    over = tensor.axes if dim is None else (tensor.axes[int(dim)],)
    step.coupling.demand(step.where, "normalises over channels", *over)
    return tensor.axes


def _linear(step: Operation, after: tuple[int, ...]) -> Axes:
    tensor, weight, bias = step.args[0], step.argument(1, "weight"), step.argument(2, "bias")
    step.coupling.same(weight.axes[1], tensor.axes[-1], step.where)
    made = weight.axes[0]
    if isinstance(bias, Tensor):
        step.coupling.same(made, bias.axes[0], step.where)
    return (*tensor.axes[:-1], made)


def _taken(step: Operation, after: tuple[int, ...]) -> Axes:
    """A part of a tensor: axes of channels have to be taken as they are."""
    tensor: Tensor = step.args[0]
    items = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
    plain = all(item is None or item is Ellipsis or isinstance(item, int | slice) for item in items)
    if not plain or Ellipsis in items:
        _demanded(step, "takes a part of it by an index that is not plain")
        return (None,) * len(after)
    out: list[Axis | None] = []
    at = 0
    for item in items:
        if item is None:
            out.append(None)
            continue
        if item == slice(None):
            out.append(tensor.axes[at])
        else:
            step.coupling.demand(step.where, "takes some of the channels", tensor.axes[at])
            out += [] if isinstance(item, int) else [None]
        at += 1
    return (*out, *tensor.axes[at:])


#: By name, what comes out; the first that knows it.
_RULES: Final[tuple[tuple[frozenset[str], Callable[[Operation, tuple[int, ...]], Axes]], ...]] = (
    (_POINTWISE, _pointwise),
    (_PAIRS, _pair),
    (_PLACES, _places),
    (_REDUCTIONS, _reduced),
    (_RESHAPES, _reshape),
    (frozenset(("permute", "transpose", "swapaxes", "t")), _permuted),
    (frozenset(("cat", "concat", "concatenate")), _joined),
    (frozenset(("softmax", "log_softmax", "softmin", "normalize")), _normalised),
    (frozenset(("linear",)), _linear),
    (frozenset(("getitem",)), _taken),
)
