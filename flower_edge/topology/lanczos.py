"""The largest eigenvalue of a large symmetric operator, as exactly as its distance from an upper bound asks for.

Mixing is decided by how far an eigenvalue stays below a bound (1, for weights), and a fixed tolerance says nothing
about a distance that is smaller. Deterministic: the caller brings the first vector. Nothing here knows about graphs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from .rows import Floats

__all__ = ["first_vector", "top_eigenpair"]


def first_vector(n: int) -> Floats:
    """A vector that has something of every other one, the same in every run. float64 [n]."""
    return np.random.default_rng([n]).normal(size=n)


def top_eigenpair(
    apply: Callable[[Floats], Floats], start: Floats, bound: float, share: float = 0.05
) -> tuple[float, Floats]:
    """Largest eigenvalue and its vector of a symmetric positive semidefinite operator.

    Args:
        apply: the operator, float64 [n] to float64 [n].
        start: where iterations begin, float64 [n].
        bound: no eigenvalue is above it.
        share: the error of the eigenvalue, at most, as a share of its distance to `bound`.
    """
    n = len(start)
    image = apply(start)
    if np.linalg.norm(image) <= 1e-12 * bound * np.linalg.norm(start):
        return 0.0, start / np.linalg.norm(start)
    operator = LinearOperator((n, n), matvec=lambda x: apply(np.ravel(x)), dtype=np.float64)
    tolerance = 1e-3
    while True:
        # Always from the first vector: from one that has nearly converged, ARPACK may not come back.
        values, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance)
        value = min(float(values[0]), bound)
        # ARPACK's tolerance is relative to the eigenvalue.
        wanted = max(share * (bound - value) / max(value, 1e-300), 1e-13)
        if tolerance <= wanted:
            return value, np.asarray(vectors[:, 0])
        tolerance = 0.5 * wanted
