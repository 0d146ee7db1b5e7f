"""The ServerApp side: strategies and the layers around them. Nothing here runs on a client."""

from .asynchronous import FedAsync, FedBuff, constant, hinge, polynomial
from .cell_tier import CellTier
from .cells import Cells, blocks, by_property
from .coverage import Coverage
from .covered import Covered
from .drift import LowerEdgeRounds
from .group_limits import AtMost, GroupLimits, WithConfig
from .grouped import Grouped, GroupedResult
from .grouped_by import GroupedByModels, grouped_by
from .handover import Handover
from .hierarchical import Hierarchical
from .layered import Layered, LayeredGrid
from .layers import Identity, Layer, Stage
from .metered import Metered
from .mid_round import MidRound
from .ready_made import CoverageFedAvg, HierarchicalFedAvg
from .retire import Retire
from .selected import Selected
from .stop_when import StopWhen
from .tiers import LocalTier, Tier
from .version_gate import VersionGate

__all__ = [
    "AtMost",
    "CellTier",
    "Cells",
    "Coverage",
    "CoverageFedAvg",
    "Covered",
    "FedAsync",
    "FedBuff",
    "GroupLimits",
    "Grouped",
    "GroupedByModels",
    "GroupedResult",
    "Handover",
    "Hierarchical",
    "HierarchicalFedAvg",
    "Identity",
    "Layer",
    "Layered",
    "LayeredGrid",
    "LocalTier",
    "LowerEdgeRounds",
    "Metered",
    "MidRound",
    "Retire",
    "Selected",
    "Stage",
    "StopWhen",
    "Tier",
    "VersionGate",
    "WithConfig",
    "blocks",
    "by_property",
    "constant",
    "grouped_by",
    "hinge",
    "polynomial",
]
