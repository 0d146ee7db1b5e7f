"""Shapley values by their definition: over all coalitions, 2^n evaluations. Nothing here is sampled or rounded twice.

Letters:
    phi[i]  Shapley value of player i = sum over S without i of |S|! (n - 1 - |S|)! / n! * (v(S + i) - v(S))

Source: Shapley, "A value for n-person games", 1953.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from ..errors import RewardError
from .game import Contribution, Game, Value

__all__ = ["MOST_PLAYERS", "exact_shapley"]

#: 4,096 evaluations. Twice as many for each player more.
MOST_PLAYERS = 12


def exact_shapley(
    value: Value, players: int, *, alike: Iterable[Sequence[int]] = (), floor: float | None = None
) -> Contribution:
    """What each player adds to a coalition, averaged over all orders in which all can come together.

    Values are sums of whole numbers and one division, so that they share out v(N) - v(none) but for each value's last
    bit, equal players are equal to the bit, and a player that changes nothing has exactly 0. Coalitions are asked for
    in Gray code: each differs from the one before by one player, so a merge may be kept and changed.

    Args:
        value: what a coalition is worth; higher is better.
        players: n, at most 12.
        alike: groups of players known to be equal.
        floor: what a coalition counts for at least; see `Game`.

    Raises:
        RewardError: more than 12 players, or a value that is not finite.

    Two who are nothing alone and 6 together, and one who is 1 with anybody:

    >>> exact_shapley(lambda s: 6.0 * ({0, 1} <= s) + 1.0 * (2 in s), players=3).values
    (3.0, 3.0, 1.0)
    """
    if players > MOST_PLAYERS:
        raise RewardError(
            f"{players} players have {2.0**players:.3g} coalitions; exact values are for at most {MOST_PLAYERS}: "
            "use truncated_shapley"
        )
    game = Game(value, players, alike=alike, floor=floor)
    worth: dict[int, float] = {}
    for step in range(1 << players):
        mask = step ^ (step >> 1)
        worth[mask] = game(player for player in range(players) if mask >> player & 1)

    # Floats are whole numbers over powers of two: over the largest of those all sums are of whole numbers, and exact.
    unit = max(number.as_integer_ratio()[1] for number in worth.values())
    whole = {mask: top * (unit // below) for mask, (top, below) in _ratios(worth)}
    orders = [math.factorial(size) * math.factorial(players - 1 - size) for size in range(players)]
    values: list[float] = []
    for player in range(players):
        bit = 1 << player
        total = sum(orders[mask.bit_count()] * (whole[mask | bit] - whole[mask]) for mask in whole if not mask & bit)
        values.append(float(Fraction(total, unit * math.factorial(players))))

    everything = worth[(1 << players) - 1] - worth[0]
    return Contribution(
        values=tuple(values),
        total=everything,
        method="exact",
        evaluations=game.evaluations,
        sum_error_bound=rounding(values, everything),
        standard_errors=(0.0,) * players,
    )


def rounding(values: Sequence[float], total: float) -> float:
    """How far a sum of values may be from the total by the last bits of them alone."""
    # Two steps of the largest for each value and two for the total; the smallest float where all are that small.
    return 2.0 * (math.fsum(math.ulp(value) for value in values) + math.ulp(total))


def _ratios(worth: dict[int, float]) -> list[tuple[int, tuple[int, int]]]:
    return [(mask, number.as_integer_ratio()) for mask, number in worth.items()]
