"""Consensus weights: how much each node listens to each neighbour, chosen from the graph alone.

Functions from a topology to `(weights [links], self_weights [nodes])`, rows summing to 1. Nothing here looks at radio,
clocks or data; optimised weights have a module of their own (`fdla`).

Every function takes `in_use`, bool [links], and gives weight 0 to every other link; degrees count links in use only.

Letters:
    W[i, j]   weight node i gives to node j's model   [links]; W[i, i] in `self_weights`   [nodes]
    d[i]      number of neighbours of node i          [nodes]

| | doubly stochastic | graph | what a node must know |
|---|---|---|---|
| `equal` | only where all nodes have as many neighbours | any | its own degree |
| `metropolis` | yes | symmetric | its and its neighbours' degrees |
| `max_degree` | yes | symmetric | the largest degree |
| `best_constant` | yes | symmetric, connected | two eigenvalues of the whole graph |

Sources: Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control Letters 2004; Xiao, Boyd,
Lall, "A scheme for robust distributed sensor fusion based on average consensus", IPSN 2005.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..errors import TopologyError
from .connectivity import require_connected
from .lanczos import first_vector, top_eigenpair
from .mixing import DENSE
from .rows import Floats, spread, sum_rows
from .topology import Topology

__all__ = ["Weights", "best_constant", "equal", "max_degree", "metropolis", "require_symmetric"]

Mask = npt.NDArray[np.bool_]
#: W over links, float64 [links], and its diagonal, float64 [nodes].
Weights: TypeAlias = tuple[Floats, Floats]


def equal(topology: Topology, in_use: Mask | None = None) -> Weights:
    """A node's own model and those of its neighbours count the same: W[i, j] = W[i, i] = 1 / (1 + d[i]).

    On a complete graph this is 1 1^T / N, the EQUAL of [1] ¶52. Elsewhere a node with many neighbours counts for more
    in the limit: rows sum to 1, columns need not.

    >>> equal(Topology.complete(4))[0][:3]
    array([0.25, 0.25, 0.25])
    """
    used = _used(topology, in_use)
    share = 1.0 / (1.0 + sum_rows(used, topology.indptr))
    return used * spread(share, topology.indptr), share


def metropolis(topology: Topology, in_use: Mask | None = None, *, lazy: bool = True) -> Weights:
    """Weights a node can compute from its own degree and its neighbours': the rarer of the two equal shares.

    W[i, j] = 1 / (1 + max(d[i], d[j])) on every link; W[i, i] takes the rest, and so is above 0.

    Args:
        in_use: links to give weight to; all by default.
        lazy: without the 1 (Xiao, Boyd 2004) some W[i, i] are 0, and a graph without odd cycles does not mix.

    Raises:
        TopologyError: a link exists in one direction only.

    >>> metropolis(Topology(3, receiver=[0, 1, 1, 2], sender=[1, 0, 2, 1]))[1]  # 0 - 1 - 2
    array([0.66666667, 0.33333333, 0.66666667])
    """
    require_symmetric(topology, in_use)
    used = _used(topology, in_use)
    # The smaller share is the one of the larger degree.
    share = 1.0 / np.maximum(float(lazy) + sum_rows(used, topology.indptr), 1.0)
    weights = np.minimum(spread(share, topology.indptr), share[topology.sender])
    weights *= used
    return weights, _rest(topology, weights)


def max_degree(topology: Topology, in_use: Mask | None = None, *, lazy: bool = True) -> Weights:
    """One weight for all links: W[i, j] = 1 / (1 + max d); W[i, i] takes the rest.

    Args, Raises: as `metropolis`.
    """
    require_symmetric(topology, in_use)
    used = _used(topology, in_use)
    largest = float(sum_rows(used, topology.indptr).max(initial=0.0))
    weights = used / max(float(lazy) + largest, 1.0)
    return weights, _rest(topology, weights)


def best_constant(topology: Topology, in_use: Mask | None = None, *, nonnegative: bool = True) -> Weights:
    """The one weight for all links that mixes fastest: 2 / (largest + second smallest eigenvalue of the Laplacian).

    Optimal among all symmetric weights where every link looks like every other one (rings, stars, hypercubes).

    Args:
        in_use: links to give weight to; all by default.
        nonnegative: hold the weight at 1 / max d, so that no W[i, i] is below 0. Off, a star's centre has one.

    Raises:
        TopologyError: a link exists in one direction only; or the network is in pieces.

    >>> best_constant(Topology.complete(4))[0][:3].round(12)
    array([0.25, 0.25, 0.25])
    """
    require_symmetric(topology, in_use)
    require_connected(topology, in_use)
    used = _used(topology, in_use)
    if not used.any():
        return used, np.ones(topology.nodes)
    degree = sum_rows(used, topology.indptr)
    smallest, largest = _laplacian_ends(topology.matrix(used), degree)
    weight = 2.0 / (smallest + largest)
    if nonnegative:
        weight = min(weight, 1.0 / float(degree.max()))
    weights = used * weight
    return weights, _rest(topology, weights)


def require_symmetric(topology: Topology, in_use: Mask | None = None) -> None:
    """Refuse a graph with one-way links.

    Raises:
        TopologyError: names the first of them.
    """
    back = topology.reverse_link
    alone = back < 0
    if in_use is not None:
        alone = in_use & (alone | ~in_use[back])
    if alone.any():
        k = int(alone.argmax())
        j, i = topology.sender[k], topology.receiver[k]
        raise TopologyError(
            f"edge {j} -> {i} exists in one direction only; add {i} -> {j}, or use equal() and sinkhorn(), which take "
            "directed graphs"
        )


def _used(topology: Topology, in_use: Mask | None) -> Floats:
    if in_use is None:
        return np.ones(topology.links)
    if in_use.shape != (topology.links,):
        raise TopologyError(f"in_use has shape {in_use.shape}, expected one value for each of {topology.links} links")
    return in_use.astype(np.float64)


def _rest(topology: Topology, weights: Floats) -> Floats:
    """What is left of each row. A rounding error below 0 is 0."""
    rest = 1.0 - sum_rows(weights, topology.indptr)
    rest[np.abs(rest) < 1e-15 * (1.0 + topology.in_degree)] = 0.0
    return rest


def _laplacian_ends(adjacency: sparse.csr_matrix, degree: Floats) -> tuple[float, float]:
    """Second smallest and largest eigenvalue of D - A of a connected graph."""
    n = len(degree)
    laplacian = (sparse.diags(degree, format="csr") - adjacency).tocsr()
    if n <= DENSE:
        ends = np.linalg.eigvalsh(laplacian.toarray())
        return float(ends[1]), float(ends[-1])
    start = first_vector(n)
    start -= start.mean()
    bound = 2.0 * float(degree.max())
    largest, _ = top_eigenpair(lambda x: laplacian @ x, start, bound * (1.0 + 1e-3))
    # Turned round, and without the constant vector, whose eigenvalue is 0.
    top, _ = top_eigenpair(lambda x: largest * (x - x.mean()) - laplacian @ x, start, largest)
    return largest - top, largest
