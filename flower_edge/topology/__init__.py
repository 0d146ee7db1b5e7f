"""Networks: who hears whom, over which radio, with which consensus weights, and how well they mix.

Nothing here trains, sends or decides; `flower_edge.control` does the latter.
"""

from __future__ import annotations

from .connectivity import UnionWindow, connected, periodically_connected, reaches_all, safe_prunes
from .fdla import fdla
from .mixing import consensus_bias, second_eigenvalue, second_singular_value, spectral_gap, stationary
from .network_plot import plot_networks
from .overlays import cheapest_links, matchings, nearest, ring
from .path_loss import D2D_NLOS, MACRO, WINNER_LOS, PathLoss, PowerLaw, WinnerLos
from .peer_schedules import base_k_plus_1, one_peer_exponential
from .processing import GivenProcessing, NormalProcessing, ProcessingTimes, draw_means_s
from .radio_world import RadioWorld, within_range
from .set_ups import LENET_BITS, SET_UPS, set_up
from .shadowing import Shadowing
from .shannon import Radio, ShannonRadio
from .sinkhorn import sinkhorn
from .stability import link_stability, stability_seen
from .technologies import BLUETOOTH, DIRECT, LTE_DIRECT, OPERATOR, WIFI_DIRECT, Intermediary, Technologies, Technology
from .topology import Topology
from .weights import best_constant, equal, max_degree, metropolis
from .world import World

__all__ = [
    "BLUETOOTH",
    "D2D_NLOS",
    "DIRECT",
    "LENET_BITS",
    "LTE_DIRECT",
    "MACRO",
    "OPERATOR",
    "SET_UPS",
    "WIFI_DIRECT",
    "WINNER_LOS",
    "GivenProcessing",
    "Intermediary",
    "NormalProcessing",
    "PathLoss",
    "PowerLaw",
    "ProcessingTimes",
    "Radio",
    "RadioWorld",
    "Shadowing",
    "ShannonRadio",
    "Technologies",
    "Technology",
    "Topology",
    "UnionWindow",
    "WinnerLos",
    "World",
    "base_k_plus_1",
    "best_constant",
    "cheapest_links",
    "connected",
    "consensus_bias",
    "draw_means_s",
    "equal",
    "fdla",
    "link_stability",
    "matchings",
    "max_degree",
    "metropolis",
    "nearest",
    "one_peer_exponential",
    "periodically_connected",
    "plot_networks",
    "reaches_all",
    "ring",
    "safe_prunes",
    "second_eigenvalue",
    "second_singular_value",
    "set_up",
    "sinkhorn",
    "spectral_gap",
    "stability_seen",
    "stationary",
    "within_range",
]
