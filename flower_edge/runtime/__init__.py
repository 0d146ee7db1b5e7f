"""What Flower runs on here: Grids, the virtual clock, nodes' memory, the launcher. No strategy and no client.

A name is imported from its module when it is first asked for: whoever wants `Device` alone waits for no database and
for no Flower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .clock.devices import Device, Link, Work, draw_devices, draw_links
    from .clock.load_model import LoadModel
    from .clock.round_clock import RoundClock
    from .clock.trips import Trip
    from .clock.virtual_clock import VirtualClock
    from .faults import Fault
    from .grid_proxy import GridProxy
    from .joined_grid import JoinedGrid, server_worker
    from .launching.launcher import LaunchResult, launch
    from .local_grid import LocalGrid
    from .narrowed_grid import NarrowedGrid
    from .node_count import expected_nodes
    from .node_state import ImportedFrom, NodeState
    from .queries import ask_nodes, conditions_of, without_conditions
    from .short_polling import ShortPolling
    from .steps.decisions import Change, Continue, Detach, Drop, Progress, Renew, Replace, StepEvent, Stop
    from .steps.grid import SteppedGrid
    from .steps.period import UntilPeriodEnds
    from .warm.settings import WarmSettings
    from .wrapped_grid import WrappedGrid

__all__ = [
    "Change",
    "Continue",
    "Detach",
    "Device",
    "Drop",
    "Fault",
    "GridProxy",
    "ImportedFrom",
    "JoinedGrid",
    "LaunchResult",
    "Link",
    "LoadModel",
    "LocalGrid",
    "NarrowedGrid",
    "NodeState",
    "Progress",
    "Renew",
    "Replace",
    "RoundClock",
    "ShortPolling",
    "StepEvent",
    "SteppedGrid",
    "Stop",
    "Trip",
    "UntilPeriodEnds",
    "VirtualClock",
    "WarmSettings",
    "Work",
    "WrappedGrid",
    "ask_nodes",
    "conditions_of",
    "draw_devices",
    "draw_links",
    "expected_nodes",
    "launch",
    "server_worker",
    "without_conditions",
]

_MODULES = {
    "clock.devices": ("Device", "Link", "Work", "draw_devices", "draw_links"),
    "clock.round_clock": ("RoundClock",),
    "faults": ("Fault",),
    "grid_proxy": ("GridProxy",),
    "joined_grid": ("JoinedGrid", "server_worker"),
    "launching.launcher": ("LaunchResult", "launch"),
    "clock.load_model": ("LoadModel",),
    "local_grid": ("LocalGrid",),
    "narrowed_grid": ("NarrowedGrid",),
    "node_count": ("expected_nodes",),
    "node_state": ("ImportedFrom", "NodeState"),
    "queries": ("ask_nodes", "conditions_of", "without_conditions"),
    "short_polling": ("ShortPolling",),
    "steps.decisions": ("Change", "Continue", "Detach", "Drop", "Progress", "Renew", "Replace", "StepEvent", "Stop"),
    "steps.grid": ("SteppedGrid",),
    "steps.period": ("UntilPeriodEnds",),
    "clock.trips": ("Trip",),
    "clock.virtual_clock": ("VirtualClock",),
    "warm.settings": ("WarmSettings",),
    "wrapped_grid": ("WrappedGrid",),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
