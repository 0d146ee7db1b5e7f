"""The ClientApp side: what runs on edges and terminals. Nothing here samples, merges or knows a strategy by name."""

from .assignment import assignment_mod
from .availability import answer_availability, request_to_join, withdraw_request
from .codec import codec_mod
from .conditions import ConditionsMod, answer_conditions, conditions_mod
from .edge import edge_app
from .gossip import gossip_mod
from .gradients import gradient_mod
from .measure import measure_conditions
from .period import PeriodMod, period_mod
from .properties import answer_properties
from .sharing import allow_sharing, held_sets, share_data, sharing_mod, training_data, withdraw_data
from .split import split_client
from .steps import StepMod, StepRange, request, step_mod, steps_of, wants_new_data
from .throttle import ThrottleMod

__all__ = [
    "ConditionsMod",
    "PeriodMod",
    "StepMod",
    "StepRange",
    "ThrottleMod",
    "allow_sharing",
    "answer_availability",
    "answer_conditions",
    "answer_properties",
    "assignment_mod",
    "codec_mod",
    "conditions_mod",
    "edge_app",
    "gossip_mod",
    "gradient_mod",
    "held_sets",
    "measure_conditions",
    "period_mod",
    "request",
    "request_to_join",
    "share_data",
    "sharing_mod",
    "split_client",
    "step_mod",
    "steps_of",
    "training_data",
    "wants_new_data",
    "withdraw_data",
    "withdraw_request",
]
