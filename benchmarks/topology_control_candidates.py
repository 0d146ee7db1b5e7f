"""Which controllers the topology-control benchmark compares, by the names its tables use. Nothing here runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from flower_edge.control.auto import Auto
from flower_edge.control.baselines import DynamicOpt, Equal, NoComm
from flower_edge.control.controller import Controller
from flower_edge.control.dcent import Dcent
from flower_edge.control.doubly import DoublyStochastic
from flower_edge.control.matcha import Matcha
from flower_edge.control.ogd import Ogd
from flower_edge.control.planned import ClosedForm, MinMax
from flower_edge.control.schedules import BaseKPlus1, OnePeerExponential
from flower_edge.control.true_time import Sparse, TimeOptimal

__all__ = [
    "BAND_STEP",
    "CANDIDATES",
    "DOUBLY_STOCHASTIC",
    "LITERAL",
    "LITERAL_CAPS",
    "ONE_PEER",
    "WEIGHT_STEP",
]

#: OGD's steps as printed in the tables of issue and theory; it is held against a tuned one, too.
WEIGHT_STEP: Final = 3e-3
BAND_STEP: Final = 1e-5

#: Step caps of the literal reading, within which [1]'s number of links is looked for, and their names.
LITERAL_CAPS: Final = (0.03, 0.04, 0.05)
LITERAL: Final = tuple(f"DCENT literal, cap {cap:g}" for cap in LITERAL_CAPS)

#: By name; each call makes a new one.
CANDIDATES: Final[Mapping[str, Callable[[], Controller]]] = {
    "NoComm": NoComm,
    "EQUAL": Equal,
    "OGD row": partial(Ogd, "row", weight_step=WEIGHT_STEP, band_step=BAND_STEP),
    "DCENT": Dcent,
    **{name: partial(Dcent.literal, cap) for name, cap in zip(LITERAL, LITERAL_CAPS, strict=True)},
    "DCENT split": partial(Dcent, theta=0.5, step_cap=0.02),
    "DCENT pruned": partial(Dcent, step_cap=0.03, prune_below=0.03),
    "DCENT+": lambda: DoublyStochastic(MinMax(Dcent(step_cap=0.03, prune_below=0.03))),
    "closed form": ClosedForm,
    "Dynamic OPT": DynamicOpt,
    "all links, min-max": lambda: MinMax(Equal()),
    "sparse 4": partial(Sparse, 4),
    "time optimal": TimeOptimal,
    "sigma2 <= 0.8": partial(TimeOptimal, bound=0.8),
    "one peer, exponential": OnePeerExponential,
    "one peer, base 2": BaseKPlus1,
    "MATCHA": Matcha,
    "auto": Auto,
}

#: Those that promise that every node counts the same.
DOUBLY_STOCHASTIC: Final = (
    "DCENT+",
    "sparse 4",
    "time optimal",
    "sigma2 <= 0.8",
    "one peer, exponential",
    "one peer, base 2",
    "MATCHA",
    "auto",
)
ONE_PEER: Final = ("one peer, exponential", "one peer, base 2")
