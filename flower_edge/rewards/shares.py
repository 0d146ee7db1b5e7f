"""A pot in whole micro-credits, shared out by weights: by largest remainder, exactly. Nothing here knows why.

Letters:
    q[i]    quota = pot * weight[i] / sum of weights, an exact fraction
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import RewardError

__all__ = ["largest_remainder"]


def largest_remainder(pot: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Everybody gets the whole part of the quota; what is over goes, one each, to the largest remainders.

    Weights are taken as the exact fractions they are, so the order of the nodes and the size of the pot change nothing.
    Equal weights differ by one at most; which of them gets it is by key.

    Args:
        pot: micro-credits, 0 or more.
        weights: by key, floats or whole numbers of any size; those not above 0 get nothing.

    Returns:
        micro-credits by key, in the order of `weights`; their sum is the pot, or 0 where no weight is above 0.

    Raises:
        RewardError: a pot that is no whole number or below 0, or a weight that is not finite.

    >>> largest_remainder(100, {"a": 1.0, "b": 1.0, "c": 1.0, "d": -5.0})
    {'a': 34, 'b': 33, 'c': 33, 'd': 0}
    >>> largest_remainder(100, {"a": 0.0, "b": -1.0})
    {'a': 0, 'b': 0}
    """
    if isinstance(pot, bool) or not isinstance(pot, int):
        raise RewardError(f"a pot of {pot!r}; expected a whole number of micro-credits, an int")
    if pot < 0:
        raise RewardError(f"a pot of {pot} micro-credits; expected 0 or more")
    for key, weight in weights.items():
        if not math.isfinite(weight):
            raise RewardError(f"{key} has weight {weight}; expected a finite number")
    # Whole weights stay whole: those of large amounts are beyond a float.
    exact = {key: weight if isinstance(weight, int) else float(weight) for key, weight in weights.items()}
    ratios = {key: weight.as_integer_ratio() for key, weight in exact.items() if weight > 0}
    if not ratios:
        return dict.fromkeys(weights, 0)

    # Floats are whole numbers over powers of two, so over the largest of those all weights are whole.
    unit = max(below for _, below in ratios.values())
    whole = {key: top * (unit // below) for key, (top, below) in ratios.items()}
    total = sum(whole.values())
    quotas = {key: divmod(pot * weight, total) for key, weight in whole.items()}
    shares = dict.fromkeys(weights, 0) | {key: quota for key, (quota, _) in quotas.items()}
    over = pot - sum(shares.values())
    for key in sorted(quotas, key=lambda key: (-quotas[key][1], key))[:over]:
        shares[key] += 1
    return shares
