"""A choice per group under one budget: the multiple-choice knapsack, by dynamic programme over bytes.

Functions of two tables, bytes and errors of each choice in each group. Nothing here encodes.

Source: Markov et al., "L-GreCo: layerwise-adaptive gradient compression for efficient and
accurate deep learning", MLSys 2024; there the budget is an error and is what is discretised, here it is the bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import CodecError

__all__ = ["least_bytes", "least_error"]

#: Steps into which a budget is divided. Up to as many bytes the answer is exact, beyond it keeps the budget and errs
#: on the side of fewer bytes, by at most a step for each group.
LEVELS = 32768

Bytes = npt.NDArray[np.int64]
Errors = npt.NDArray[np.float64]


def least_error(bytes_: Bytes, errors: Errors, *, budget_bytes: int, levels: int = LEVELS) -> list[int]:
    """The choices of least total error within `budget_bytes`; of several, those with the fewest bytes.

    Args:
        bytes_: [groups, choices].
        errors: the same, 0 or more; they add up.

    Raises:
        CodecError: not even the smallest choices fit.

    >>> least_error(np.array([[1, 4], [1, 4]]), np.array([[9.0, 2.0], [5.0, 1.0]]), budget_bytes=6)
    [1, 0]
    """
    least = int(bytes_.min(axis=1).sum())
    if least > budget_bytes:
        raise CodecError(
            f"a budget of {budget_bytes} bytes, but these candidates need at least {least}; "
            "raise the budget, or add a candidate that takes less"
        )
    extra = bytes_ - bytes_.min(axis=1, keepdims=True)  # the smallest choice is free: so rounding never refuses it
    unit = max(1, -(-min(budget_bytes - least, int(extra.max(axis=1).sum())) // levels))
    cost = -(-extra // unit)
    table, choices = _table(cost, errors, min((budget_bytes - least) // unit, int(cost.max(axis=1).sum())))
    return _read(cost, choices, int(np.flatnonzero(table == table[-1])[0]))


def least_bytes(bytes_: Bytes, errors: Errors, *, budget_error: float, levels: int = LEVELS) -> list[int]:
    """The choices of fewest total bytes with at most `budget_error` in total.

    Raises:
        CodecError: not even the most exact choices meet it.

    >>> least_bytes(np.array([[1, 4], [1, 4]]), np.array([[9.0, 2.0], [5.0, 1.0]]), budget_error=10.0)
    [1, 0]
    """
    extra = bytes_ - bytes_.min(axis=1, keepdims=True)
    unit = max(1, -(-int(extra.max(axis=1).sum()) // levels))
    cost = -(-extra // unit)
    table, choices = _table(cost, errors, int(cost.max(axis=1).sum()))
    within = np.flatnonzero(table <= budget_error)
    if not within.size:
        raise CodecError(
            f"a squared error of at most {budget_error:.6g}, but these candidates leave at least {table[-1]:.6g}; "
            "raise the budget, or add a candidate that loses less"
        )
    return _read(cost, choices, int(within[0]))


def _table(cost: Bytes, errors: Errors, width: int) -> tuple[Errors, npt.NDArray[np.uint8]]:
    """Least error of all groups for each cost from 0 to `width`, and each group's choice at each."""
    table = np.zeros(width + 1)
    choices = np.zeros((len(cost), width + 1), np.uint8)
    for group, (costs, lost) in enumerate(zip(cost.tolist(), errors.tolist(), strict=True)):
        best = np.full(width + 1, np.inf)
        for choice, (price, error) in enumerate(zip(costs, lost, strict=True)):
            if price > width:
                continue
            reached = table[: width + 1 - price] + error
            better = reached < best[price:]
            best[price:][better] = reached[better]
            choices[group, price:][better] = choice
        table = best
    return table, choices


def _read(cost: Bytes, choices: npt.NDArray[np.uint8], level: int) -> list[int]:
    """The choices that led to a level."""
    found = []
    for group in reversed(range(len(cost))):
        choice = int(choices[group, level])
        level -= int(cost[group, choice])
        found.append(choice)
    return found[::-1]
