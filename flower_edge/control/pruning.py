"""Dropping links that hardly count any more, and what becomes of their weight and band.

A link whose weight falls to a threshold asks to be dropped ([1] ¶37, ¶48), and so does one whose sender has been
silent for long; whether it may is decided over all rows, because the network has to stay connected. A link that
carries nothing any more is dropped whatever that does. Nothing here chooses a step.

Letters as in `control.controller`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..topology.rows import Floats, Indices, entries_of, smallest_in_rows, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Observation
from .link_memory import Known
from .min_max import min_max_bandwidth
from .moves import Step
from .requirements import Requirements
from .step_size import row_losses

__all__ = ["LEAST_WEIGHT", "HandOver", "Requests", "drop_links", "halved_at_most", "prune_requests"]

#: Whom the band of a dropped link goes to: all that remain, in proportion to what they have; or such that the node has
#: all its neighbours' models soonest, whatever their weights.
HandOver = Literal["proportional", "min-max"]

#: Below this, a weight is not told from 0 in a row that sums to 1 in floating point.
LEAST_WEIGHT = 1e-12


@dataclass(frozen=True, eq=False)
class Requests:
    """Links that ask to be dropped, each if its weight after the step, weight + slope alpha, is at most the limit.

    Attributes:
        link: int64 [requests].
        weight: before the step, float64 [requests].
        slope: what a step of 1 adds, float64 [requests]; below 0 for a straggler.
        always: asks whatever its weight, because its sender is silent; bool [requests].
        lost: carries nothing any more, so it goes whether the network likes it or not; bool [requests].
    """

    link: Indices
    weight: Floats
    slope: Floats
    always: npt.NDArray[np.bool_]
    lost: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.link)


def prune_requests(
    topology: Topology,
    control: Control,
    requirements: Requirements,
    known: Known,
    *,
    limit: float,
    furthest: float | Floats,
    steps: Step | None = None,
    silent_after: int | None = None,
    asleep: npt.NDArray[np.bool_] | None = None,
) -> Requests:
    """The links of some rows that may have to go after this step.

    Args:
        limit: the threshold.
        furthest: the longest step that can be taken: a number or float64 [nodes]. A straggler that stays above the
            limit even then does not ask.
        steps: where the node itself chooses a step per link, those; requests then say the weight afterwards.
        silent_after: rounds of silence after which a sender's link asks; None for never.
        asleep: links without weight that the server may wake up; they, too, say when they carry nothing any more.
            bool [links]; None for none.
    """
    limit = max(limit, LEAST_WEIGHT)
    weights = control.weights
    stragglers, least = _stragglers(topology, weights, requirements)
    rows = topology.receiver[stragglers]
    if steps is None:
        low = np.flatnonzero(weights <= limit)
        low = low[weights[low] > 0.0]
        with np.errstate(invalid="ignore"):
            slope = np.where(np.isfinite(requirements.alpha_max[rows]), -least / requirements.alpha_max[rows], 0.0)
        most = np.minimum(np.broadcast_to(furthest, (topology.nodes,))[rows], requirements.alpha_max[rows])
        asks = (weights[stragglers] + slope * most <= limit) & (slope < 0.0)
        links = np.concatenate([stragglers[asks], low])
        slopes = np.concatenate([slope[asks], requirements.weights_hat[low] - weights[low]])
        now = weights[links]
    else:
        after = weights + (requirements.weights_hat - weights) * steps.alpha
        taken = sum_rows(after - weights, topology.indptr)
        taken += (requirements.self_weights_hat - control.self_weights) * steps.own
        many = np.bincount(rows, minlength=topology.nodes)
        after[stragglers] -= (taken / np.maximum(many, 1))[rows]
        links = np.flatnonzero((after <= limit) & (weights > 0.0))
        slopes, now = np.zeros(len(links)), after[links]
    always, lost = _mute(control, known, silent_after, asleep)
    mute = np.concatenate([always, lost])
    # Of a link that is named twice the first counts.
    link, first = np.unique(np.concatenate([links, mute]), return_index=True)
    now = np.concatenate([now, weights[mute]])[first]
    slopes = np.concatenate([slopes, np.zeros(len(mute))])[first]
    return Requests(link, now, slopes, np.isin(link, always), np.isin(link, lost))


def _stragglers(topology: Topology, weights: Floats, requirements: Requirements) -> tuple[Indices, Floats]:
    """Links that lose weight in a step, and the least weight among those of their row."""
    if requirements.tied is None:
        links = requirements.straggler[np.isfinite(requirements.alpha_max) & (requirements.straggler >= 0)]
        return links, weights[links]
    links = np.flatnonzero(requirements.tied)
    least = smallest_in_rows(np.where(requirements.tied, weights, np.inf), topology.indptr)
    return links, least[topology.receiver[links]]


def _mute(
    control: Control, known: Known, silent_after: int | None, asleep: npt.NDArray[np.bool_] | None
) -> tuple[Indices, Indices]:
    """Links in use whose sender has been silent for long; those that carry nothing."""
    if known.heard is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    counted = control.in_use if asleep is None else control.in_use | asleep
    lost = np.flatnonzero(counted & np.isinf(known.need_hz_s))
    if silent_after is None or known.silent is None:
        return np.zeros(0, np.int64), lost
    return np.flatnonzero(control.in_use & (known.silent >= silent_after)), lost


def halved_at_most(
    topology: Topology, control: Control, requirements: Requirements, step: Step, refused: Indices
) -> Step:
    """The step, shortened in the rows of refused links so that each such straggler keeps half its weight or more.

    This is how a refused link gets back half of what it had: in its row, weight and band go only as far as that.
    """
    if not len(refused):
        return step
    links, least = _stragglers(topology, control.weights, requirements)
    here = np.isin(links, refused)
    if not here.any():
        return step
    rows, have = topology.receiver[links[here]], least[here]
    many = np.bincount(topology.receiver[links], minlength=topology.nodes)[rows]
    lost = row_losses(topology, control, requirements, step)[rows] / many
    may_lose = np.maximum(have - np.maximum(have / 2.0, LEAST_WEIGHT), 0.0)
    factor = np.ones(topology.nodes)
    factor[rows] = np.where(lost > may_lose, may_lose / np.where(lost > 0.0, lost, 1.0), 1.0)
    return step.scaled(topology, factor)


def drop_links(
    topology: Topology,
    control: Control,
    budget_hz: Floats,
    links: Indices,
    *,
    hand_over: HandOver = "proportional",
    known: Known | None = None,
) -> Control:
    """Without some links: their rows are scaled back to 1, their band goes to the links that remain.

    A row that loses its last link becomes e_i: the node listens to itself and its band lies idle.

    Args:
        links: int64, any number of them.
        known: P, D and S as last known; only for "min-max".
    """
    if not len(links):
        return control
    weights, bandwidth_hz = control.weights.copy(), control.bandwidth_hz.copy()
    weights[links] = 0.0
    bandwidth_hz[links] = 0.0
    rows = np.unique(topology.receiver[links])
    at, cuts = entries_of(rows, topology.indptr)
    kept = sum_rows(weights[at], cuts)
    own = np.where(kept <= 0.0, 1.0, control.self_weights[rows])
    scale = 1.0 / (kept + own)
    weights[at] *= spread(scale, cuts)
    self_weights = control.self_weights.copy()
    self_weights[rows] = own * scale
    used_hz = sum_rows(bandwidth_hz[at], cuts)
    grow = np.where(used_hz > 0.0, budget_hz[rows] / np.where(used_hz > 0.0, used_hz, 1.0), 1.0)
    bandwidth_hz[at] *= spread(grow, cuts)
    if hand_over == "min-max":
        bandwidth_hz = _soonest(topology, weights, bandwidth_hz, at, known)
    return Control(weights, self_weights, bandwidth_hz)


def _soonest(topology: Topology, weights: Floats, bandwidth_hz: Floats, at: Indices, known: Known | None) -> Floats:
    """Exact min-max split in some rows, of the links `at`, of the band that those which can be judged have there."""
    if known is None:
        raise ConfigError(
            'hand_over="min-max" needs to know delays where links are dropped; let nodes send them with their reports, '
            'or use "proportional"'
        )
    judged = np.zeros(topology.links, bool)
    judged[at] = weights[at] > 0.0
    judged &= np.isfinite(known.ready_s) & np.isfinite(known.need_hz_s)
    if known.heard is not None:
        judged &= known.heard
    shared_hz = sum_rows(np.where(judged, bandwidth_hz, 0.0), topology.indptr)
    seen = Observation(
        np.zeros(topology.nodes), 1.0 / known.need_hz_s, np.ones(topology.nodes), latency_s=known.ready_s
    )
    best_hz, _ = min_max_bandwidth(topology, judged, shared_hz, seen)
    return np.where(judged, best_hz, bandwidth_hz)
