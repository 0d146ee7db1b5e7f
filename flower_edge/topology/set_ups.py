"""Set-ups: radios and clocks with names, so that runs of different controllers can be compared.

They are variations of the experiment in [1] ¶49: 15 nodes at random in 500 m x 500 m that move 0.1 m per round, each
time in another direction, reflected at the border; processing times from a normal distribution cut off at 0.01 and 2 s;
LeNet as payload; links after Shannon. The document names neither the path loss, the band, the powers nor the standard
deviation; those here are chosen. A name and a seed are the whole of a set-up: nothing else is random.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..coverage.mobility import RandomWalk
from ..errors import ConfigError
from .path_loss import D2D_NLOS, MACRO, WINNER_LOS, PathLoss
from .processing import NormalProcessing, draw_means_s
from .radio_world import RadioWorld
from .shadowing import Shadowing
from .shannon import ShannonRadio

__all__ = ["AREA_M", "LENET_BITS", "SET_UPS", "set_up"]

#: LeNet-5 with 61 706 parameters of 32 bit.
LENET_BITS = 61_706 * 32

#: Width and height of the area.
AREA_M = (500.0, 500.0)


@dataclass(frozen=True)
class _Plan:
    """What a set-up has of its own; the defaults are `nlos`."""

    path_loss: PathLoss = D2D_NLOS
    budget_hz: float = 20e6
    noise_figure_db: float = 0.0
    cap: float = float("inf")
    shadowing_db: float = 0.0
    step_m: float = 0.1
    mean_s: tuple[float, float] = (1.0, 1.0)
    sd_s: float = 0.5


_PLANS = {
    "nlos": _Plan(),
    "macro": _Plan(path_loss=MACRO),
    "los": _Plan(path_loss=WINNER_LOS),
    "nlos-5mhz": _Plan(budget_hz=5e6),
    "nlos-10mhz-nf9": _Plan(budget_hz=10e6, noise_figure_db=9.0),
    "nlos-capped": _Plan(cap=7.4),
    "nlos-shadowed": _Plan(shadowing_db=7.0),
    "nlos-sd33": _Plan(sd_s=0.33),
    "nlos-per-device": _Plan(mean_s=(0.4, 1.6), sd_s=0.2),
    "nlos-fast": _Plan(step_m=5.0),
    "macro-5mhz": _Plan(path_loss=MACRO, budget_hz=5e6),
}

#: The names `set_up` knows.
SET_UPS = tuple(_PLANS)


def set_up(name: str, seed: int, nodes: int = 15) -> RadioWorld:
    """The world of a named set-up; every pair of nodes is a link.

    | name | what is different |
    |---|---|
    | `nlos` | devices without a line of sight, 20 MHz per node, 23 dBm, no noise figure |
    | `nlos-5mhz`, `nlos-10mhz-nf9` | less band; with a noise figure of 9 dB |
    | `nlos-capped` | at most 7.4 bit/s/Hz |
    | `nlos-shadowed` | log-normal shadowing of 7 dB, for the run |
    | `nlos-sd33` | processing times that vary less: 0.33 s instead of 0.5 s |
    | `nlos-per-device` | devices fast or slow for good: means from 0.4 to 1.6 s, 0.2 s around them |
    | `nlos-fast` | 5 m per round |
    | `macro`, `macro-5mhz` | the milder path loss of a macro cell |
    | `los` | a line of sight, WINNER II B1: the mildest |

    Args:
        name: one of `SET_UPS`.
        seed: of places, ways, processing times and shadows.
        nodes: how many; the same number of them, first to last, behaves the same among more.

    Raises:
        ConfigError: an unknown name.

    >>> set_up("nlos", seed=0).topology
    Topology(15 nodes, 210 links)
    """
    if name not in _PLANS:
        raise ConfigError(f"set-up {name!r} is not known; give one of: {', '.join(SET_UPS)}")
    plan = _PLANS[name]
    low_s, high_s = plan.mean_s
    return RadioWorld(
        # A round lasts a second here, so that metres per second are metres per round.
        RandomWalk(nodes, AREA_M, plan.step_m, leg_s=1.0, seed=seed),
        radio=ShannonRadio(plan.path_loss, noise_figure_db=plan.noise_figure_db, cap=plan.cap),
        processing=NormalProcessing(nodes, draw_means_s(nodes, low_s, high_s, seed=seed), plan.sd_s, seed=seed),
        budget_hz=plan.budget_hz,
        shadowing=Shadowing(plan.shadowing_db, seed) if plan.shadowing_db else None,
    )
