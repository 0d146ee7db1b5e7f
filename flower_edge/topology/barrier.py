"""The smallest spectral norm over symmetric edge weights, solved to the end: an interior point method.

    minimise s  subject to  -s I <= I - L(w) - 1 1^T / N <= s I,  L(w) = sum_e w[e] (e_a - e_b)(e_a - e_b)^T

and, for a Markov chain, w >= 0 and sum of w around each node <= 1. Dense, with a Newton step of edges^3: for networks
of up to some hundred edges; `fdla` goes on from there. Nothing here knows about directed links.

Letters: a, b ends of each edge, int [edges]; w weight of each edge, float64 [edges]; s the norm.

Source: the semidefinite program of Xiao, Boyd, "Fast linear iterations for distributed averaging", 2004 (FDLA) and
Boyd, Diaconis, Xiao, "Fastest mixing Markov chain on a graph", SIAM Review 2004 (FMMC), by the barrier method of Boyd,
Vandenberghe, "Convex optimization", 2004, chapter 11.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from .rows import Floats, Indices

__all__ = ["fastest_edge_weights"]

#: How much the barrier is lowered at a time, and Newton steps per lowering at most.
_FACTOR, _STEPS = 10.0, 60


def fastest_edge_weights(
    nodes: int, a: Indices, b: Indices, *, nonnegative: bool, tolerance: float = 1e-6
) -> tuple[Floats, float]:
    """Weights of the edges of a connected graph, and the norm s, at most `tolerance` above the least there is."""
    problem = _Barrier(nodes, a, b, nonnegative)
    degree = np.bincount(a, minlength=nodes) + np.bincount(b, minlength=nodes)
    w, s = np.full(len(a), 1.0 / (2.0 + degree.max())), 1.1
    sharpness = 1.0
    while True:
        for _ in range(_STEPS):
            w, s, decrement = problem.newton(w, s, sharpness)
            if decrement < 1e-4:
                break
        if problem.terms / sharpness < tolerance:
            return w, s
        sharpness *= _FACTOR


class _Barrier:
    """t s - log det(sI - X) - log det(sI + X) [- sum log w - sum log(1 - sum of w around each node)]."""

    def __init__(self, nodes: int, a: Indices, b: Indices, nonnegative: bool) -> None:
        self._n, self._a, self._b, self._nonnegative = nodes, a, b, nonnegative
        self.terms = 2 * nodes + (len(a) + nodes if nonnegative else 0)
        if nonnegative:
            self._touches = np.zeros((nodes, len(a)))
            edges = np.arange(len(a))
            self._touches[a, edges] = self._touches[b, edges] = 1.0

    def value(self, w: Floats, s: float) -> float:
        """All but t s, infinite outside."""
        try:
            up, down = (np.linalg.cholesky(part) for part in self._parts(w, s))
        except LinAlgError:
            return math.inf
        total = -2.0 * float(np.log(np.diag(up)).sum() + np.log(np.diag(down)).sum())
        if self._nonnegative:
            left = 1.0 - self._touches @ w
            if w.min() <= 0.0 or left.min() <= 0.0:
                return math.inf
            total -= float(np.log(w).sum() + np.log(left).sum())
        return total

    def newton(self, w: Floats, s: float, t: float) -> tuple[Floats, float, float]:
        """One damped step, and how far the value can still fall."""
        over, under = self._parts(w, s)
        eye = np.eye(self._n)
        over, under = cho_solve(cho_factor(over), eye), cho_solve(cho_factor(under), eye)
        k_over, k_under = self._along(over), self._along(under)
        m = len(w)
        slope, bend = np.empty(m + 1), np.empty((m + 1, m + 1))
        slope[:m] = np.diag(k_under) - np.diag(k_over)
        slope[m] = t - np.trace(over) - np.trace(under)
        bend[:m, :m] = k_over**2 + k_under**2
        bend[m, :m] = bend[:m, m] = np.diag(self._along(over @ over)) - np.diag(self._along(under @ under))
        bend[m, m] = (over**2).sum() + (under**2).sum()
        if self._nonnegative:
            left = 1.0 / (1.0 - self._touches @ w)
            slope[:m] += self._touches.T @ left - 1.0 / w
            bend[:m, :m] += (self._touches.T * left**2) @ self._touches
            bend[np.arange(m), np.arange(m)] += w**-2
        size = 1.0 / np.sqrt(np.diag(bend))
        step = -size * _solve(bend * np.outer(size, size), size * slope)
        decrement = -float(slope @ step)
        if decrement <= 0.0:
            return w, s, 0.0
        before, length = self.value(w, s), 1.0
        while length > 1e-10:
            # t times the difference, not the difference of large numbers.
            after = self.value(w + length * step[:m], s + length * step[m]) + t * length * step[m]
            if after <= before - 0.1 * length * decrement:
                return w + length * step[:m], s + length * float(step[m]), decrement
            length *= 0.5
        return w, s, 0.0

    def _parts(self, w: Floats, s: float) -> tuple[Floats, Floats]:
        x = np.full((self._n, self._n), -1.0 / self._n)
        x[self._a, self._b] += w
        x[self._b, self._a] += w
        x[np.arange(self._n), np.arange(self._n)] = 0.0
        np.fill_diagonal(x, -x.sum(axis=1))
        eye = s * np.eye(self._n)
        return eye - x, eye + x

    def _along(self, matrix: Floats) -> Floats:
        """(e_a - e_b)^T M (e_a' - e_b') for every two edges."""
        half = matrix[self._a] - matrix[self._b]
        return np.asarray(half[:, self._a] - half[:, self._b])


def _solve(matrix: Floats, right: Floats) -> Floats:
    """Of a matrix with 1 on its diagonal, positive definite but for rounding: it is given as much more as it needs."""
    for more in (1e-12, 1e-10, 1e-8, 1e-6, 1e-4):
        try:
            return np.asarray(cho_solve(cho_factor(matrix + more * np.eye(len(right))), right))
        except LinAlgError:
            continue
    return right
