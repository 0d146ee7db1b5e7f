"""Where a model can be cut in decoupled mode: places with one tensor that a small classifier fits on. No torch."""

from __future__ import annotations

from ..errors import SplitError
from ..models.head_shapes import head_kind
from ..splitting.profile import ModelProfile

__all__ = ["check_head", "head_positions"]


def head_positions(profile: ModelProfile) -> tuple[int, ...]:
    """Cuts a piece with a head of its own may end at, rising; the model's end is not among them.

    One tensor is live there, something before it is trained, and `classifier_head` leads from it to the output.
    """
    outputs = profile.cuts[-1].shapes[0]
    return tuple(
        cut.position
        for cut in profile.cuts[1:-1]
        if len(cut.shapes) == 1 and cut.differentiable[0] and head_kind(cut.shapes[0], outputs)
    )


def check_head(profile: ModelProfile, position: int) -> None:
    """Refuse a cut that no head can be put on.

    Raises:
        SplitError: names why, and cuts nearby that have one.
    """
    places = head_positions(profile)
    if position in places:
        return
    cut = profile.cuts[position]
    if len(cut.shapes) > 1:
        why = f"{len(cut.shapes)} tensors {[list(shape) for shape in cut.shapes]} are live there"
    elif not cut.differentiable[0]:
        why = "nothing before it is trained"
    else:
        why = f"no classifier leads from {list(cut.shapes[0])} to {list(profile.cuts[-1].shapes[0])}"
    near = sorted(sorted(places, key=lambda place: (abs(place - position), place))[:4])
    raise SplitError(
        f"cut {position} (behind {cut.name}) in decoupled mode: {why}; "
        + (
            f"cut at {', '.join(f'{place} ({profile.cuts[place].name})' for place in near)}, or use mode='exact'"
            if near
            else "no cut of this model has one tensor with a classifier: use mode='exact'"
        )
    )
