"""One model on several machines: cut it, plan where, train it exactly as if it were whole.

Nothing here knows Flower, or how tensors travel. What needs torch imports it when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .architecture import build, described
    from .budgets import Budgets, History, QuantileBudgets
    from .capacity import Capacity, Cloud
    from .chain import ChainPlan, Link, Machine, plan_chain
    from .codec_pairs import codecs_named
    from .conversation_torch import CloudHalf, CloudWork, DeviceWork, MiddleWork, WorkResult, converse
    from .costs import CutCodecs, Job
    from .cut_codecs import cut_codec, error_bound
    from .cutting_torch import CutModel
    from .dynamic import Dynamic
    from .frame import Frame, Kind
    from .frames import FrameCoder
    from .leakage import distance_correlation, gauge
    from .moments import Moments
    from .order import ArchitectureSpec, OptimiserSpec, WorkOrder
    from .plan import Assignment, DeviceView, Plan
    from .planner import FixedCut, Planner, Scheduled, WholeModel
    from .profile import CutProfile, ModelProfile, UnitProfile
    from .profile_torch import measure
    from .reservations import Reservations, jitter_bound, needed_bps, violation_rate
    from .stages_torch import Stage
    from .standardise import Standard

__all__ = [
    "ArchitectureSpec",
    "Assignment",
    "Budgets",
    "Capacity",
    "ChainPlan",
    "Cloud",
    "CloudHalf",
    "CloudWork",
    "CutCodecs",
    "CutModel",
    "CutProfile",
    "DeviceView",
    "DeviceWork",
    "Dynamic",
    "FixedCut",
    "Frame",
    "FrameCoder",
    "History",
    "Job",
    "Kind",
    "Link",
    "Machine",
    "MiddleWork",
    "ModelProfile",
    "Moments",
    "OptimiserSpec",
    "Plan",
    "Planner",
    "QuantileBudgets",
    "Reservations",
    "Scheduled",
    "Stage",
    "Standard",
    "UnitProfile",
    "WholeModel",
    "WorkOrder",
    "WorkResult",
    "build",
    "codecs_named",
    "converse",
    "cut_codec",
    "described",
    "distance_correlation",
    "error_bound",
    "gauge",
    "jitter_bound",
    "measure",
    "needed_bps",
    "plan_chain",
    "violation_rate",
]

_MODULES = {
    "architecture": (
        "build",
        "described",
    ),
    "budgets": (
        "Budgets",
        "History",
        "QuantileBudgets",
    ),
    "capacity": (
        "Capacity",
        "Cloud",
    ),
    "chain": (
        "ChainPlan",
        "Link",
        "Machine",
        "plan_chain",
    ),
    "codec_pairs": ("codecs_named",),
    "conversation_torch": (
        "CloudHalf",
        "CloudWork",
        "DeviceWork",
        "MiddleWork",
        "WorkResult",
        "converse",
    ),
    "costs": (
        "CutCodecs",
        "Job",
    ),
    "cut_codecs": (
        "cut_codec",
        "error_bound",
    ),
    "cutting_torch": (
        "CutModel",
        "Stage",
    ),
    "dynamic": ("Dynamic",),
    "frame": (
        "Frame",
        "Kind",
    ),
    "frames": ("FrameCoder",),
    "leakage": (
        "distance_correlation",
        "gauge",
    ),
    "moments": ("Moments",),
    "order": (
        "ArchitectureSpec",
        "OptimiserSpec",
        "WorkOrder",
    ),
    "plan": (
        "Assignment",
        "DeviceView",
        "Plan",
    ),
    "planner": (
        "FixedCut",
        "Planner",
        "Scheduled",
        "WholeModel",
    ),
    "profile": (
        "CutProfile",
        "ModelProfile",
        "UnitProfile",
    ),
    "profile_torch": ("measure",),
    "reservations": (
        "Reservations",
        "jitter_bound",
        "needed_bps",
        "violation_rate",
    ),
    "stages_torch": ("Stage",),
    "standardise": ("Standard",),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
