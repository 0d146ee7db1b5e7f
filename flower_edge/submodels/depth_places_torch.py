"""Where a model can have an exit, and which places are meant by names, by positions, or by a number of exits.

An exit is put where one tensor is live, after something that is trained. Nothing here makes heads or runs a model but
to count its FLOPs.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from itertools import accumulate

from ..errors import SplitError
from ..models.head_shapes import head_kind
from ..splitting.cutting_torch import CutModel

__all__ = ["exit_name", "exit_positions", "good_positions"]


def good_positions(model: CutModel) -> dict[int, str]:
    """Positions of cuts at which an exit can be, each with the name to call it by."""
    return {
        position: exit_name(model, position) for position in range(1, len(model.units)) if not _why_not(model, position)
    }


def exit_name(model: CutModel, position: int) -> str:
    """The outermost module that ends here, or the unit that does."""
    unit = model.units[position - 1]
    parts = unit.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if _end_of(model, outer) == position:
            return outer
    return unit


def exit_positions(model: CutModel, exits: int | Sequence[str | int]) -> tuple[int, ...]:
    """Positions of the exits before the model's own output, the first one first.

    Args:
        model: cut into units.
        exits: how many in all, the output among them; or those before it, by the name of a unit or module, or by the
            position of a cut.

    Raises:
        SplitError: none can be there; says why, and where one can.

    >>> import torch
    >>> from flower_edge.models import make_model
    >>> lenet = make_model("lenet5", input_shape=(1, 28, 28), num_classes=10, seed=0)
    >>> cut = CutModel.of(lenet, torch.zeros(2, 1, 28, 28))
    >>> exit_positions(cut, ["pool1", "relu4"]), exit_positions(cut, 3)
    ((3, 11), (3, 6))
    """
    good = good_positions(model)
    if isinstance(exits, int) and not isinstance(exits, bool):
        return _evenly(model, exits, good)
    if isinstance(exits, str | bool) or not isinstance(exits, Sequence):
        raise SplitError(f"exits = {exits!r}: expected a number of exits, or a list of names, such as ['conv1']")
    found: dict[int, str | int] = {}
    for wanted in exits:
        position = _position(model, wanted, good)
        if why := _why_not(model, position):
            raise SplitError(f"no exit at {wanted!r}: {why}; exits can be at {_listed(good)}")
        if position in found:
            raise SplitError(f"{found[position]!r} and {wanted!r} are one place; name it once")
        found[position] = wanted
    return tuple(sorted(found))


def _position(model: CutModel, wanted: str | int, good: dict[int, str]) -> int:
    last = len(model.units)
    if isinstance(wanted, str):
        position = _end_of(model, wanted)
        if not position:
            near = difflib.get_close_matches(wanted, [*model.units, *good.values()], n=3)
            hint = f"near it: {', '.join(near)}; " if near else ""
            raise SplitError(
                f"{type(model.model).__name__} has no unit {wanted!r}; {hint}exits can be at {_listed(good)}"
            )
    elif type(wanted) is int and 0 <= wanted <= last:
        position = wanted
    else:
        raise SplitError(
            f"{wanted!r} is no place for an exit: give a name, or a position from 1 to {last - 1}; exits can be at "
            + _listed(good)
        )
    return position


def _end_of(model: CutModel, name: str) -> int:
    """The position after this unit, or after the last unit of this module; 0 if there is none."""
    if name in model.units:
        return model.units.index(name) + 1
    return max((n for n, unit in enumerate(model.units, 1) if unit.startswith(f"{name}.")), default=0)


def _why_not(model: CutModel, position: int) -> str:
    """Why no exit can be here; empty if one can."""
    if position == len(model.units):
        return "that is the model's own output, which is an exit without being named"
    cut = model.cuts[position]
    if len(cut.shapes) > 1:
        return f"{len(cut.shapes)} tensors are live there, and a classifier reads one"
    if not cut.differentiable[0]:
        return "nothing is trained before it"
    outputs, shape = model.cuts[-1].shapes[0], cut.shapes[0]
    if head_kind(shape, outputs) is None:
        return f"no classifier leads from {list(shape)} to {list(outputs)}"
    return ""


def _evenly(model: CutModel, number: int, good: dict[int, str]) -> tuple[int, ...]:
    """So that each part costs about as many FLOPs forward."""
    flops = [0.0, *accumulate(unit.forward_flops for unit in model.profile().units)]
    # Of places with the same layers before them, the one that reads least, then the last.
    places: dict[float, int] = {}
    for place in sorted(good, key=lambda p: (_read(model.cuts[p].shapes[0]), -p)):
        if 0.0 < flops[place] < flops[-1]:
            places.setdefault(flops[place], place)
    if not 1 <= number <= len(places) + 1:
        raise SplitError(
            f"exits = {number}: {type(model.model).__name__} can have 1 to {len(places) + 1} with layers between them, "
            f"its output among them; name the others: before it they can be at {_listed(good)}"
        )
    # By place: the best way to have so many exits up to it, the last of them here.
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for part in range(1, number):
        wanted = part / number
        best = {
            place: min(
                (off + (level / flops[-1] - wanted) ** 2, (*before, place))
                for last, (off, before) in best.items()
                if flops[last] < level
            )
            for level, place in places.items()
            if any(flops[last] < level for last in best)
        }
    return min(best.values())[1]


def _read(shape: tuple[int, ...]) -> int:
    """How many numbers a head's linear layer reads."""
    return math.prod((shape[0], *(min(2, side) for side in shape[1:]))) if len(shape) == 3 else shape[-1]


def _listed(good: dict[int, str]) -> str:
    return ", ".join(good.values()) or "no place of this model"
