"""How many more rounds learning needs when models do not agree: one number per weight matrix.

sigma2 says how quickly a disagreement dies out that is left alone. In training it is not left alone: every node drifts
towards its own data in every round, and what it knows of the others' after mixing is what counts. With G a unit drift
of each node, the models after mixing differ from their mean by G times

    sum over k >= 1 of  g^(k - 1) (W^k - J),      J = 1 1^T / N

where g < 1 because later rounds undo part of a drift. `disagreement` is the squared Frobenius norm of that sum per
node; `rounds_factor` turns it into rounds. Nothing here chooses weights.

g was fitted to 33 matrices and schedules of 15 nodes (digits, a small MLP, six labels per node), the factor to rounds
until the mean accuracy of the devices is 90 % with 14 others, on seeds that no benchmark uses: from 1 for complete
averaging to 1.4, single runs off by 0.1, for they differ by as much. sigma2 alone does not rank them: a one-peer
schedule contracts by half in each round and needs more rounds than a sparse network that contracts by less.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..topology.rows import Floats

__all__ = ["AGAIN", "disagreement", "disagreement_dense", "rounds_factor"]

#: g: how much of a round's drift is there again in the next.
AGAIN = 0.55
#: Fitted: the factor is 1 + _SCALE d^_POWER, and models that never meet are taken to need twice as many rounds.
_SCALE, _POWER, _MOST = 0.36, 1.4, 2.0
#: Up to so many nodes exactly; beyond with random probes.
_DENSE, _PROBES, _TERMS = 200, 16, 16


def rounds_factor(disagreement: float) -> float:
    """Rounds to an accuracy, as a multiple of those that complete averaging needs.

    >>> rounds_factor(0.0), round(rounds_factor(0.45), 3)
    (1.0, 1.118)
    """
    return min(1.0 + _SCALE * float(disagreement**_POWER), _MOST) if np.isfinite(disagreement) else _MOST


def disagreement_dense(weights: Floats) -> float:
    """Of one doubly stochastic matrix used in every round, float64 [nodes, nodes].

    >>> disagreement_dense(np.full((3, 3), 1 / 3))
    0.0
    """
    nodes = len(weights)
    if nodes == 0:
        return 0.0
    apart = weights - 1.0 / nodes
    # sum g^(k-1) A^k = A (I - g A)^-1, and the two commute.
    summed = np.linalg.solve(np.eye(nodes) - AGAIN * apart, apart)
    return float((summed * summed).sum() / nodes)


def disagreement(matrices: list[sparse.csr_matrix]) -> float:
    """Of a schedule of doubly stochastic matrices, taken in turn; the mean over its rounds.

    Exact up to 200 nodes; beyond, estimated with random signs (Hutchinson 1990), the same ones in every call.
    """
    nodes, period = int(matrices[0].shape[0]), len(matrices)
    if nodes <= 1:
        return 0.0
    if period == 1 and nodes <= _DENSE:
        return disagreement_dense(matrices[0].toarray())
    probes = np.eye(nodes)
    if nodes > _DENSE:
        probes = np.random.default_rng([nodes, period]).choice((-1.0, 1.0), (nodes, _PROBES)) / np.sqrt(_PROBES)
    centred = probes - probes.mean(axis=0)
    total = 0.0
    for last in range(period):
        # A drift of k rounds ago has gone through the matrices of rounds last - k + 1 to last: Horner from the oldest.
        summed = np.zeros_like(centred)
        for k in range(_TERMS, 0, -1):
            summed = matrices[(last - k + 1) % period] @ (centred + AGAIN * summed)
        total += float((summed * summed).sum())
    return total / (nodes * period)
