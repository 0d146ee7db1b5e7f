"""`lazy`: a room's names, imported when somebody asks for one, so that what is heavy is loaded by who uses it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["lazy"]


def lazy(
    package: str, names: Iterable[str], modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: its `__name__`.
        names: its `__all__`.
        modules: which of its modules has which of them. No name may be that of a module: the module would be found.

    >>> get, listed = lazy("flower_edge", ["mbps_to_bps"], {"units": ["mbps_to_bps"]})
    >>> get("mbps_to_bps")(2.0), "mbps_to_bps" in listed()
    (2000000.0, True)
    """
    home = {name: module for module, own in modules.items() for name in own}
    listed = tuple(names)

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{home[name]}", package), name)

    def names_here() -> list[str]:
        return sorted({*vars(sys.modules[package]), *listed})

    return get, names_here
