"""torch's SGD, Adam and AdamW from an `OptimiserSpec`, and their state as arrays that can follow a layer.

Updates are made one parameter after the other (`foreach` and `fused` off), so that a parameter moves the same
whichever others are on the same machine. Nothing here computes gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError, ModelMismatch
from .optimiser_state import entry
from .order import OptimiserSpec

__all__ = ["load_optimiser_arrays", "make_optimiser", "optimiser_arrays"]

Parameters = Mapping[str, torch.Tensor]

CLASSES: Final[dict[str, Any]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
OPTIONS: Final = {
    "sgd": ("momentum", "dampening", "nesterov", "weight_decay"),
    "adam": ("betas", "eps", "weight_decay", "amsgrad"),
    "adamw": ("betas", "eps", "weight_decay", "amsgrad"),
}


def make_optimiser(spec: OptimiserSpec, parameters: Parameters) -> torch.optim.Optimizer:
    """An optimiser at rest.

    Args:
        spec: which, with which step size and options.
        parameters: by name; none are fine.

    Raises:
        ConfigError: an option torch's class does not have or that cannot be sent, or a value it refuses.
    """
    unknown = sorted(set(spec.options) - set(OPTIONS[spec.name]))
    if unknown:
        raise ConfigError(
            f"optimiser {spec.name!r} with option {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(OPTIONS[spec.name])}"
        )
    for option, value in spec.options.items():
        _check(spec.name, option, value)
    options = {option: tuple(value) if option == "betas" else value for option, value in spec.options.items()}
    try:
        # A group of none is allowed, no group is not: a machine may hold units without parameters only.
        optimiser: torch.optim.Optimizer = CLASSES[spec.name](
            [{"params": list(parameters.values())}], lr=spec.lr, foreach=False, fused=False, **options
        )
    except ValueError as error:
        raise ConfigError(f"optimiser {spec.name!r} with {spec.options}: {error}") from None
    return optimiser


def optimiser_arrays(optimiser: torch.optim.Optimizer, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """Copies of the state of these parameters; those that have not moved yet have none.

    Args:
        optimiser: as `make_optimiser` makes it.
        parameters: the same ones, by the same names.
    """
    found = {}
    for name, parameter in parameters.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                found[entry(name, key)] = torch.as_tensor(value).detach().cpu().numpy().copy()
    return found


def load_optimiser_arrays(
    optimiser: torch.optim.Optimizer, parameters: Parameters, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Go on where `optimiser_arrays` was taken, exactly. Parameters without an entry begin at rest.

    Raises:
        ModelMismatch: state of a parameter that is not here, of another optimiser or shape, or not complete.
    """
    keys = _keys(optimiser)
    known = {entry(name, key) for name in parameters for key in keys}
    wrong = [name for name in arrays if name not in known]
    if wrong:
        raise ModelMismatch(
            f"state of an optimiser that has no place here: {', '.join(wrong[:5])}; expected "
            f"{', '.join(keys) or 'none'} for {len(parameters)} parameters: hand over the state of these units, made "
            "by the same optimiser"
        )
    for name, parameter in parameters.items():
        mine = {key: np.asarray(arrays[entry(name, key)]) for key in keys if entry(name, key) in arrays}
        if mine and len(mine) < len(keys):
            missing = ", ".join(entry(name, key) for key in keys if key not in mine)
            raise ModelMismatch(f"state of an optimiser without {missing}; hand over all state of a parameter, or none")
        for key, value in mine.items():
            shape = () if key == "step" else tuple(parameter.shape)
            if value.shape != shape or value.dtype.kind != "f":
                raise ModelMismatch(
                    f"state {entry(name, key)} is {value.dtype} {value.shape}, expected floating point {shape}; "
                    "make the model with the same name and options at both ends"
                )
            # Counts of steps stay float32 on the CPU, as torch makes them.
            kind = {"dtype": torch.float32} if key == "step" else {"dtype": parameter.dtype, "device": parameter.device}
            optimiser.state[parameter][key] = torch.tensor(value, **kind)


def _keys(optimiser: torch.optim.Optimizer) -> tuple[str, ...]:
    """What this optimiser keeps for a parameter that has moved."""
    group = optimiser.param_groups[0]
    if isinstance(optimiser, torch.optim.SGD):
        return ("momentum_buffer",) if group["momentum"] else ()
    return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))


def _check(name: str, option: str, value: Any) -> None:
    """Refuse what torch would only stumble over later: it compares, but does not look at types."""
    if option in ("nesterov", "amsgrad"):
        fits, wanted = isinstance(value, bool), "true or false"
    elif option == "betas":
        fits = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_number, value))
        wanted = "two numbers in [0, 1), for example [0.9, 0.999]"
    else:
        fits, wanted = _number(value), "a number of 0 or more"
    if not fits:
        raise ConfigError(f"optimiser {name!r} with {option} = {value!r}; use {wanted}")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
