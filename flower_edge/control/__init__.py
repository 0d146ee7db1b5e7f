"""Controllers: weights and bandwidth of every link, chosen anew each round.

Values, and functions from what was measured to what the nodes are told. Nothing here trains or sends.
"""

from __future__ import annotations

from .auto import Auto
from .baselines import DynamicOpt, Equal, NoComm, Static
from .controller import Control, Controller, Observation, Start, State
from .costs import link_costs, objective, round_time_s
from .dcent import Dcent
from .doubly import DoublyStochastic
from .forecasts import Constant, Ewma, Forecast, Last, Mean, MeanPlusDeviation, Quantile, Shrunk
from .joint import Joint
from .matcha import Matcha
from .min_max import min_max_bandwidth
from .named import CONTROLLERS, make_controller
from .ogd import Ogd
from .optimum import weighted_optimum
from .planned import ClosedForm, MinMax
from .resources import Bandwidth, PerBit, Resource, ResourceControl, processor, receiver_power
from .schedules import BaseKPlus1, OnePeerExponential
from .simulate import Trace, first_look, observe, simulate
from .true_time import Sparse, TimeOptimal
from .vector_dcent import VectorDcent
from .weights_only import WeightsOnly
from .with_resources import WithResources

__all__ = [
    "CONTROLLERS",
    "Auto",
    "Bandwidth",
    "BaseKPlus1",
    "ClosedForm",
    "Constant",
    "Control",
    "Controller",
    "Dcent",
    "DoublyStochastic",
    "DynamicOpt",
    "Equal",
    "Ewma",
    "Forecast",
    "Joint",
    "Last",
    "Matcha",
    "Mean",
    "MeanPlusDeviation",
    "MinMax",
    "NoComm",
    "Observation",
    "Ogd",
    "OnePeerExponential",
    "PerBit",
    "Quantile",
    "Resource",
    "ResourceControl",
    "Shrunk",
    "Sparse",
    "Start",
    "State",
    "Static",
    "TimeOptimal",
    "Trace",
    "VectorDcent",
    "WeightsOnly",
    "WithResources",
    "first_look",
    "link_costs",
    "make_controller",
    "min_max_bandwidth",
    "objective",
    "observe",
    "processor",
    "receiver_power",
    "round_time_s",
    "simulate",
    "weighted_optimum",
]
