"""The ServerApp side: strategies and the layers around them. Nothing here runs on a client."""

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
