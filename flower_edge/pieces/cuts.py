"""A model's units in pieces: from cuts to spans and orders, and the pieces' arrays put together again. No torch.

cuts    positions between two pieces, rising, one fewer than pieces: (2, 5) of 7 units is 0..1, 2..4, 5..6
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from ..errors import ModelMismatch, SplitError
from ..splitting.order import WorkOrder
from ..splitting.profile import ModelProfile
from .heads import check_head
from .order import Mode, PieceOrder

__all__ = ["check_cuts", "piece_orders", "pieces_of", "recombined"]


def pieces_of(units: int, cuts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Spans [start, stop) of the pieces, in the order of the layers.

    Args:
        units: of the whole model.
        cuts: see the module; none is one piece.

    Raises:
        SplitError: cuts that do not rise, or a piece without a unit.

    >>> pieces_of(7, (2, 5))
    ((0, 2), (2, 5), (5, 7))
    """
    given = list(cuts)
    ends = (0, *given, units)
    if not all(type(cut) is int for cut in given) or any(start >= stop for start, stop in pairwise(ends)):
        raise SplitError(
            f"cuts {given} of a model of {units} units; give rising whole numbers from 1 to {units - 1}: each piece "
            "needs a unit of its own"
        )
    return tuple(pairwise(ends))


def check_cuts(
    profile: ModelProfile, cuts: Sequence[int], *, pieces: int | None = None, mode: Mode = "exact"
) -> tuple[int, ...]:
    """Cuts somebody typed, once they can be used.

    Args:
        profile: of the model.
        cuts: see the module.
        pieces: how many there have to be; None: any number.
        mode: `decoupled` cuts only where a head can be put.

    Raises:
        SplitError: another number of pieces, cuts that do not rise or are not in the model, or no head for one.
    """
    spans = pieces_of(profile.last, cuts)
    if pieces is not None and len(spans) != pieces:
        raise SplitError(f"cuts {list(cuts)} make {len(spans)} pieces, and {pieces} are wanted; give {pieces - 1} cuts")
    if mode == "decoupled":
        for cut in cuts:
            check_head(profile, cut)
    return tuple(cuts)


def piece_orders(work: WorkOrder, units: int, cuts: Sequence[int], *, mode: Mode = "exact") -> tuple[PieceOrder, ...]:
    """One order for each place of a chain.

    Args:
        work: what the chain does in this round; its `cut` is not looked at.
        units: of the whole model.
        cuts: see the module.
        mode: of all pieces.

    Raises:
        SplitError: see `pieces_of`.
    """
    spans = pieces_of(units, cuts)
    return tuple(
        PieceOrder(
            work=work.model_copy(update={"cut": stop}),
            start=start,
            stop=stop,
            place=place,
            pieces=len(spans),
            mode=mode,
        )
        for place, (start, stop) in enumerate(spans)
    )


def recombined(parts: Iterable[Mapping[str, NDArray[Any]]], names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The whole model's arrays from its pieces'; nothing is copied or changed.

    Args:
        parts: arrays of each piece, by the whole model's names, in any order.
        names: of the whole model, in its order.

    Raises:
        ModelMismatch: an array that no piece has, that two have, or that the model has not.

    >>> import numpy as np
    >>> list(recombined([{"b": np.ones(1)}, {"a": np.zeros(2)}], ["a", "b"]))
    ['a', 'b']
    """
    held = list(parts)
    wanted, times = list(names), Counter(name for part in held for name in part)
    wrong = {
        "no piece has": [name for name in wanted if not times[name]],
        "more than one piece has": [name for name, count in times.items() if count > 1],
        "the model has no": sorted(set(times) - set(wanted)),
    }
    if any(wrong.values()):
        told = "; ".join(f"{what} {', '.join(found[:5])}" for what, found in wrong.items() if found)
        raise ModelMismatch(
            f"{len(held)} pieces do not make the model: {told}; hand over each piece of one chain exactly once"
        )
    found = {name: array for part in held for name, array in part.items()}
    return {name: found[name] for name in wanted}
