"""By how much a model moved, and a model moved by so much. Elementwise, so both ends get the same bits.

    update    floats: trained - base, float32      the rest (integers, flags): as trained, for it has no small changes

Nothing here encodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .model_form import Arrays, form_of, layout_of
from .sparse import Sparse, Update

__all__ = ["Form", "Model", "between", "moved", "update_like"]

Model = dict[str, npt.NDArray[Any]]
#: `names`, `shapes`, `dtypes`: lists, see `form_of`.
Form = Mapping[str, Any]
_FLOATS = ("float16", "float32", "float64")


def update_like(form: Form) -> Model:
    """Zero updates of a model of that form: what a codec is made for. Takes next to no memory."""
    return {
        name: np.broadcast_to(np.zeros((), np.float32 if dtype in _FLOATS else np.dtype(dtype)), tuple(shape))
        for name, shape, dtype in zip(form["names"], form["shapes"], form["dtypes"], strict=True)
    }


def between(trained: Arrays, base: Arrays) -> Model:
    """The update that leads from `base` to `trained`, in the order of `base`.

    >>> between({"w": np.array([1.5], np.float32), "n": np.array(3)}, {"w": np.ones(1, np.float32), "n": np.array(2)})
    {'w': array([0.5], dtype=float32), 'n': array(3)}
    """
    out: Model = {}
    for name, before in base.items():
        after = trained[name]
        if before.dtype.name in _FLOATS:
            wide = np.float64 if before.dtype == np.float64 else np.float32
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite, a codec refuses by name
                out[name] = (after.astype(wide, copy=False) - before.astype(wide, copy=False)).astype(np.float32)
        else:
            out[name] = after
    return out


def moved(base: Arrays, rest: Arrays, update: Update) -> Model:
    """The model that an update leads to, in the dtypes and order of `base`; arrays of its own.

    Args:
        base: where it begins.
        rest: what is no float.
        update: of the floats, float32 [params].

    >>> moved({"w": np.ones(2, np.float32)}, {}, Sparse(np.array([1]), np.array([0.5], np.float32), 2))
    {'w': array([1. , 1.5], dtype=float32)}
    """
    layout = layout_of(form_of(base))
    slices = dict(zip(layout.names, layout.slices(), strict=True))
    out: Model = {}
    for name, before in base.items():
        part = slices.get(name)
        if part is None:
            out[name] = rest[name]
        elif isinstance(update, Sparse):
            first, last = np.searchsorted(update.indices, (part.start, part.stop))
            after = np.array(before, order="C")
            if last > first:
                after.reshape(-1)[update.indices[first:last] - part.start] += update.values[first:last]
            out[name] = after
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                out[name] = np.asarray(before + update[part].reshape(before.shape), dtype=before.dtype)
    return out
