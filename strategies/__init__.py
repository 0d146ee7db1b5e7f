"""The ServerApp side: strategies and the layers around them. Nothing here runs on a client."""

from .cells import Cells, blocks, by_property
from .hierarchical import Hierarchical
from .layered import Layered, LayeredGrid
from .layers import Identity, Layer, Stage
from .metered import Metered
from .tiers import CellTier, LocalTier, Tier

__all__ = [
    "CellTier",
    "Cells",
    "Hierarchical",
    "Identity",
    "Layer",
    "Layered",
    "LayeredGrid",
    "LocalTier",
    "Metered",
    "Stage",
    "Tier",
    "blocks",
    "by_property",
]
