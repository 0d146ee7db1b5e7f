"""The agent beside a SuperNode: it owns the socket to its neighbours and brings their letters. Nothing here trains."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent
    from .settings import AgentLimits

__all__ = ["Agent", "AgentLimits"]

_HOME = {"Agent": "agent", "AgentLimits": "settings"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
