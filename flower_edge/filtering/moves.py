"""Where replies have moved, on a sample of the coordinates that they share. Nothing here compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..updates.manifest import whole_manifest
from ..updates.regions import regions
from ..updates.sample import sample, take_all
from ..updates.update import Update

__all__ = ["last_step", "shared_moves"]


def shared_moves(
    updates: Sequence[Update],
    coordinates: int,
    rng: np.random.Generator,
    least_holders: int,
    also: Sequence[Update] = (),
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.float32]]]:
    """For each region that enough replies hold: their places, and their moves there, float32 [holders, sampled].

    The sample is divided over the regions by their sizes, and each gets at least one coordinate. The moves of `also`,
    which hold the whole model and are no replies, come after those of the holders.
    """
    shared = regions(updates, least_holders=least_holders)
    whole = sum(region.size for region in shared)
    for region in shared:
        count = min(region.size, max(1, round(coordinates * region.size / whole)))
        where = sample(region, count, rng)
        yield region.holders, take_all([*(updates[place] for place in region.holders), *also], where)


def last_step(updates: Sequence[Update]) -> Update | None:
    """The step from the model that was sent out before to the one these replies began with, as if a node had made it.

    `None` where it is not known, or not the same for all.
    """
    if not updates or any(u.before is None or u.before is not updates[0].before for u in updates):
        return None
    base, before = updates[0].base, updates[0].before
    assert before is not None
    if any(name not in before or before[name].shape != array.shape for name, array in base.items()):
        return None
    manifest = whole_manifest({name: (array.shape, str(array.dtype)) for name, array in base.items()})
    return Update("the last step", base, before, 1.0, manifest)
