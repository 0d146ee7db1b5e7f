"""The ServerApp side: strategies and the layers around them. Nothing here runs on a client."""

from .asynchronous import FedAsync, FedBuff, constant, hinge, polynomial
from .cell_tier import CellTier
from .cells import Cells, blocks, by_property
from .drift import LowerEdgeRounds
from .hierarchical import Hierarchical
from .layered import Layered, LayeredGrid
from .layers import Identity, Layer, Stage
from .metered import Metered
from .tiers import LocalTier, Tier

__all__ = [
    "CellTier",
    "Cells",
    "FedAsync",
    "FedBuff",
    "Hierarchical",
    "Identity",
    "Layer",
    "Layered",
    "LayeredGrid",
    "LocalTier",
    "LowerEdgeRounds",
    "Metered",
    "Stage",
    "Tier",
    "blocks",
    "by_property",
    "constant",
    "hinge",
    "polynomial",
]
