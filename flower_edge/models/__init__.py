"""Models by name, and the two things done with one: train, evaluate.

Importing this room needs numpy only; torch is imported by the call that needs it, and `NumpyMLP` never does.
Nothing here sends, aggregates or knows Flower.
"""

from .numpy_mlp import NumpyMLP
from .registry import MODELS, Model, evaluate, get_arrays, make_model, set_arrays, train
from .results import EvalResult, TrainResult
from .schedule import Schedule

__all__ = [
    "MODELS",
    "EvalResult",
    "Model",
    "NumpyMLP",
    "Schedule",
    "TrainResult",
    "evaluate",
    "get_arrays",
    "make_model",
    "set_arrays",
    "train",
]
