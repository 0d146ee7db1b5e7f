"""The agent beside a SuperNode: it owns the socket to its neighbours and brings their letters. Nothing here trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...lazy import lazy

if TYPE_CHECKING:
    from .agent import Agent
    from .settings import AgentLimits

__all__ = ["Agent", "AgentLimits"]

_MODULES = {"agent": ("Agent",), "settings": ("AgentLimits",)}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
