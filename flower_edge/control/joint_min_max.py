"""Exact joint min-max: several resources shared out together so that each node's wait ends soonest.

`min_max` for a vector of resources. For a row, the least T for which there are amounts with

    ready[j] + sum_r a[r, j] / x[r, j] <= T  for all j,     sum_j x[r, j] <= X[r]  for all r.

How much of which resource each link is given looks like a search over splits; it is not. Let lambda[r] be the price of
resource r. A link that has t = T - ready seconds pays least if it spends them in proportion to sqrt(lambda[r] a[r]); it
then needs x[r] = sqrt(a[r] / lambda[r]) (sum_q sqrt(lambda[q] a[q])) / t. That the amounts of all links sum to X[r] is,
with s[r, j] = sqrt(a[r, j] / X[r]) and u[r] = sqrt(lambda[r] X[r]),

    K(T) u = u,     K[r, q](T) = sum_j s[r, j] s[q, j] / (T - ready[j]),

K a symmetric matrix with an entry per pair of resources, none negative: u is its Perron vector, and T is where its
largest eigenvalue passes through 1. Its reciprocal is concave in T (the least of many 1 / sum(1 / t), each concave), so
Newton's method from below never passes the root and ends at machine precision; with one resource it is `min_max`'s,
step for step. Derived here, not in [1].

Resources that no link of a row needs together do not bind one another: each such group of a row gets its own T.
Letters as in `control.resources`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..topology.rows import Floats, Indices, largest_in_rows, spread, sum_rows
from ..topology.topology import Topology

__all__ = ["joint_min_max"]

_PASSES = 200


def joint_min_max(
    topology: Topology, in_use: npt.NDArray[np.bool_], budgets: Floats, needs: Floats, ready_s: Floats
) -> tuple[Floats, Floats]:
    """The amounts with which each node has all its neighbours' models soonest, and when that is.

    Args:
        topology: the links.
        in_use: those that share the resources, bool [links].
        budgets: X, float64 [resources, nodes].
        needs: a, float64 [resources, links].
        ready_s: what no resource can shorten, float64 [links].

    Returns:
        x, float64 [resources, links]; a row sums to its budget where one of its links needs the resource. A link that
        is not in use, or whose need or ready time is not finite, or that needs what its node has none of, gets none.
        T, float64 [nodes], seconds; 0 where there is nothing to wait for.

    >>> pair = Topology(3, receiver=[0, 0], sender=[1, 2])  # node 1's model is long, node 2's is hard to decode
    >>> needs = np.array([[9.0, 1.0], [1.0, 9.0]])
    >>> joint_min_max(pair, np.array([True, True]), np.full((2, 3), 8.0), needs, np.zeros(2))
    (array([[6., 2.],
           [2., 6.]]), array([2., 0., 0.]))
    """
    count = len(needs)
    limits = np.array([spread(budget, topology.indptr) for budget in budgets]).reshape(count, topology.links)
    taken = in_use & np.isfinite(ready_s) & (np.isfinite(needs) & ((needs == 0.0) | (limits > 0.0))).all(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(taken & (needs > 0.0), np.sqrt(needs / limits), 0.0)
    active = s.any(axis=0)

    # The links of a group lie together, groups of a row one after the other.
    group = _groups(topology, s)
    order = np.flatnonzero(active)[np.argsort(group[active], kind="stable")]
    indptr = np.zeros(topology.nodes * count + 1, np.int64)
    np.cumsum(np.bincount(group[order], minlength=topology.nodes * count), out=indptr[1:])
    x, until_s = _solve(s[:, order], ready_s[order], indptr)

    amounts = np.zeros_like(needs)
    amounts[:, order] = x
    for r in range(count):
        total = sum_rows(amounts[r], topology.indptr)
        amounts[r] *= spread(budgets[r] / np.where(total > 0.0, total, 1.0), topology.indptr)
    waits_s = until_s.reshape(topology.nodes, count).max(axis=1, initial=-np.inf)
    # A link that needs nothing is not waited for longer than until it is ready.
    waits_s = np.maximum(waits_s, largest_in_rows(np.where(taken, ready_s, -np.inf), topology.indptr))
    return amounts, np.where(np.isfinite(waits_s), waits_s, 0.0)


def _solve(s: Floats, ready_s: Floats, indptr: Indices) -> tuple[Floats, Floats]:
    """x up to a factor per resource and row [resources, links], T of each group (-inf for an empty one) [groups]."""
    count = len(s)
    last_s = largest_in_rows(ready_s, indptr)
    busy = np.isfinite(last_s)
    early_s = spread(last_s, indptr) - ready_s
    # T = last + after, counted from the last sender, so that nothing cancels where the resources are plenty.
    alone_s = np.einsum("rl,rl->l", s, s)
    after = np.where(busy, largest_in_rows(alone_s - early_s, indptr), 1.0)
    pairs = [(r, q, s[r] * s[q]) for r in range(count) for q in range(r, count)]
    K = np.zeros((len(after), count, count))
    u = np.ones((len(after), count))
    for _ in range(_PASSES):
        t = spread(after, indptr) + early_s
        for r, q, product in pairs:
            K[:, r, q] = K[:, q, r] = sum_rows(product / t, indptr)
        largest, u = _perron(K)
        paid = np.einsum("rl,lr->l", s, np.repeat(u, np.diff(indptr), axis=0))
        slope = sum_rows((paid / t) ** 2, indptr)
        rise = np.where(busy & (largest > 1.0), (largest - 1.0) * largest / np.where(slope > 0.0, slope, 1.0), 0.0)
        after = after + rise
        if (rise <= 4e-16 * (after + np.where(busy, np.abs(last_s), 0.0) * 1e-3)).all():
            break
    t = spread(after, indptr) + early_s
    per_link = np.repeat(u, np.diff(indptr), axis=0).T
    paid = np.einsum("rl,rl->l", s, per_link)
    x = np.divide(s * paid / t, per_link, out=np.zeros_like(s), where=s > 0.0)
    return x, np.where(busy, last_s + after, -np.inf)


def _perron(K: Floats) -> tuple[Floats, Floats]:
    """Largest eigenvalue [groups] and its vector, none of it negative [groups, resources], of symmetric matrices."""
    count = K.shape[1]
    if count == 1:
        return K[:, 0, 0], np.ones((len(K), 1))
    if count == 2:
        half, cross = (K[:, 0, 0] - K[:, 1, 1]) / 2.0, K[:, 0, 1]
        root = np.hypot(half, cross)
        first = np.where(half >= 0.0, half + root, cross)
        second = np.where(half >= 0.0, cross, root - half)
        length = np.hypot(first, second)
        u = np.stack([first, second], axis=1) / np.where(length > 0.0, length, 1.0)[:, None]
        return (K[:, 0, 0] + K[:, 1, 1]) / 2.0 + root, u
    values, vectors = np.linalg.eigh(K)
    # One more product: a small entry of the vector is then exact beside its own size, not beside the largest.
    u = np.einsum("grq,gq->gr", K, np.abs(vectors[:, :, -1]))
    length = np.linalg.norm(u, axis=1)
    return values[:, -1], u / np.where(length > 0.0, length, 1.0)[:, None]


def _groups(topology: Topology, s: Floats) -> Indices:
    """Group of each link, receiver * resources + first resource it is bound to: links share one where they compete.

    Two resources of a row belong together where a link needs both, or through others. int64 [links].
    """
    count = len(s)
    receiver = topology.receiver
    if count == 1:
        return receiver.copy()
    needed = s > 0.0
    together = np.zeros((topology.nodes, count, count), np.bool_)
    for r in range(count):
        for q in range(count):
            both = (needed[r] & needed[q]).astype(np.float64)
            together[:, r, q] = (sum_rows(both, topology.indptr) > 0.0) | (r == q)
    for _ in range(count):
        together = np.einsum("nrq,nqp->nrp", together, together)
    first_of = together.argmax(axis=2)
    return np.asarray(receiver * count + first_of[receiver, needed.argmax(axis=0)], np.int64)
