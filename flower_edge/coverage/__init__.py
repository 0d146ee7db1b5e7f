"""Coverage: where terminals are, which edge reaches them, and who enters, leaves or is handed over.

Pure functions of time over arrays of all nodes; node i is the one with partition-id i. Nothing here knows Flower,
trains or sends: `flower_edge.strategies` makes cells of a federation from it.

Design: [4] ¶16 (each edge has a coverage), ¶38-39 (terminals leave it, enter it and move into another's).
"""

from __future__ import annotations

from .absences import OutOfCoverage
from .attachment import ByTrace, write_attachment
from .attachment_plot import plot_attachment
from .jumping import Jumping
from .located import ByFunction, ByPosition, Located
from .map_plot import plot_map
from .mobility import Mobility, RandomWalk, RandomWaypoint, Still
from .moves import Moves, moves_between
from .position_trace import PositionTrace, write_trace
from .regions import Regions

__all__ = [
    "ByFunction",
    "ByPosition",
    "ByTrace",
    "Jumping",
    "Located",
    "Mobility",
    "Moves",
    "OutOfCoverage",
    "PositionTrace",
    "RandomWalk",
    "RandomWaypoint",
    "Regions",
    "Still",
    "moves_between",
    "plot_attachment",
    "plot_map",
    "write_attachment",
    "write_trace",
]
