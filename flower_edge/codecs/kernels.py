"""Which kernels run: compiled ones where Numba is installed (`pip install 'flower-edge[fast]'`), else NumPy's.

Both give the same bytes. A room of kernels is a module of one name in `reference/` and in `fast/`, with the same
functions; who needs one asks `kernels("blocks")` in each call, so that a test can switch. Where Numba is there and does
not run (made for another NumPy, no folder to keep compiled code in), NumPy's run instead, and a warning says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from logging import getLogger
from typing import Any, Literal

from ..errors import ConfigError

__all__ = ["SWITCH", "available", "kernels", "running", "using"]

log = getLogger(__name__)

#: Environment variable: 0 keeps to NumPy even where Numba is installed.
SWITCH = "FLOWER_EDGE_FAST"

Path = Literal["reference", "fast"]
_forced: ContextVar[Path | None] = ContextVar("flower_edge_kernels", default=None)


@cache
def available() -> bool:
    """Whether compiled kernels can run here."""
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        _module("fast", "scatter")
    # RuntimeError: no folder for compiled code can be written. AttributeError: the caller has a module `coverage`.
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        log.warning("compiled kernels cannot run here, NumPy's do: %s; set NUMBA_CACHE_DIR, or %s=0", error, SWITCH)
        return False
    return True


def running() -> Path:
    """Which kernels run now."""
    forced = _forced.get()
    if forced is not None:
        return forced
    return "fast" if os.environ.get(SWITCH, "1") != "0" and available() else "reference"


def kernels(room: str) -> Any:
    """The module of kernels of that name."""
    return _module(running(), room)


@cache
def _module(path: Path, room: str) -> Any:
    return importlib.import_module(f".{path}.{room}", __package__)


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Run the kernels of one path in this context.

    Raises:
        ConfigError: `fast` where Numba is not installed.
    """
    if path == "fast" and not available():
        raise ConfigError("compiled kernels need Numba: pip install 'flower-edge[fast]'")
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)
