"""Doubly stochastic weights on given links: rows and columns scaled until both sum to 1.

Where weights are row stochastic only, the limit is a weighted mean of all models ([1] keeps rows only). Scaled with
positive factors r, c to W[i, j] = r[i] A[i, j] c[j] with columns that sum to 1, too, it is the mean. Links and their
directions stay as they are. Nothing here chooses the weights it starts from; nothing is dense in nodes x nodes.

Factors exist, and W is unique, where every link and every self weight above 0 is part of a full assignment: a choice
of one link or self weight per row that takes every column once (total support). That is so wherever self weights are
above 0 and every link lies on a cycle; a strongly connected network with positive self weights always scales.

Sources: Sinkhorn, Knopp, "Concerning nonnegative matrices and doubly stochastic matrices", Pacific J. Math. 1967;
Knight, Ruiz, "A fast algorithm for matrix balancing", IMA J. Numer. Anal. 2013 (Newton's method with conjugate
gradients, whose steps do not grow with the time the network needs to mix as Sinkhorn's do).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching
from scipy.sparse.linalg import LinearOperator, cg

from ..errors import TopologyError
from .connectivity import components
from .rows import Floats, sum_rows
from .topology import Topology
from .weights import Weights

__all__ = ["require_scalable", "scaling", "sinkhorn"]

#: Rounds of plain scaling before Newton's method, and steps of that.
_PLAIN, _NEWTON = 20, 100


def sinkhorn(
    topology: Topology,
    weights: Floats,
    self_weights: Floats,
    *,
    tolerance: float = 1e-12,
    start: Floats | None = None,
) -> Weights:
    """The doubly stochastic weights nearest in proportion: 0 stays 0, above 0 stays above 0.

    Args:
        weights, self_weights: A, 0 or more; rows need not sum to 1.
        tolerance: columns sum to 1 to this; rows do to rounding.
        start: factors of the columns to begin with, from `scaling` of weights like these. float64 [nodes].

    Raises:
        TopologyError: no factors exist; names a link in the way. Or weights that are negative or not finite.

    >>> pair = Topology(2, receiver=[0, 1], sender=[1, 0])
    >>> sinkhorn(pair, np.array([1.0, 4.0]), np.array([1.0, 1.0]))
    (array([0.66666667, 0.66666667]), array([0.33333333, 0.33333333]))
    """
    rows, columns = scaling(topology, weights, self_weights, tolerance=tolerance, start=start)
    scaled, own = rows[topology.receiver] * weights * columns[topology.sender], rows * self_weights * columns
    sums = sum_rows(scaled, topology.indptr) + own
    return scaled / sums[topology.receiver], own / sums


def scaling(
    topology: Topology,
    weights: Floats,
    self_weights: Floats,
    *,
    tolerance: float = 1e-12,
    start: Floats | None = None,
) -> tuple[Floats, Floats]:
    """The factors of rows and of columns, float64 [nodes] each. Args, Raises: as `sinkhorn`."""
    require_scalable(topology, weights, self_weights)
    n = topology.nodes
    matrix = topology.matrix(weights, self_weights)
    turned = matrix.T.tocsr()
    columns = np.ones(n) if start is None else np.array(start, np.float64)
    if columns.shape != (n,) or not (np.isfinite(columns) & (columns > 0)).all():
        raise TopologyError(f"start: expected {n} factors above 0, as scaling() gives them")
    rows = np.ones(n)
    for step in range(_PLAIN + _NEWTON):
        rows = 1.0 / (matrix @ columns)
        sums = columns * (turned @ rows)
        if np.abs(sums - 1.0).max(initial=0.0) <= tolerance:
            return rows, columns
        columns = columns / sums
        if step >= _PLAIN:
            columns = _newton(matrix, turned, columns)
    raise TopologyError(f"columns still differ from 1 by {np.abs(sums - 1.0).max():.1e}; use a larger tolerance")


def _newton(matrix: sparse.csr_matrix, turned: sparse.csr_matrix, columns: Floats) -> Floats:
    """A Newton step on log c, shortened until it lowers what Sinkhorn's rounds lower: sum log(A c) - sum log c.

    With W = diag(1 / A c) A diag(c), the gradient is W^T 1 - 1 and the Hessian diag(W^T 1) - W^T W.
    """
    n = len(columns)
    rows = 1.0 / (matrix @ columns)

    def down(x: Floats) -> Floats:
        return np.asarray(columns * (turned @ (rows * x)))

    sums = down(np.ones(n))

    def hessian(x: Floats) -> Floats:
        x = np.ravel(x)
        return sums * x - down(rows * (matrix @ (columns * x)))

    gradient = sums - 1.0
    size = float(np.linalg.norm(gradient))
    # Steps need be no more exact than what is left to do.
    move, _ = cg(
        LinearOperator((n, n), matvec=hessian, dtype=np.float64),
        -gradient,
        rtol=min(0.1, max(size, 1e-3)),
        maxiter=500,
        M=sparse.diags(1.0 / sums, format="csr"),
    )
    before, slope = -np.log(rows).sum() - np.log(columns).sum(), float(gradient @ move)
    length = 1.0
    while length > 1e-3:
        trial = columns * np.exp(np.clip(length * move, -50.0, 50.0))
        if np.log(matrix @ trial).sum() - np.log(trial).sum() <= before + 1e-4 * length * slope + 1e-12 * n:
            return np.asarray(trial / np.exp(np.log(trial).mean()))
        length *= 0.5
    return columns


def require_scalable(topology: Topology, weights: Floats, self_weights: Floats) -> None:
    """Refuse weights that no factors make doubly stochastic.

    Raises:
        TopologyError: a weight that is negative or not finite; or a link that no doubly stochastic weights can use.
    """
    for name, values, size in (("weights", weights, topology.links), ("self_weights", self_weights, topology.nodes)):
        if values.shape != (size,) or not (np.isfinite(values) & (values >= 0.0)).all():
            raise TopologyError(f"{name}: expected {size} finite values, 0 or more, in the order of the topology")
    used = weights > 0.0
    if (self_weights > 0.0).all():
        labels = components(topology, used)
        between = used & (labels[topology.receiver] != labels[topology.sender])
        if between.any():
            k = int(between.argmax())
            raise TopologyError(
                f"link {topology.sender[k]} -> {topology.receiver[k]} lies on no cycle, so no doubly stochastic "
                "weights use it; give it weight 0, or add a way back"
            )
        return
    _require_total_support(topology, weights, self_weights)


def _require_total_support(topology: Topology, weights: Floats, self_weights: Floats) -> None:
    """With a full assignment on the diagonal, an entry is part of one if both its ends share a strong component."""
    matrix = topology.matrix(weights, self_weights)
    matrix.eliminate_zeros()
    row_of = maximum_bipartite_matching(matrix, perm_type="row")
    if (row_of < 0).any():
        i = int(self_weights.argmin())
        raise TopologyError(
            f"some nodes are heard by too few others for columns to sum to 1; give nodes without a self weight one "
            f"above 0 (node {i} has none)"
        )
    _, labels = connected_components(matrix[row_of], directed=True, connection="strong")
    entries = matrix.tocoo()
    place = np.empty(topology.nodes, np.int64)
    place[row_of] = np.arange(topology.nodes)
    apart = labels[place[entries.row]] != labels[entries.col]
    if apart.any():
        k = int(apart.argmax())
        i, j = int(entries.row[k]), int(entries.col[k])
        what = f"link {j} -> {i}" if i != j else f"the self weight of node {i}"
        nobody = int(self_weights.argmin())
        raise TopologyError(
            f"no doubly stochastic weights on these links use {what}; give nodes without a self weight one above 0 "
            f"(node {nobody} has none)"
        )
