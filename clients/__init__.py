"""The ClientApp side: what runs on edges and terminals. Nothing here samples, merges or knows a strategy by name."""

from .edge import edge_app
from .properties import answer_properties
from .steps import StepMod, StepRange, request, step_mod, steps_of

__all__ = ["StepMod", "StepRange", "answer_properties", "edge_app", "request", "step_mod", "steps_of"]
