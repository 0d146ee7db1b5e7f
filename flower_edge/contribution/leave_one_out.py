"""What the whole is worth more with each player than without: n + 1 evaluations. The cheapest, and the least fair.

Two players with the same to give are each dispensable and both get nothing; Shapley values give each its half.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .game import Contribution, Game, Value

__all__ = ["leave_one_out"]


def leave_one_out(
    value: Value, players: int, *, alike: Iterable[Sequence[int]] = (), floor: float | None = None
) -> Contribution:
    """v(N) - v(N without i) for each player i.

    The values do not share out v(N) - v(none); `sum_error_bound` says how far they are from it.

    Args:
        value: what a coalition is worth; higher is better.
        players: n.
        alike: groups of players known to be equal.
        floor: what a coalition counts for at least; see `Game`.

    Raises:
        RewardError: a value that is not finite.

    >>> leave_one_out(lambda s: 6.0 * ({0, 1} <= s) + 1.0 * (2 in s), players=3).values
    (6.0, 6.0, 1.0)
    >>> leave_one_out(lambda s: 1.0 * bool(s), players=2).values  # either would do
    (0.0, 0.0)
    """
    game = Game(value, players, alike=alike, floor=floor)
    total = game.everybody - game.none
    everybody = frozenset(range(players))
    values = tuple(game.everybody - game(everybody - {player}) for player in range(players))
    return Contribution(
        values=values,
        total=total,
        method="leave-one-out",
        evaluations=game.evaluations,
        sum_error_bound=math.nextafter(abs(math.fsum(values) - total), math.inf),
        standard_errors=(0.0,) * players,
    )
