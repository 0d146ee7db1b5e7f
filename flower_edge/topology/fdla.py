"""FDLA: the symmetric weights on given links with which disagreement shrinks fastest per round.

    minimise sigma2 = | W - 1 1^T / N |   over   W = I - sum_e w[e] (e_a - e_b)(e_a - e_b)^T

`nonnegative` asks for w >= 0 and W[i, i] >= 0, too: the fastest mixing Markov chain (FMMC), which is what a network of
nodes that average models wants, and the default. Without it, weights may be negative and mix faster still.

Two ways to the same optimum: an interior point method (`barrier`) where there are up to `EXACT` edges, and projected
subgradients beyond, one extremal eigenpair per step. Nothing here looks at radio or clocks.

Sources: Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control Letters 2004; Boyd,
Diaconis, Xiao, "Fastest mixing Markov chain on a graph", SIAM Review 2004.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..errors import TopologyError
from .barrier import fastest_edge_weights
from .connectivity import require_connected
from .lanczos import first_vector, top_eigenpair
from .mixing import DENSE
from .rows import Floats, Indices, sum_rows
from .topology import Topology
from .weights import Weights, require_symmetric

__all__ = ["EXACT", "fdla"]

#: Edges up to which `fdla` solves to the end by default.
EXACT = 150


def fdla(
    topology: Topology,
    in_use: npt.NDArray[np.bool_] | None = None,
    *,
    nonnegative: bool = True,
    method: Literal["auto", "exact", "subgradient"] = "auto",
    steps: int = 400,
) -> Weights:
    """The symmetric weights that mix fastest; columns sum to 1 as rows do.

    A weight may come out as 0: that link does not help. Deterministic.

    Args:
        in_use: links that may have weight, bool [links]; all by default.
        nonnegative: W >= 0 everywhere (FMMC). Off: any sign (FDLA).
        method: `exact`, to 1e-5 of the least sigma2, dense; `subgradient`, mostly to a percent, sparse; `auto`, the
            first up to `EXACT` edges.
        steps: of the subgradient method; the best of them is kept.

    Returns:
        weights, float64 [links], and self weights, float64 [nodes].

    Raises:
        TopologyError: a link exists in one direction only; or the network is in pieces.

    >>> weights, own = fdla(Topology.complete(4))
    >>> np.abs(weights - 0.25).max() < 1e-6
    np.True_
    """
    if method not in ("auto", "exact", "subgradient"):
        raise TopologyError(f"method = {method!r}: expected 'auto', 'exact' or 'subgradient'")
    require_symmetric(topology, in_use)
    require_connected(topology, in_use)
    first = topology.receiver < topology.sender
    edges = np.flatnonzero(first if in_use is None else first & in_use)
    a, b = topology.receiver[edges], topology.sender[edges]
    if len(edges) == 0:
        w = np.zeros(0)
    elif method == "exact" or (method == "auto" and len(edges) <= EXACT):
        w, _ = fastest_edge_weights(topology.nodes, a, b, nonnegative=nonnegative)
        w[np.abs(w) < 1e-6] = 0.0  # the method stays inside of w > 0
    else:
        w = _subgradient(topology.nodes, a, b, nonnegative, steps)
    weights = np.zeros(topology.links)
    weights[edges] = weights[topology.reverse_link[edges]] = w
    own = 1.0 - sum_rows(weights, topology.indptr)
    own[np.abs(own) < 1e-14] = 0.0
    return weights, own


def _subgradient(nodes: int, a: Indices, b: Indices, nonnegative: bool, steps: int) -> Floats:
    """Best of `steps` steps of length 1 / sqrt(k), from Metropolis weights."""
    degree = np.bincount(a, minlength=nodes) + np.bincount(b, minlength=nodes)
    w = 1.0 / (1.0 + np.maximum(degree[a], degree[b]))
    length = 0.5 * float(np.linalg.norm(w))
    prices = np.zeros(nodes)
    best, least = w, math.inf
    for k in range(steps):
        norm, slope = _norm_and_slope(nodes, a, b, w)
        if norm < least:
            best, least = w, norm
        size = float(np.linalg.norm(slope))
        if size <= 1e-12:
            break
        w = w - length / math.sqrt(k + 1.0) * slope / size
        if nonnegative:
            w, prices = _project(nodes, a, b, w, prices, 1.0 / (2.0 * float(degree.max())))
    return np.asarray(best)


def _norm_and_slope(nodes: int, a: Indices, b: Indices, w: Floats) -> tuple[float, Floats]:
    """|X| of X = W - 1 1^T / N, and a subgradient: for singular vectors X u = |X| v, -(u_a - u_b)(v_a - v_b)."""
    own = 1.0 - np.bincount(a, w, nodes) - np.bincount(b, w, nodes)
    ends = np.arange(nodes)
    rows, columns = np.concatenate([a, b, ends]), np.concatenate([b, a, ends])
    matrix = sparse.csr_matrix((np.concatenate([w, w, own]), (rows, columns)), shape=(nodes, nodes))
    if nodes <= DENSE:
        values, vectors = np.linalg.eigh(matrix.toarray() - 1.0 / nodes)
        at = int(np.abs(values).argmax())
        u = vectors[:, at]
        norm, v = float(abs(values[at])), u * math.copysign(1.0, values[at])
    else:
        reach = float((np.bincount(a, np.abs(w), nodes) + np.bincount(b, np.abs(w), nodes) + np.abs(own)).max())

        def less(x: Floats) -> Floats:
            return np.asarray(matrix @ x - x.mean())

        square, u = top_eigenpair(lambda x: less(less(x)), first_vector(nodes), max(reach, 1.0) ** 2)
        norm = math.sqrt(max(square, 0.0))
        v = less(u) / max(norm, 1e-300)
    return norm, -(u[a] - u[b]) * (v[a] - v[b])


def _project(nodes: int, a: Indices, b: Indices, w: Floats, prices: Floats, pace: float) -> tuple[Floats, Floats]:
    """The nearest w >= 0 with a sum of at most 1 around each node, by raising a price where it is above.

    `prices` of the last call are where this one begins; what they leave above 1 is scaled away.
    """

    def around(weights: Floats) -> Floats:
        return np.asarray(np.bincount(a, weights, nodes) + np.bincount(b, weights, nodes))

    for _ in range(30):
        inside = np.maximum(w - prices[a] - prices[b], 0.0)
        prices = np.maximum(prices + pace * (around(inside) - 1.0), 0.0)
    inside = np.maximum(w - prices[a] - prices[b], 0.0)
    over = np.maximum(around(inside), 1.0)
    return inside / np.maximum(over[a], over[b]), prices
