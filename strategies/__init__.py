"""The ServerApp side: strategies and the layers around them. Nothing here runs on a client.

A name is imported from its module when it is first asked for: who wants `Layered` alone waits for no strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flower_edge.lazy import lazy

if TYPE_CHECKING:
    from .compression.compressed import Compressed
    from .coverage.coverage import Coverage
    from .coverage.covered import Covered
    from .coverage.handover import Handover
    from .coverage.mid_round import MidRound
    from .filtering.admitted import Admitted
    from .filtering.filtered import Filtered
    from .filtering.filtered_state import track_records
    from .filtering.robust import MultiKrumTest
    from .gossip.direct import Direct
    from .gossip.gossip import Gossip
    from .gossip.workers import MostStable
    from .gradients.exchange import GradientExchange
    from .groups.grouped import Grouped, GroupedResult
    from .groups.grouped_by import GroupedByModels, grouped_by
    from .groups.limits import AtMost, GroupLimits, WithConfig
    from .hierarchy.asynchronous import FedAsync, FedBuff, constant, hinge, polynomial
    from .hierarchy.bridge_tier import BridgeTier
    from .hierarchy.cell_tier import CellTier
    from .hierarchy.cells import Cells, blocks, by_property
    from .hierarchy.drift import LowerEdgeRounds
    from .hierarchy.edge_server import edge_server
    from .hierarchy.hierarchical import Hierarchical
    from .hierarchy.tiers import LocalTier, Tier
    from .layered import Layered, LayeredGrid
    from .layers import Identity, Layer, Stage
    from .metered import Metered
    from .pieces.message_plane import PieceMessages
    from .pieces.pieces import Pieces
    from .pieces.plane import PiecePlane
    from .pieces.stream_plane import PieceStream
    from .provision.assigning import rate_by_property
    from .provision.by_load import ByLoad
    from .provision.changing import ByPace, ChangeSize, Wish
    from .provision.choosing import AsChosen, ByGroup
    from .provision.model_list import ModelList
    from .provision.statistics import with_statistics
    from .provision.sub_models import SubModels
    from .ready_made import CoverageFedAvg, FilteredFedAvg, HierarchicalFedAvg, RewardedFedAvg
    from .retire import Retire
    from .rewards.rewarded import Rewarded
    from .selected import Selected
    from .sharing.shared import Shared
    from .splitting.message_plane import MessagePlane
    from .splitting.plane import Plane
    from .splitting.session import EnrolRules
    from .splitting.split import Split
    from .splitting.stream_plane import StreamPlane
    from .stop_when import StopWhen
    from .tuned import Tuned
    from .version_gate import VersionGate

__all__ = [
    "Admitted",
    "AsChosen",
    "AtMost",
    "BridgeTier",
    "ByGroup",
    "ByLoad",
    "ByPace",
    "CellTier",
    "Cells",
    "ChangeSize",
    "Compressed",
    "Coverage",
    "CoverageFedAvg",
    "Covered",
    "Direct",
    "EnrolRules",
    "FedAsync",
    "FedBuff",
    "Filtered",
    "FilteredFedAvg",
    "Gossip",
    "GradientExchange",
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
    "MessagePlane",
    "Metered",
    "MidRound",
    "ModelList",
    "MostStable",
    "MultiKrumTest",
    "PieceMessages",
    "PiecePlane",
    "PieceStream",
    "Pieces",
    "Plane",
    "Retire",
    "Rewarded",
    "RewardedFedAvg",
    "Selected",
    "Shared",
    "Split",
    "Stage",
    "StopWhen",
    "StreamPlane",
    "SubModels",
    "Tier",
    "Tuned",
    "VersionGate",
    "Wish",
    "WithConfig",
    "blocks",
    "by_property",
    "constant",
    "edge_server",
    "grouped_by",
    "hinge",
    "polynomial",
    "rate_by_property",
    "track_records",
    "with_statistics",
]

_MODULES = {
    "compression.compressed": ("Compressed",),
    "coverage.coverage": ("Coverage",),
    "coverage.covered": ("Covered",),
    "coverage.handover": ("Handover",),
    "coverage.mid_round": ("MidRound",),
    "filtering.admitted": ("Admitted",),
    "filtering.filtered": ("Filtered",),
    "filtering.filtered_state": ("track_records",),
    "filtering.robust": ("MultiKrumTest",),
    "gossip.direct": ("Direct",),
    "gossip.gossip": ("Gossip",),
    "gossip.workers": ("MostStable",),
    "gradients.exchange": ("GradientExchange",),
    "groups.grouped": ("Grouped", "GroupedResult"),
    "groups.grouped_by": ("GroupedByModels", "grouped_by"),
    "groups.limits": ("AtMost", "GroupLimits", "WithConfig"),
    "hierarchy.asynchronous": ("FedAsync", "FedBuff", "constant", "hinge", "polynomial"),
    "hierarchy.bridge_tier": ("BridgeTier",),
    "hierarchy.cell_tier": ("CellTier",),
    "hierarchy.cells": ("Cells", "blocks", "by_property"),
    "hierarchy.drift": ("LowerEdgeRounds",),
    "hierarchy.edge_server": ("edge_server",),
    "hierarchy.hierarchical": ("Hierarchical",),
    "hierarchy.tiers": ("LocalTier", "Tier"),
    "layered": ("Layered", "LayeredGrid"),
    "layers": ("Identity", "Layer", "Stage"),
    "metered": ("Metered",),
    "pieces.message_plane": ("PieceMessages",),
    "pieces.pieces": ("Pieces",),
    "pieces.plane": ("PiecePlane",),
    "pieces.stream_plane": ("PieceStream",),
    "provision.assigning": ("rate_by_property",),
    "provision.by_load": ("ByLoad",),
    "provision.changing": ("ByPace", "ChangeSize", "Wish"),
    "provision.choosing": ("AsChosen", "ByGroup"),
    "provision.model_list": ("ModelList",),
    "provision.statistics": ("with_statistics",),
    "provision.sub_models": ("SubModels",),
    "ready_made": ("CoverageFedAvg", "FilteredFedAvg", "HierarchicalFedAvg", "RewardedFedAvg"),
    "retire": ("Retire",),
    "rewards.rewarded": ("Rewarded",),
    "selected": ("Selected",),
    "sharing.shared": ("Shared",),
    "splitting.message_plane": ("MessagePlane",),
    "splitting.plane": ("Plane",),
    "splitting.session": ("EnrolRules",),
    "splitting.split": ("Split",),
    "splitting.stream_plane": ("StreamPlane",),
    "stop_when": ("StopWhen",),
    "tuned": ("Tuned",),
    "version_gate": ("VersionGate",),
}
__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
