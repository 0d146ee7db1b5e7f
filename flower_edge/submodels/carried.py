"""What of an optimiser's state can follow a terminal to a model of another size. No torch, no arithmetic.

State is named `<parameter>::<key>`, as `splitting.optimiser_state` has it: `linear.weight::momentum_buffer`.

Source: [4] ¶58-59 have a terminal change to a smaller model in mid-training, and say nothing of the optimiser. What is
kept here is kept whole; a slice of a moment would be a guess at what training with the smaller model had made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..splitting.optimiser_state import parameter_of

__all__ = ["Carried", "carried"]


@dataclass(frozen=True, eq=False)
class Carried:
    """State that goes on, and why the rest does not.

    Attributes:
        state: arrays by name, those of the parameters that have all of theirs.
        dropped: parameters that begin at rest though they had state, with the reason, for the log.
    """

    state: dict[str, NDArray[Any]]
    dropped: dict[str, str]


def carried(state: Mapping[str, NDArray[Any]] | None, shapes: Mapping[str, Sequence[int]]) -> Carried:
    """The state of those parameters that are as they were; every other begins at rest.

    A parameter keeps all of its state or none: moments of one age with a count of steps of another would be neither
    the old optimiser nor a new one. An array without dimensions, such as Adam's `step`, fits every parameter.

    Only shapes are looked at. A window of channels that moves on (FedRolex) leaves the shape as it is and puts another
    channel there: give `None` then, and all begins at rest.

    Args:
        state: as the node has kept it; `None` where it has not yet.
        shapes: of the parameters of the model to go on with, by name.

    Raises:
        ModelMismatch: a name in `state` that is not one of an optimiser's state.

    >>> state = {"a::momentum_buffer": np.ones((4, 2)), "b::momentum_buffer": np.ones(4)}
    >>> after = carried(state, {"a": (2, 2), "b": (4,)})
    >>> list(after.state), after.dropped
    (['b::momentum_buffer'], {'a': 'momentum_buffer is (4, 2), the parameter is (2, 2) now'})
    """
    dropped: dict[str, str] = {}
    for name, array in (state or {}).items():
        parameter = parameter_of(name)
        shape = tuple(shapes[parameter]) if parameter in shapes else None
        if shape is None:
            dropped[parameter] = "the model has no such parameter now"
        elif np.shape(array) not in ((), shape):
            key = name.removeprefix(parameter).lstrip(":")
            dropped[parameter] = f"{key} is {np.shape(array)}, the parameter is {shape} now"
    kept = {name: array for name, array in (state or {}).items() if parameter_of(name) not in dropped}
    return Carried(kept, dropped)
