"""Devices that join with one line: the server's side (`up`) and the device's (`join`, `leave`), and the fleet filter.

Certificates, HTTP and Flower's command lines; no models, no rounds. docs/joining.md says what protects whom.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .book import Device, EnrolmentBook
    from .device_folder import DeviceFolder, Joined, NodeOptions
    from .fleet_filter import FilterLimits, FleetFilter
    from .joining import JoinLine, join, leave, wait_online
    from .server import AppRun, EnrolmentServer
    from .server_folder import ServerFolder

__all__ = [
    "AppRun",
    "Device",
    "DeviceFolder",
    "EnrolmentBook",
    "EnrolmentServer",
    "FilterLimits",
    "FleetFilter",
    "JoinLine",
    "Joined",
    "NodeOptions",
    "ServerFolder",
    "join",
    "leave",
    "wait_online",
]

_MODULES = {
    "book": ("Device", "EnrolmentBook"),
    "device_folder": ("DeviceFolder", "Joined", "NodeOptions"),
    "fleet_filter": ("FilterLimits", "FleetFilter"),
    "joining": ("JoinLine", "join", "leave", "wait_online"),
    "server": ("AppRun", "EnrolmentServer"),
    "server_folder": ("ServerFolder",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
