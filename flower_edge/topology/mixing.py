"""Mixing: how fast consensus weights bring nodes together, and where to.

Numbers about a matrix W of weights; nothing here chooses it. Dense up to `DENSE` nodes, sparse iterations beyond.

Letters:
    W[i, j]   weight node i gives to node j's model; rows sum to 1
    pi        stationary distribution, pi W = pi, sum pi = 1: after many rounds every model is sum_j pi[j] x_j   [nodes]
    |x|_pi    sqrt(sum_i pi[i] |x_i|^2), the size of a disagreement as the limit weighs it

One round of W shrinks the disagreement about the limit m = sum_j pi[j] x_j at least by `second_singular_value`:

    |W x - 1 m|_pi  <=  sigma2 |x - 1 m|_pi

For doubly stochastic W, pi = 1 / N and sigma2 is the largest singular value of W - 1 1^T / N (Xiao, Boyd, "Fast linear
iterations for distributed averaging", Systems & Control Letters 2004). For W that is row stochastic only, it is the
same of D^(1/2) W D^(-1/2) with D = diag(pi) (Fill, "Eigenvalue bounds on convergence to stationarity for nonreversible
Markov chains", 1991). sigma2 can be 1 where W does mix in more than one round; `second_eigenvalue` says how fast it
does in the long run: [1] eq. 3 asks it to be below 1.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigs

from ..errors import TopologyError
from .connectivity import components
from .lanczos import first_vector, top_eigenpair
from .rows import Floats, sum_rows
from .topology import Topology

__all__ = [
    "DENSE",
    "averaging_rounds",
    "column_sums",
    "consensus_bias",
    "second_eigenvalue",
    "second_singular_value",
    "spectral_gap",
    "stationary",
]

#: Networks of up to so many nodes are solved densely.
DENSE = 200


def column_sums(topology: Topology, weights: Floats, self_weights: Floats) -> Floats:
    """What each node is given in total, by others and by itself; 1 where W is doubly stochastic. float64 [nodes]."""
    return np.asarray(np.bincount(topology.sender, weights=weights, minlength=topology.nodes) + self_weights)


def stationary(topology: Topology, weights: Floats, self_weights: Floats) -> Floats:
    """pi: how much each node's model counts in the consensus. float64 [nodes], sums to 1.

    Raises:
        TopologyError: rows do not sum to 1; or there is no single consensus, because two groups never hear each other.

    >>> loud = Topology(2, receiver=[0, 1], sender=[1, 0])
    >>> stationary(loud, np.array([0.1, 0.3]), np.array([0.9, 0.7]))
    array([0.75, 0.25])
    """
    _check_rows(topology, weights, self_weights)
    labels = components(topology, weights != 0.0)
    listens = np.zeros(int(labels.max(initial=-1)) + 1, bool)
    outside = (weights != 0.0) & (labels[topology.receiver] != labels[topology.sender])
    listens[labels[topology.receiver[outside]]] = True
    closed = np.flatnonzero(~listens)
    if len(closed) != 1:
        first, second = (int((labels == label).argmax()) for label in closed[:2])
        raise TopologyError(
            f"nodes {first} and {second} belong to groups that never hear each other ({len(closed)} such groups): "
            "they reach no common model"
        )
    members = np.flatnonzero(labels == closed[0])
    whole = topology.matrix(weights, self_weights)
    out = np.zeros(topology.nodes)
    out[members] = _stationary(whole if len(members) == topology.nodes else whole[members][:, members].tocsr())
    return out


def consensus_bias(topology: Topology, weights: Floats, self_weights: Floats) -> float:
    """max |N pi - 1|: how far the most or least heard node is from counting like all others. 0 for doubly stochastic.

    Infinite where nodes reach no common model at all.
    """
    _check_rows(topology, weights, self_weights)
    try:
        pi = stationary(topology, weights, self_weights)
    except TopologyError:
        return math.inf
    return float(np.abs(topology.nodes * pi - 1.0).max())


def second_singular_value(topology: Topology, weights: Floats, self_weights: Floats) -> float:
    """sigma2: what is left of a disagreement after one round, at most, in the norm of the limit (see above).

    1 where the links in use do not connect all nodes. Beyond `DENSE` nodes found by Lanczos iterations to a tenth of
    1 - sigma2 or better. Weights may be negative if columns sum to 1, too.

    >>> pair = Topology.complete(2)
    >>> second_singular_value(pair, np.full(2, 0.25), np.full(2, 0.75))
    0.5
    """
    n = topology.nodes
    if n <= 1:
        return 0.0
    _check_rows(topology, weights, self_weights)
    if np.abs(column_sums(topology, weights, self_weights) - 1.0).max() <= 1e-12:
        root = np.full(n, math.sqrt(1.0 / n))
        scaled = topology.matrix(weights, self_weights)
    else:
        if _pieces(topology, weights) > 1:
            return 1.0
        root = np.sqrt(stationary(topology, weights, self_weights))
        scaled = topology.matrix(root[topology.receiver] * weights / root[topology.sender], self_weights)
    if n <= DENSE:
        return float(np.linalg.norm(scaled.toarray() - np.outer(root, root), 2).round(15))
    turned, start = scaled.T.tocsr(), first_vector(n)
    # M^T M without the eigenvector `root`, whose eigenvalue is 1.
    square, _ = top_eigenpair(lambda x: turned @ (scaled @ x) - root * (root @ x), start - root * (root @ start), 1.0)
    return math.sqrt(max(square, 0.0))


def spectral_gap(topology: Topology, weights: Floats, self_weights: Floats) -> float:
    """1 - sigma2: 0 does not mix, 1 agrees after one round."""
    return 1.0 - second_singular_value(topology, weights, self_weights)


def second_eigenvalue(topology: Topology, weights: Floats, self_weights: Floats) -> float:
    """Spectral radius of W - 1 pi: what is left of a disagreement per round, in the long run. [1] eq. 3 as read here.

    1 where nodes reach no common model. Never above sigma2.
    """
    n = topology.nodes
    if n <= 1:
        return 0.0
    _check_rows(topology, weights, self_weights)
    try:
        pi = stationary(topology, weights, self_weights)
    except TopologyError:
        return 1.0
    matrix = topology.matrix(weights, self_weights)
    if n <= DENSE:
        return float(np.abs(np.linalg.eigvals(matrix.toarray() - pi)).max().round(15))
    less = LinearOperator((n, n), matvec=lambda x: matrix @ x - (pi @ x), dtype=np.float64)
    return float(np.abs(eigs(less, k=1, which="LM", v0=first_vector(n), return_eigenvectors=False, tol=1e-6)[0]))


def averaging_rounds(second_singular_value: float, error: float) -> int:
    """Rounds of a doubly stochastic W until the distance to the mean is `error` of what it was: [1] ¶43.

    ceil(log(1 / error) / -log(sigma2)).

    Raises:
        TopologyError: sigma2 of 1 or more, which never gets there; an error outside (0, 1).

    >>> averaging_rounds(0.5, 1e-3)
    10
    """
    if not 0.0 < error < 1.0:
        raise TopologyError(f"error = {error}: expected a share of the distance, between 0 and 1")
    if second_singular_value >= 1.0:
        raise TopologyError(f"a second singular value of {second_singular_value} never averages; connect the nodes")
    if second_singular_value <= 0.0:
        return 1
    return max(1, math.ceil(math.log(error) / math.log(second_singular_value)))


# -- how -------------------------------------------------------------------------------------------------------------


def _check_rows(topology: Topology, weights: Floats, self_weights: Floats) -> None:
    if weights.shape != (topology.links,) or self_weights.shape != (topology.nodes,):
        raise TopologyError(
            f"weights {weights.shape} and self weights {self_weights.shape}: expected one for each of {topology.links} "
            f"links and one for each of {topology.nodes} nodes"
        )
    sums = sum_rows(weights, topology.indptr) + self_weights
    wrong = ~(np.abs(sums - 1.0) <= 1e-9)
    if wrong.any():
        i = int(wrong.argmax())
        raise TopologyError(f"the weights of node {i} sum to {sums[i]!r}, expected 1")


def _pieces(topology: Topology, weights: Floats) -> int:
    return int(components(topology, weights != 0.0).max()) + 1


def _stationary(matrix: sparse.csr_matrix) -> Floats:
    """Of an irreducible W."""
    n = matrix.shape[0]
    if n <= DENSE:
        pi = np.linalg.solve(np.eye(n) - matrix.toarray().T + 1.0 / n, np.full(n, 1.0 / n))
        return np.asarray(pi / pi.sum())
    turned = matrix.T.tocsr()
    pi = np.full(n, 1.0 / n)
    if np.abs(turned @ pi - pi).max() > 1e-14 / n:
        _, vectors = eigs(turned, k=1, which="LR", v0=pi, tol=0.0)
        pi = np.abs(vectors[:, 0].real)
        pi /= pi.sum()
    return pi
