"""`lazy`: a room's names, imported when somebody asks for one, so that what is heavy is loaded by who uses it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

__all__ = ["EXTRAS", "lazy"]

#: What is imported where it is needed, and the extra that brings it.
EXTRAS: Final[Mapping[str, str]] = {
    "jinja2": "report",
    "matplotlib": "report",
    "nicegui": "ui",
    "numba": "fast",
    "psutil": "device",
    "ray": "simulation",
    "sklearn": "data",
    "torch": "torch",
    "torchvision": "torch",
}


def lazy(
    package: str, names: Iterable[str], modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: its `__name__`.
        names: its `__all__`.
        modules: which of its modules has which of them. No name may be that of a module: the module would be found.

    A name whose module needs an extra that is not installed raises the `ModuleNotFoundError` of that library, which
    says the name, the library and what to type.

    >>> get, listed = lazy("flower_edge", ["mbps_to_bps"], {"units": ["mbps_to_bps"]})
    >>> get("mbps_to_bps")(2.0), "mbps_to_bps" in listed()
    (2000000.0, True)
    """
    home = {name: module for module, own in modules.items() for name in own}
    listed = tuple(names)

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f".{home[name]}", package)
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            what = f"{package}.{name} needs {error.name}, which is not installed"
            raise ModuleNotFoundError(f"{what}; type: pip install 'flower-edge[{extra}]'", name=error.name) from None
        return getattr(module, name)

    def names_here() -> list[str]:
        return sorted({*vars(sys.modules[package]), *listed})

    return get, names_here
