"""One step towards the requirement values: eqs. 5 to 8 of [1].

Every link that is not the straggler's goes the part alpha of its way; the straggler takes what is left of the row, in
weight (it loses) and in band (it gains). Alpha is one number, one per row, or one per link ([1] ¶48). Nothing here
chooses alpha or drops a link; that it is small enough is `step_size`'s affair, and refused here if it is not.

Letters as in `control.controller` and `requirements`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import TopologyError
from ..topology.rows import Floats, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control
from .requirements import Requirements

__all__ = ["Per", "Step", "move"]

#: What a step is given for: one number for all rows, float64 [nodes], or float64 [links].
Per = Literal["global", "row", "link"]

_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Step:
    """How far each entry goes: alpha in [0, 1].

    Attributes:
        alpha: of links: a number, or float64 [links].
        own: of W[i, i], where that may move: a number, or float64 [nodes].
    """

    alpha: float | Floats
    own: float | Floats

    @classmethod
    def of(cls, topology: Topology, alpha: float | Floats, per: Per, own: Floats | None = None) -> Step:
        """From a number, a step per row, or a step per link; `own` goes with the last."""
        if per == "global":
            return cls(float(alpha), float(alpha))
        values = np.asarray(alpha, np.float64)
        if per == "row":
            return cls(spread(values, topology.indptr), values)
        return cls(values, np.zeros(topology.nodes) if own is None else own)

    def scaled(self, topology: Topology, factor: Floats) -> Step:
        """Shorter in some rows, by a factor float64 [nodes]."""
        return Step(self.alpha * spread(factor, topology.indptr), self.own * factor)


def move(
    topology: Topology,
    control: Control,
    budget_hz: Floats,
    requirements: Requirements,
    step: Step,
) -> Control:
    """The control after one step.

        W[i, j] <- W + alpha (What - W),  B[i, j] <- B - alpha (B - Bhat)    j not s[i]    (8), (7)
        W[i, s] <- 1 - sum of the others, B[i, s] <- budget - sum of the others            (6), (5)

    The left halves of eqs. 5 and 6 are what is computed, so a row sums to 1 and to its budget after every step,
    however many went before. Stragglers that share a tie lose and gain equal parts.

    Raises:
        TopologyError: a step that takes more weight from a straggler than it has (eq. 4).
    """
    indptr = topology.indptr
    weights = requirements.weights_hat - control.weights
    weights *= step.alpha
    weights += control.weights
    bandwidth_hz = requirements.bandwidth_hat_hz - control.bandwidth_hz
    bandwidth_hz *= step.alpha
    bandwidth_hz += control.bandwidth_hz
    # A whole step ends at Bhat, which may be next to nothing; rounding must not make it nothing.
    np.maximum(bandwidth_hz, requirements.bandwidth_hat_hz, out=bandwidth_hz)

    self_weights = control.self_weights
    if requirements.self_weights_hat is not control.self_weights:
        self_weights = self_weights + step.own * (requirements.self_weights_hat - self_weights)

    if requirements.tied is not None:
        _share(topology, control, weights, bandwidth_hz, requirements, self_weights, budget_hz)
    rows = np.flatnonzero(requirements.straggler >= 0)
    at = requirements.straggler[rows]
    weights[at] = 0.0
    bandwidth_hz[at] = 0.0
    left = (1.0 - self_weights - sum_rows(weights, indptr))[rows]
    if (left < -_ROUNDING).any():
        i = int(rows[left.argmin()])
        raise TopologyError(
            f"the step would leave node {i} a weight of {left.min():.3g} for its straggler; the largest step it can "
            f"take is {requirements.alpha_max[i]:.3g}"
        )
    weights[at] = np.maximum(left, 0.0)
    bandwidth_hz[at] = np.maximum((budget_hz - sum_rows(bandwidth_hz, indptr))[rows], 0.0)
    if requirements.own_straggler is not None and requirements.own_straggler.any():
        rest = np.maximum(1.0 - sum_rows(weights, indptr), 0.0)
        self_weights = np.where(requirements.own_straggler, rest, self_weights)
    return Control(weights, self_weights, bandwidth_hz)


def _share(
    topology: Topology,
    control: Control,
    weights: Floats,
    bandwidth_hz: Floats,
    requirements: Requirements,
    self_weights: Floats,
    budget_hz: Floats,
) -> None:
    """In place: what the others of a row took in weight and gave up in band, in equal parts over the tied ones."""
    assert requirements.tied is not None
    indptr, tied = topology.indptr, requirements.tied
    many = np.maximum(sum_rows(tied.astype(np.float64), indptr), 1.0)
    lost = sum_rows(weights, indptr) + self_weights - 1.0
    gained_hz = budget_hz - sum_rows(bandwidth_hz, indptr)
    weights[tied] -= spread(lost / many, indptr)[tied]
    np.maximum(weights, 0.0, out=weights)
    bandwidth_hz[tied] += spread(gained_hz / many, indptr)[tied]
