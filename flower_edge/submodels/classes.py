"""Which rows of the last layer a terminal has a say in: those of the classes it tells. Values; nothing here sends.

A terminal that has samples of two classes in ten leaves eight rows of the last layer as they came. Merged like any
other they hold those rows back: each makes a fifth of its step. `only_rows` takes them out of the update.

Source: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021, and the authors' code, which merges the last layer by label.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import WireError
from ..updates.manifest import ArrayPart
from ..updates.places import within
from ..updates.update import Update

__all__ = ["CLASSES_RECORD", "classes_from_values", "classes_to_values", "only_rows"]

#: Name of the record in a reply.
CLASSES_RECORD: Final = "flower-edge.classes"


def classes_to_values(y: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """For a ConfigRecord: the classes among these targets, ascending.

    >>> classes_to_values(np.array([7, 2, 7]))
    {'classes': [2, 7]}
    """
    return {"classes": [int(label) for label in np.unique(y)]}


def classes_from_values(values: Mapping[str, Any], num_classes: int) -> NDArray[np.intp]:
    """Inverse of `classes_to_values`.

    Args:
        values: as they came.
        num_classes: that there are.

    Raises:
        WireError: not a list of whole numbers, each once, ascending and below `num_classes`.

    >>> classes_from_values({"classes": [2, 7]}, 10)
    array([2, 7])
    """
    told = values.get("classes")
    if type(told) is not list or not all(type(label) is int for label in told):
        raise WireError(f"record {CLASSES_RECORD!r}: classes = {told!r:.60}, expected a list of whole numbers")
    if sorted(set(told)) != told or (told and not 0 <= told[0] <= told[-1] < num_classes):
        raise WireError(
            f"record {CLASSES_RECORD!r}: classes = {told!r:.60}, expected each once, ascending, from 0 to "
            f"{num_classes - 1}"
        )
    return np.array(told, np.intp)


def only_rows(update: Update, names: Collection[str], rows: NDArray[np.intp]) -> Update:
    """The update without all other rows of these arrays; all else is as it was.

    Args:
        update: a reply.
        names: arrays with a row per class; those that the reply does not have are passed over.
        rows: ascending. Where they are all there are, the update itself comes back.

    >>> from flower_edge.updates.manifest import whole_manifest
    >>> w = np.arange(6.0).reshape(3, 2)
    >>> update = Update("0", {"w": w}, {"w": np.zeros((3, 2))}, 1.0, whole_manifest({"w": ((3, 2), "float64")}))
    >>> only_rows(update, ["w"], np.array([2])).arrays["w"]
    array([[4., 5.]])
    """
    parts, arrays = dict(update.manifest.arrays), dict(update.arrays)
    for name in names:
        if (part := parts.get(name)) is None:
            continue
        given = None if part.index is None else part.index[0]
        kept = rows if given is None else np.intersect1d(rows, given)
        if len(kept) == part.shape[0]:
            continue
        arrays[name] = arrays[name][within(kept, given)]
        others = (None,) * (len(part.whole) - 1) if part.index is None else part.index[1:]
        parts[name] = ArrayPart((len(kept), *part.shape[1:]), part.dtypes, part.whole, (kept, *others))
    if all(part is update.manifest.arrays[name] for name, part in parts.items()):
        return update
    return replace(update, arrays=arrays, manifest=replace(update.manifest, arrays=parts))
