"""Copies of some layers and arrays of a module, under the names they have in it. Nothing here chooses them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Wanted", "fetch", "fill"]


@dataclass(frozen=True)
class Wanted:
    """Of a model, what a depth needs: layers that are called, arrays that are fetched, names of arrays it holds."""

    called: Collection[str]
    fetched: Collection[str]
    names: Collection[str]

    def below(self, path: str) -> bool:
        """Something of this module is."""
        return any(n.startswith(f"{path}.") for of in (self.called, self.fetched, self.names) for n in of)

    def whole(self, path: str, module: nn.Module) -> bool:
        """It is a layer that is called, or nothing in it is and it is only kept for its arrays."""
        if path in self.called:
            return True
        used = any(n.startswith(f"{path}.") for of in (self.called, self.fetched) for n in of)
        return not used and all(f"{path}.{name}" in self.names for name in module.state_dict())


def fill(into: nn.Module, source: nn.Module, path: str, wanted: Wanted, memo: dict[int, Any]) -> None:
    """Copies of what is wanted of a module, in its order and by its names."""
    for name, parameter in source._parameters.items():
        if parameter is not None and _joined(path, name) in wanted.names:
            into.register_parameter(name, copy.deepcopy(parameter, memo))
    for name, buffer in source._buffers.items():
        full = _joined(path, name)
        if buffer is not None and (full in wanted.names or full in wanted.fetched):
            lasting = name not in source._non_persistent_buffers_set
            into.register_buffer(name, copy.deepcopy(buffer, memo), persistent=lasting)
    for name, child in source._modules.items():
        full = _joined(path, name)
        if child is None or not (full in wanted.called or wanted.below(full)):
            continue
        if wanted.whole(full, child):
            into.add_module(name, copy.deepcopy(child, memo))
        else:
            part = nn.Module()
            fill(part, child, full, wanted, memo)
            into.add_module(name, part)


def fetch(into: nn.Module, source: nn.Module, target: str) -> None:
    """Constants of a forward are attributes, neither parameters nor buffers."""
    *path, name = target.split(".")
    for part in path:
        if not hasattr(into, part):
            into.add_module(part, nn.Module())
        into = getattr(into, part)
    if not hasattr(into, name):
        value = operator.attrgetter(target)(source)
        setattr(into, name, value.detach().clone() if isinstance(value, torch.Tensor) else value)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
