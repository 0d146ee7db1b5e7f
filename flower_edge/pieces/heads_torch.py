"""`make_head`: the classifier a piece learns by in decoupled mode, as it begins."""

from __future__ import annotations

from torch import nn

from ..models.heads_torch import classifier_head
from ..splitting.profile import ModelProfile
from .heads import check_head

__all__ = ["make_head"]


def make_head(profile: ModelProfile, position: int) -> nn.Sequential:
    """The head of a piece that ends at a cut, with its first parameters: the same on every machine.

    Args:
        profile: of the model.
        position: of the cut.

    Raises:
        SplitError: no head can be put there; names cuts nearby where one can.
    """
    check_head(profile, position)
    return classifier_head(profile.cuts[position].shapes[0], profile.cuts[-1].shapes[0], seed=position)
