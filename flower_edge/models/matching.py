"""Whether arrays that came from elsewhere are those of a model: same names, same shapes.

It compares; it loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelMismatch


def check_arrays(
    given: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], what: str, *, extra_ok: bool = False
) -> None:
    """Refuse arrays that do not fit, naming every one that does not.

    Args:
        given: arrays by name.
        shapes: the model's own.
        what: what the arrays are meant for, as the error should call it.
        extra_ok: whether names the model does not have are passed over.

    Raises:
        ModelMismatch: names missing, unknown (unless extra_ok), or of another shape.

    >>> check_arrays({"w": np.zeros(3)}, {"w": (2,)}, "the model's parameters")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ModelMismatch: arrays do not fit the model's parameters: w has shape (3,), expected (2,); \
make the model with the same name and options at both ends
    """
    complaints = [f"{name} is missing" for name in shapes if name not in given]
    if not extra_ok:
        complaints += [f"{name} is unknown" for name in given if name not in shapes]
    complaints += [
        f"{name} has shape {np.shape(given[name])}, expected {shape}"
        for name, shape in shapes.items()
        if name in given and np.shape(given[name]) != shape
    ]
    if complaints:
        raise ModelMismatch(
            f"arrays do not fit {what}: {'; '.join(complaints)}; "
            "make the model with the same name and options at both ends"
        )
