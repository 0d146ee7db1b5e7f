"""A model as a pipeline over several machines, and fewer bytes at its connections while it serves.

pipeline_torch, parts_torch    parts of a model, each with its own arrays, and the connections between them
fringe_torch, freezing_torch   the layers that touch a connection; everything else stays, and digest_torch proves it
wire, wire_forms, wire_torch   what a connection makes of its tensors: the same to evaluate, to train and to send
sparse_torch, removal_torch    single weights set to zero, and whole layers left out
pruning_pipeline_torch         fewer channels at a connection: ranked, pruned, healed (pruning_*, channel_*, healing)
distil_torch, pair_torch       a new encoder and decoder at a connection, and how they learn (distil_*, pair_*)
goals, controller_torch        what is asked for; step, heal, judge, accept or roll back (actions, policy, placing)
automatic_torch                which machines, cuts, depth and methods, and why (automatic_*)
links, report                  what a link gives, what an inference takes, and what compression saved

Nothing here knows Flower or sends. What needs torch imports it when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .adapting import Adapting
    from .automatic_following import replacement
    from .automatic_learned import LearnedPlan, PlanRow
    from .automatic_torch import automatic, model_costs
    from .automatic_values import Chosen, Given, ModelCosts
    from .channel_choice import ChannelRanking
    from .control_report import final_report, snapshot
    from .controller_torch import Controller
    from .deployed_torch import Deployed, InProcess
    from .digest_torch import FrozenProof, digest
    from .distil_recipe import DistilGoal, DistilRecipe
    from .distil_torch import DistilResult, distil
    from .distil_training_torch import DistilTraining
    from .evaluation_torch import evaluation, stage_seconds
    from .freezing_torch import freeze, thaw
    from .fringe_torch import Fringe, Side, fringe
    from .goals import Goals
    from .healing_torch import Healed, Recipe
    from .history import Iteration, history_table
    from .links import Attainable, Inference, Link, LinkEstimate, attainable, inference, refuse_impossible
    from .metrics import Metric
    from .pair_parts_torch import placed
    from .pair_search_torch import Tried, tried_shapes
    from .pair_shapes import PairShape, transfer_budget_bytes
    from .pair_torch import Pair
    from .pipeline_torch import Connection, Part, Pipeline, distribute
    from .placing import Placement, place
    from .policy import LargestFirst, Policy, SlowestFirst
    from .policy_learned import CostModel, Learned
    from .pruning_pipeline_torch import heal, heal_together, prune, rank
    from .removal_torch import RemovalEffect, removable, removal_effects, without
    from .report import ConnectionSaving, Measured, Saving, savings, savings_table
    from .sparse_torch import SparseStorage, keep_zeros, pack_sparse, prune_weights, storage, unpack_sparse
    from .wire import FrameHead, TensorSpec, Wire
    from .wire_forms import WireForm
    from .wire_torch import carried

__all__ = [
    "Adapting",
    "Attainable",
    "ChannelRanking",
    "Chosen",
    "Connection",
    "ConnectionSaving",
    "Controller",
    "CostModel",
    "Deployed",
    "DistilGoal",
    "DistilRecipe",
    "DistilResult",
    "DistilTraining",
    "FrameHead",
    "Fringe",
    "FrozenProof",
    "Given",
    "Goals",
    "Healed",
    "InProcess",
    "Inference",
    "Iteration",
    "LargestFirst",
    "Learned",
    "LearnedPlan",
    "Link",
    "LinkEstimate",
    "Measured",
    "Metric",
    "ModelCosts",
    "Pair",
    "PairShape",
    "Part",
    "Pipeline",
    "Placement",
    "PlanRow",
    "Policy",
    "Recipe",
    "RemovalEffect",
    "Saving",
    "Side",
    "SlowestFirst",
    "SparseStorage",
    "TensorSpec",
    "Tried",
    "Wire",
    "WireForm",
    "attainable",
    "automatic",
    "carried",
    "digest",
    "distil",
    "distribute",
    "evaluation",
    "final_report",
    "freeze",
    "fringe",
    "heal",
    "heal_together",
    "history_table",
    "inference",
    "keep_zeros",
    "model_costs",
    "pack_sparse",
    "place",
    "placed",
    "prune",
    "prune_weights",
    "rank",
    "refuse_impossible",
    "removable",
    "removal_effects",
    "replacement",
    "savings",
    "savings_table",
    "snapshot",
    "stage_seconds",
    "storage",
    "thaw",
    "transfer_budget_bytes",
    "tried_shapes",
    "unpack_sparse",
    "without",
]

_MODULES = {
    "adapting": ("Adapting",),
    "automatic_following": ("replacement",),
    "automatic_learned": ("LearnedPlan", "PlanRow"),
    "automatic_torch": ("automatic", "model_costs"),
    "automatic_values": ("Chosen", "Given", "ModelCosts"),
    "channel_choice": ("ChannelRanking",),
    "control_report": ("final_report", "snapshot"),
    "controller_torch": ("Controller",),
    "deployed_torch": ("Deployed", "InProcess"),
    "digest_torch": ("FrozenProof", "digest"),
    "distil_recipe": ("DistilGoal", "DistilRecipe"),
    "distil_torch": ("DistilResult", "distil"),
    "distil_training_torch": ("DistilTraining",),
    "evaluation_torch": ("evaluation", "stage_seconds"),
    "freezing_torch": ("freeze", "thaw"),
    "fringe_torch": ("Fringe", "Side", "fringe"),
    "goals": ("Goals",),
    "healing_torch": ("Healed", "Recipe"),
    "history": ("Iteration", "history_table"),
    "links": ("Attainable", "Inference", "Link", "LinkEstimate", "attainable", "inference", "refuse_impossible"),
    "metrics": ("Metric",),
    "pair_parts_torch": ("placed",),
    "pair_search_torch": ("Tried", "tried_shapes"),
    "pair_shapes": ("PairShape", "transfer_budget_bytes"),
    "pair_torch": ("Pair",),
    "pipeline_torch": ("Connection", "Part", "Pipeline", "distribute"),
    "placing": ("Placement", "place"),
    "policy": ("LargestFirst", "Policy", "SlowestFirst"),
    "policy_learned": ("CostModel", "Learned"),
    "pruning_pipeline_torch": ("heal", "heal_together", "prune", "rank"),
    "removal_torch": ("RemovalEffect", "removable", "removal_effects", "without"),
    "report": ("ConnectionSaving", "Measured", "Saving", "savings", "savings_table"),
    "sparse_torch": ("SparseStorage", "keep_zeros", "pack_sparse", "prune_weights", "storage", "unpack_sparse"),
    "wire": ("FrameHead", "TensorSpec", "Wire"),
    "wire_forms": ("WireForm",),
    "wire_torch": ("carried",),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
