"""Names of an optimiser's state, so that it can follow its parameter to another machine. No torch, no arithmetic.

State travels as plain arrays, `<parameter>::<key>`: `linear.weight::momentum_buffer`, `linear.weight::exp_avg`,
`linear.weight::step`. A parameter that has none yet has no entry.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from ..errors import ModelMismatch

__all__ = ["SEPARATOR", "entry", "parameter_of", "state_of"]

#: Between the name of a parameter and the key of its state; torch allows neither dots nor colons in a module's name to
#: make this ambiguous: names of parameters are identifiers joined by dots.
SEPARATOR: Final = "::"


def entry(parameter: str, key: str) -> str:
    """Name of one array of state.

    >>> entry("linear.weight", "exp_avg")
    'linear.weight::exp_avg'
    """
    return f"{parameter}{SEPARATOR}{key}"


def parameter_of(name: str) -> str:
    """Whose state an array is.

    Raises:
        ModelMismatch: not a name of state.

    >>> parameter_of("linear.weight::exp_avg")
    'linear.weight'
    """
    parameter, separator, key = name.rpartition(SEPARATOR)
    if not separator or not parameter or not key:
        raise ModelMismatch(
            f"{name!r} is not the name of an optimiser's state; expected <parameter>{SEPARATOR}<key>, for example "
            f"{entry('linear.weight', 'momentum_buffer')!r}"
        )
    return parameter


def state_of(state: Mapping[str, NDArray[Any]], names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The state of these parameters; what of `state` belongs to others is left out. `names` may hold buffers, too.

    >>> import numpy as np
    >>> state = {"a.weight::step": np.float32(3), "b.weight::step": np.float32(3)}
    >>> list(state_of(state, ["b.weight", "b.running_mean"]))
    ['b.weight::step']
    """
    wanted = set(names)
    return {name: array for name, array in state.items() if parameter_of(name) in wanted}
