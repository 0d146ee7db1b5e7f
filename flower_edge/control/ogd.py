"""Online gradient descent on f: the baseline "OGD" of [1] ¶51.

After each round the rows of W and of b = B / budget move against a subgradient of the f just seen, and are projected
back onto what a row may be: at least a floor on every link that carries data, summing to 1. f is a maximum, so its
subgradient lies in one link: the straggler's, of the whole network ("global") or of each row ("row": the sum of the
tau[i] is descended, which has the same minimiser, rows being separate).

The floors keep every link in use, and with it the network connected: a weight once at 0 would have no gradient to
bring it back.

Source: [1] ¶51 (without step sizes); M. Zinkevich, "Online convex programming and generalized
infinitesimal gradient ascent", ICML 2003.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..topology.rows import Floats, Indices, first_of_largest, largest_in_rows, spread, sum_rows
from ..topology.topology import Topology
from .baselines import equal_control
from .controller import Control, Observation, Start, State
from .costs import latencies_s, link_costs, self_costs
from .known import look, remember, seen, topology_of
from .resources import restored

__all__ = ["Ogd", "project_rows"]


def project_rows(
    values: Floats,
    indptr: Indices,
    allowed: npt.NDArray[np.bool_],
    diagonal: Floats | None = None,
    *,
    floor: float = 0.0,
) -> tuple[Floats, Floats]:
    """The nearest rows that sum to 1 with every allowed entry at least `floor` and every other one 0.

    Euclidean projection onto a simplex per row, all rows at once: what is above 1 is taken off all entries alike, those
    that fall below the floor stay on it, and the rest is taken off the others again (C. Michelot, "A finite algorithm
    for finding the projection of a point onto the canonical simplex of R^n", J. Optim. Theory Appl. 50, 1986).

    Args:
        values: float64 [links].
        indptr: where rows begin and end.
        allowed: entries that may be above 0, bool [links].
        diagonal: a further entry of every row, always allowed, float64 [nodes].
        floor: of each entry; lowered to 1 / (entries) in rows too long for it.

    Returns:
        The entries [links] and the diagonal [nodes] (zeros where none was given). A row without any allowed entry and
        without a diagonal is all 0.

    >>> project_rows(np.array([0.9, 0.5]), np.array([0, 2]), np.array([True, True]))[0]
    array([0.7, 0.3])
    """
    whole = diagonal is not None
    own = np.zeros(len(indptr) - 1) if diagonal is None else diagonal
    count = sum_rows(allowed.astype(np.float64), indptr) + whole
    low = np.minimum(floor, 1.0 / np.maximum(count, 1.0))
    room = np.where(count > 0, 1.0 - low * count, 0.0)
    # The nearest row is the same whatever is added to all entries: with the largest at 0 nothing large cancels.
    top = largest_in_rows(np.where(allowed, values, -np.inf), indptr)
    top = np.where(count > 0, np.fmax(top, own) if whole else top, 0.0)
    above, own_above = np.where(allowed, values - spread(top, indptr), 0.0), own - top
    # Without room every entry stays on its floor.
    roomy = room > 1e-15
    keep, own_keep = allowed & np.repeat(roomy, np.diff(indptr)), roomy & whole
    while True:
        in_play, own_in_play = keep, own_keep
        many = sum_rows(in_play.astype(np.float64), indptr) + own_in_play
        total = sum_rows(np.where(in_play, above, 0.0), indptr) + np.where(own_in_play, own_above, 0.0)
        excess = np.where(many > 0, (total - room) / np.maximum(many, 1.0), 0.0)
        keep, own_keep = in_play & (above > spread(excess, indptr)), own_in_play & (own_above > excess)
        if (keep == in_play).all() and (own_keep == own_in_play).all():
            break
    out = np.where(allowed, spread(low, indptr) + np.where(keep, above - spread(excess, indptr), 0.0), 0.0)
    own_out = np.where(whole, low + np.where(own_keep, own_above - excess, 0.0), 0.0)
    sums = sum_rows(out, indptr) + own_out
    scale = np.where(sums > 0.0, 1.0 / np.where(sums > 0.0, sums, 1.0), 0.0)
    return out * spread(scale, indptr), own_out * scale


@dataclass(frozen=True)
class Ogd:
    """Online gradient descent, from equal weights and bands.

    Args:
        subgradient: of the straggler of the network, "global", or of every row, "row".
        weight_step: step of W, 1/s.
        band_step: step of b = B / budget, 1/s.
        weight_floor: least weight of a link that carries data.
        band_floor: least part of its node's budget that such a link gets.

    The steps are those tuned for 15 nodes in a square of 500 m ([1] gives none).
    """

    subgradient: Literal["global", "row"] = "row"
    weight_step: float = 3e-3
    band_step: float = 1e-5
    weight_floor: float = 1e-4
    band_floor: float = 1e-4
    clairvoyant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.subgradient not in ("global", "row"):
            raise ConfigError(f"subgradient = {self.subgradient!r}: expected 'global' or 'row'")
        for name in ("weight_step", "band_step", "weight_floor", "band_floor"):
            if not (np.isfinite(value := getattr(self, name)) and value >= 0.0):
                raise ConfigError(f"{name} = {value}: expected a finite number, 0 or more")
        for name in ("weight_floor", "band_floor"):
            if getattr(self, name) == 0.0:
                raise ConfigError(f"{name} = 0: a link would lose weight and band apart; give it a little, 1e-6 say")

    def init(self, start: Start) -> tuple[Control, State]:
        """Equal weights and bands over the links that carry data."""
        control = equal_control(start.topology, start.budget_hz, start.spectral_efficiency > 0.0)
        return control, {"known": remember(start), "control": control.saved()}

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """One step against the subgradient of the last round's f."""
        known = look(state["known"], observation)
        topology, budget_hz, last = topology_of(known), known["budget_hz"], seen(known)
        control = restored(state["control"])
        with np.errstate(invalid="ignore"):
            carries = (last.spectral_efficiency > 0.0) & (spread(budget_hz, topology.indptr) > 0.0)
        along_w, along_own, along_b = self._subgradient(topology, control, budget_hz, last)
        weights, own = project_rows(
            control.weights - self.weight_step * along_w,
            topology.indptr,
            carries,
            control.self_weights - self.weight_step * along_own,
            floor=self.weight_floor,
        )
        whole_hz = spread(budget_hz, topology.indptr)
        b = np.where(carries, control.bandwidth_hz / np.where(carries, whole_hz, 1.0), 0.0)
        b, _ = project_rows(b - self.band_step * along_b, topology.indptr, carries, floor=self.band_floor)
        after = Control(weights, own, b * whole_hz)
        return after, {"known": known, "control": after.saved()}

    def _subgradient(
        self, topology: Topology, control: Control, budget_hz: Floats, last: Observation
    ) -> tuple[Floats, Floats, Floats]:
        """df/dW [links], df/dW[i, i] [nodes], df/db [links]: 0 but at stragglers."""
        costs = np.nan_to_num(link_costs(topology, control, last), nan=0.0, posinf=0.0)
        own = np.nan_to_num(self_costs(control, last), nan=0.0)
        at = first_of_largest(costs, topology.indptr)
        tau = np.where(at >= 0, costs[np.maximum(at, 0)] if len(costs) else 0.0, 0.0)
        by_link = (at >= 0) & (tau > own)
        rows = np.ones(topology.nodes, np.bool_)
        if self.subgradient == "global" and topology.nodes:
            rows = np.arange(topology.nodes) == int(np.maximum(tau, own).argmax())
        k = at[by_link & rows]
        along_w, along_b = np.zeros(topology.links), np.zeros(topology.links)
        latency_s = latencies_s(topology, control, last)
        along_w[k] = latency_s[k]
        # d(W C)/db = -W C / b
        transfer_s = last.transfer_s(topology, control.bandwidth_hz)
        along_b[k] = -control.weights[k] * transfer_s[k] * budget_hz[topology.receiver[k]] / control.bandwidth_hz[k]
        along_own = np.where(rows & ~by_link, np.nan_to_num(last.processing_s, nan=0.0), 0.0)
        return along_w, along_own, along_b
