"""The ClientApp side: what runs on edges and terminals. Nothing here samples, merges or knows a strategy by name.

A name is imported from its module when it is first asked for: a device that trains in NumPy alone loads no SciPy and
no topology.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flower_edge.lazy import lazy

if TYPE_CHECKING:
    from .agent import answer_agent
    from .assignment import assignment_mod
    from .availability import answer_availability, request_to_join, withdraw_request
    from .bridge import bridge_app
    from .codec import codec_mod
    from .condition_policy import ConditionPolicy
    from .conditions import ConditionsMod, answer_conditions, conditions_mod
    from .edge import edge_app
    from .gossip import gossip_mod, own_model
    from .gradients import gradient_mod
    from .log_lines import logging_mod
    from .measure import measure_conditions
    from .period import PeriodMod, period_mod
    from .pieces import pieces_client
    from .policy_mod import PolicyMod
    from .properties import answer_properties
    from .sharing import allow_sharing, held_sets, share_data, sharing_mod, training_data, withdraw_data
    from .split import split_client
    from .steps import StepMod, StepRange, request, step_mod, steps_of, wants_new_data
    from .thin import thin_client
    from .throttle import ThrottleMod

__all__ = [
    "ConditionPolicy",
    "ConditionsMod",
    "PeriodMod",
    "PolicyMod",
    "StepMod",
    "StepRange",
    "ThrottleMod",
    "allow_sharing",
    "answer_agent",
    "answer_availability",
    "answer_conditions",
    "answer_properties",
    "assignment_mod",
    "bridge_app",
    "codec_mod",
    "conditions_mod",
    "edge_app",
    "gossip_mod",
    "gradient_mod",
    "held_sets",
    "logging_mod",
    "measure_conditions",
    "own_model",
    "period_mod",
    "pieces_client",
    "request",
    "request_to_join",
    "share_data",
    "sharing_mod",
    "split_client",
    "step_mod",
    "steps_of",
    "thin_client",
    "training_data",
    "wants_new_data",
    "withdraw_data",
    "withdraw_request",
]

_MODULES = {
    "agent": ("answer_agent",),
    "assignment": ("assignment_mod",),
    "availability": (
        "answer_availability",
        "request_to_join",
        "withdraw_request",
    ),
    "bridge": ("bridge_app",),
    "codec": ("codec_mod",),
    "condition_policy": ("ConditionPolicy",),
    "conditions": (
        "ConditionsMod",
        "answer_conditions",
        "conditions_mod",
    ),
    "edge": ("edge_app",),
    "gossip": ("gossip_mod", "own_model"),
    "gradients": ("gradient_mod",),
    "log_lines": ("logging_mod",),
    "measure": ("measure_conditions",),
    "period": (
        "PeriodMod",
        "period_mod",
    ),
    "pieces": ("pieces_client",),
    "policy_mod": ("PolicyMod",),
    "properties": ("answer_properties",),
    "sharing": (
        "allow_sharing",
        "held_sets",
        "share_data",
        "sharing_mod",
        "training_data",
        "withdraw_data",
    ),
    "split": ("split_client",),
    "steps": (
        "StepMod",
        "StepRange",
        "request",
        "step_mod",
        "steps_of",
        "wants_new_data",
    ),
    "thin": ("thin_client",),
    "throttle": ("ThrottleMod",),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
