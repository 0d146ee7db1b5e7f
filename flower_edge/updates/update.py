"""`Update`: one node's reply as numbers, and the model it began with. A value; arrays are views and are never changed.

`moving` says which of its arrays are compared with those of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .manifest import Manifest

__all__ = ["Arrays", "Update", "moving"]

#: Arrays by name.
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Update:
    """What came back from a node.

    Attributes:
        node: its key, as text.
        arrays: the model as it sent it, in the shapes of `manifest`; read-only views of the message's own bytes.
        base: the whole model its training began with.
        weight: what it weighs in a weighted mean: its `num-examples`.
        manifest: which part of the model it was given.
        difference: whether `arrays` is already what it has moved by, and not where it ended.
        before: the whole model that was sent out before `base`, where that is known.
    """

    node: str
    arrays: Arrays
    base: Arrays
    weight: float
    manifest: Manifest
    difference: bool = False
    before: Arrays | None = None


def moving(manifest: Manifest) -> tuple[str, ...]:
    """Arrays whose movement says something about training: those that are floats in every dtype they may have.

    Counters, such as batch normalisation's `num_batches_tracked`, grow by the number of steps, and would drown the
    weights in a norm. The manifest decides and not what was sent, so a node cannot choose. Where a model has whole
    numbers only, they all count.
    """
    floats = tuple(name for name, part in manifest.arrays.items() if all(np.dtype(d).kind in "fc" for d in part.dtypes))
    return floats or tuple(manifest.arrays)
