"""Devices that join with one line: the server's side (`up`) and the device's (`join`, `leave`), and the fleet filter.

Certificates, HTTP and Flower's command lines; no models, no rounds. docs/joining.md says what protects whom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

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

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
