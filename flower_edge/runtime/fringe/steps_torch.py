"""The steps of a part's graph as plain values, and back: functions, arguments, tensors of steps before.

    node            {"step": number}
    tuple, slice    {"tuple": [...]}, {"slice": [start, stop, step]}
    torch's values  {"dtype": "float32"}, {"device": "cpu"}, {"layout": "strided"}, {"memory": "contiguous_format"}

What may be called is torch's own arithmetic on tensors, a few operators and the function of our own that cutting puts
in. A graph from the network can name nothing else; nothing is unpickled or evaluated.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import torch
from torch import fx
from torch.overrides import get_overridable_functions

from ...errors import FringeError
from ...fringe.parts_torch import laid_out

__all__ = ["argument_from", "argument_of", "checked_call", "function_named", "method_checked", "name_of_function"]


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


_OPERATORS: Final = _named(
    "add sub mul truediv floordiv mod pow matmul neg pos getitem iadd isub imul itruediv ipow and_ or_ xor invert "
    "eq ne lt le gt ge not_ abs"
)
_MAKES: Final = _named("arange zeros ones full empty tensor zeros_like ones_like full_like eye linspace")
_SPACES: Final = {
    "torch": torch,
    "functional": torch.nn.functional,
    "linalg": torch.linalg,
    "special": torch.special,
    "fft": torch.fft,
}
#: Methods of tensors that reach outside a tensor, or call what they are given.
_NOT_METHODS: Final = _named(
    "apply_ map_ map2_ backward register_hook register_post_accumulate_grad_hook share_memory_ data_ptr storage "
    "storage_offset untyped_storage numpy tolist record_stream is_shared pin_memory set_ module_load resize_"
)
#: What `getattr` of a graph may ask of a tensor.
_ATTRIBUTES: Final = _named("shape dtype device ndim T mT H mH real imag")
_OURS: Final[dict[str, Callable[..., Any]]] = {
    "laid_out": laid_out,
    "getattr": getattr,
}
_DEEPEST: Final = 16


@cache
def _functions() -> Mapping[Any, str]:
    """By function, the name it travels under."""
    overridable = {one for space in get_overridable_functions().values() for one in space}
    found: dict[Any, str] = {}
    for prefix, space in _SPACES.items():
        for name in dir(space):
            one = getattr(space, name)
            if not name.startswith("_") and callable(one) and (one in overridable or name in _MAKES):
                found.setdefault(one, f"{prefix}.{name}")
    found |= {getattr(operator, name): f"operator.{name}" for name in _OPERATORS}
    # `torch.relu` and the operator of the same C function are one object to some versions: ours go last and win.
    found |= {one: f"ours.{name}" for name, one in _OURS.items()}
    found |= {math.sqrt: "math.sqrt", math.prod: "math.prod", int: "builtins.int", float: "builtins.float"}
    return found


@cache
def _by_name() -> Mapping[str, Any]:
    return {name: one for one, name in _functions().items()}


@cache
def _methods() -> frozenset[str]:
    names = {getattr(one, "__name__", "") for one in get_overridable_functions()[torch.Tensor]}
    return frozenset(n for n in names if n.isidentifier() and not n.startswith("_")) - _NOT_METHODS | {"size", "dim"}


def name_of_function(function: Any) -> str:
    """The name it travels under.

    Raises:
        FringeError: a function that no machine would call.

    >>> name_of_function(torch.flatten), name_of_function(operator.add)
    ('torch.flatten', 'operator.add')
    """
    name = _functions().get(function)
    if name is None:
        own = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
        raise FringeError(
            f"a part calls {own}, which no other machine may; put it into a module and name it: blocks=[…]"
        )
    return name


def function_named(name: object) -> Any:
    """Inverse of `name_of_function`.

    Raises:
        FringeError: no such name.
    """
    if not isinstance(name, str) or name not in _by_name():
        raise FringeError(f"a part that calls {str(name)[:80]!r}; expected a function of torch on tensors")
    return _by_name()[name]


def method_checked(name: object) -> str:
    """The name of a method of tensors that a part may call.

    Raises:
        FringeError: another one.
    """
    if not isinstance(name, str) or name not in _methods():
        raise FringeError(f"a part that calls the method {str(name)[:80]!r}; expected one of torch.Tensor's arithmetic")
    return name


def argument_of(value: Any, numbers: Mapping[fx.Node, int]) -> Any:
    """An argument as plain values; `numbers` are those of the steps before.

    Raises:
        FringeError: a value that has none.
    """
    if isinstance(value, fx.Node):
        return {"step": numbers[value]}
    if isinstance(value, torch.Size | tuple):
        return {"tuple": [argument_of(one, numbers) for one in value]}
    if isinstance(value, list):
        return [argument_of(one, numbers) for one in value]
    if isinstance(value, slice):
        return {"slice": [argument_of(one, numbers) for one in (value.start, value.stop, value.step)]}
    if isinstance(value, dict):
        return {"dict": {str(key): argument_of(one, numbers) for key, one in value.items()}}
    for kind, name in _TORCH.items():
        if isinstance(value, kind):
            return {name: str(value).removeprefix("torch.")}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FringeError(f"a part with the argument {value!r:.80}; expected numbers, names and tensors of steps before")


def argument_from(value: Any, steps: list[fx.Node], depth: int = 0) -> Any:
    """Inverse of `argument_of`.

    Raises:
        FringeError: plain values that it does not make.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth < _DEEPEST and isinstance(value, list):
        return [argument_from(one, steps, depth + 1) for one in value]
    if depth < _DEEPEST and isinstance(value, Mapping) and len(value) == 1:
        ((kind, one),) = value.items()
        if kind == "step" and type(one) is int and 0 <= one < len(steps):
            return steps[one]
        if kind in ("tuple", "slice") and isinstance(one, list):
            found = tuple(argument_from(each, steps, depth + 1) for each in one)
            if kind == "tuple" or len(found) == 3:
                return found if kind == "tuple" else slice(*found)
        if kind == "dict" and isinstance(one, Mapping):
            return {str(key): argument_from(each, steps, depth + 1) for key, each in one.items()}
        if kind == "ellipsis":
            return Ellipsis
        if kind == "float" and one in ("inf", "-inf", "nan"):
            return float(one)
        if kind == "device" and one in ("cpu", "cuda"):
            return torch.device(one)
        for wanted, name in _TORCH.items():
            if kind == name and isinstance(one, str) and isinstance(getattr(torch, one, None), wanted):
                return getattr(torch, one)
    raise FringeError(f"an argument {value!r:.80} of a step; expected what argument_of makes")


def checked_call(function: Any, arguments: tuple[Any, ...]) -> None:
    """Refuse a `getattr` for anything but what tensors say of themselves.

    Raises:
        FringeError: it would.
    """
    if function is getattr and not (len(arguments) == 2 and arguments[1] in _ATTRIBUTES):
        raise FringeError(f"getattr of {arguments[1:]!r:.60} in a part; expected {', '.join(sorted(_ATTRIBUTES))}")


_TORCH: Final[dict[Any, str]] = {
    torch.dtype: "dtype",
    torch.device: "device",
    torch.layout: "layout",
    torch.memory_format: "memory",
}
