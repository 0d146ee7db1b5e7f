"""Controllers by name, each with the arguments recommended for it: what scenarios, sweeps and benchmarks compare.

A short table and nothing more: whoever wants other arguments makes the controller. docs/controllers.md and
docs/controllers_beyond.md say what each is good for.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from ..errors import ConfigError
from .auto import Auto
from .baselines import DynamicOpt, Equal, NoComm, Static
from .controller import Controller
from .dcent import Dcent
from .doubly import DoublyStochastic
from .matcha import Matcha
from .ogd import Ogd
from .planned import ClosedForm, MinMax
from .schedules import BaseKPlus1, OnePeerExponential
from .true_time import Sparse, TimeOptimal

__all__ = ["CONTROLLERS", "Named", "find", "make_controller", "pruning_below"]


@dataclass(frozen=True)
class Named:
    """A controller of the table.

    Attributes:
        says: what it does, in a line.
        make: makes one, from a seed that only those use which draw.
    """

    says: str
    make: Callable[[int], Controller]


#: By name, baselines first.
CONTROLLERS: Final[Mapping[str, Named]] = {
    "equal": Named("EQUAL of [1]: the same weight and band for every neighbour", lambda seed: Equal()),
    "nocomm": Named("NoComm of [1]: every node keeps its own model", lambda seed: NoComm()),
    "static": Named("the optimum for what is known at the start, unchanged", lambda seed: Static()),
    "ogd": Named("OGD of [1], a subgradient step in every row", lambda seed: Ogd("row")),
    "ogd-global": Named("OGD of [1], a step in the row of the slowest link only", lambda seed: Ogd("global")),
    "dcent": Named("DCENT of [1], recommended reading: small steps, all links stay", lambda seed: Dcent()),
    "dcent-literal": Named(
        "DCENT as printed: the row's own P, eq. 2 with the whole budget",
        lambda seed: Dcent.literal(),
    ),
    "dcent-split": Named(
        "DCENT with the slack split between weight and band: no round gets worse while nothing changes",
        lambda seed: Dcent(theta=0.5, step_cap=0.03),
    ),
    "dcent-pruned": Named(
        "DCENT that gives up links of little weight", lambda seed: Dcent(step_cap=0.03, prune_below=0.03)
    ),
    "dcent-plus": Named(
        "the links of dcent-pruned, doubly stochastic, with the bandwidth that ends rounds soonest",
        lambda seed: MinMax(DoublyStochastic(Dcent(step_cap=0.03, prune_below=0.03))),
    ),
    "closed-form": Named("the weighted optimum of the round that is forecast", lambda seed: ClosedForm()),
    "min-max": Named("all links, with the bandwidth that ends rounds soonest", lambda seed: MinMax()),
    "sparse": Named("a few cheap neighbours and a spanning tree, fastest symmetric weights", lambda seed: Sparse()),
    "time-optimal": Named("the links for which time times rounds is least", lambda seed: TimeOptimal(seed=seed)),
    "time-optimal-80": Named(
        "the shortest rounds with a second singular value of at most 0.80",
        lambda seed: TimeOptimal(bound=0.80, seed=seed),
    ),
    "one-peer": Named("one peer per round, another one in the next", lambda seed: OnePeerExponential(seed=seed)),
    "base-k": Named("one peer per round, exact consensus in a few rounds", lambda seed: BaseKPlus1(seed=seed)),
    "matcha": Named("in each round some matchings of a sparse network", lambda seed: Matcha(seed=seed)),
    "auto": Named("the one of these that the measured radio and delays favour", lambda seed: Auto(seed=seed)),
    "optimum": Named("Dynamic OPT of [1], which knows every round beforehand: a comparator", lambda seed: DynamicOpt()),
}


def find(name: str) -> Named:
    """An entry of the table.

    Raises:
        ConfigError: no controller of this name.
    """
    if name not in CONTROLLERS:
        near = difflib.get_close_matches(name, CONTROLLERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(CONTROLLERS)}"
        raise ConfigError(f"unknown controller {name!r}; {hint}")
    return CONTROLLERS[name]


def make_controller(name: str, *, seed: int = 0) -> Controller:
    """A controller by name.

    Args:
        name: a key of `CONTROLLERS`.
        seed: of those that draw.

    Raises:
        ConfigError: no controller of this name.

    >>> make_controller("equal")
    Equal()
    """
    return find(name).make(seed)


def pruning_below(controller: Controller, weight: float) -> Controller:
    """The same controller, giving up links whose weight falls to `weight`; 0 keeps them all.

    Raises:
        ConfigError: neither it nor a controller inside it prunes by weight.

    >>> pruning_below(make_controller("dcent"), 0.05).prune_below
    0.05
    """
    changed: Controller | None = _pruning_below(controller, weight)
    if changed is None:
        raise ConfigError(
            f"{controller!r} does not prune by weight; take one that does, such as 'dcent', or leave it out"
        )
    return changed


def _pruning_below(controller: Any, weight: float) -> Any:
    if not is_dataclass(controller) or isinstance(controller, type):
        return None
    names = {field.name for field in fields(controller)}
    if "prune_below" in names:
        return replace(controller, prune_below=weight)
    inner = _pruning_below(getattr(controller, "inner", None), weight)
    return None if inner is None else replace(controller, inner=inner)
