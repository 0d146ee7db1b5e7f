"""`Game`: what coalitions of a round's nodes are worth, each asked for once; and `Contribution`, what a method found.

Remembers and counts. What a coalition's worth is, it is told by a function; which coalitions to ask for is up to the
methods in `exact`, `truncated` and `leave_one_out`.

Letters:
    n       players, named by their places 0 to n - 1
    v(S)    what coalition S is worth, higher is better
    N       all players
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import RewardError

__all__ = ["Contribution", "Game", "Value"]

#: What a coalition is worth; higher is better. For a loss give its negative.
Value = Callable[[frozenset[int]], float]

# Beyond it, differences of two values may leave the floats.
_MOST = 1e300


@dataclass(frozen=True)
class Contribution:
    """What each player's part in v(N) - v(none) was, and what it took to find out.

    Attributes:
        values: by the player's place. Negative: the merge was better without.
        total: v(N) - v(none), which Shapley values share out.
        method: "exact", "truncated" or "leave-one-out".
        evaluations: how many coalitions were evaluated, each once.
        sum_error_bound: |sum of the values - total| is at most this. For "exact" rounding alone; for "truncated" what
            truncation left away; "leave-one-out" shares nothing out, and it is how far off the sum is.
        permutations: orders of the players that were walked; 0 where no sampling was done.
        truncated: how many of them ended early.
        converged: False where sampling ended at its limit instead.
        standard_errors: of each value by the spread over the permutations; zeros where nothing was sampled.
    """

    values: tuple[float, ...]
    total: float
    method: str
    evaluations: int
    sum_error_bound: float
    permutations: int = 0
    truncated: int = 0
    converged: bool = True
    standard_errors: tuple[float, ...] = ()


class Game:
    """Players and what their coalitions are worth; every coalition is evaluated at most once.

    Args:
        value: what a coalition is worth; higher is better.
        players: how many there are.
        alike: groups of players known to be equal, such as nodes with the same update and weight. Of a group it only
            counts how many are in a coalition, so equal players are equal to the last bit, and fewer are evaluated.
        floor: what a coalition counts for at least. With it a value that is not finite (a merge that overflows)
            counts as the floor; without it such a value is an error.

    Raises:
        RewardError: a negative number of players, a group with a player that is not there or is in two groups; while
            playing, a value that is not finite and no floor.

    >>> game = Game(lambda coalition: float(len(coalition)), players=3)
    >>> game([0, 2]), game([2, 0]), game.evaluations
    (2.0, 2.0, 1)
    """

    def __init__(
        self, value: Value, players: int, *, alike: Iterable[Sequence[int]] = (), floor: float | None = None
    ) -> None:
        if players < 0:
            raise RewardError(f"a game of {players} players; expected 0 or more")
        if floor is not None and not abs(floor) <= _MOST:
            raise RewardError(f"floor={floor!r}: expected a finite number, or None")
        self.players = players
        self.alike = tuple(tuple(sorted(group)) for group in alike if len(group) > 1)
        members = [player for group in self.alike for player in group]
        if len(set(members)) < len(members) or not set(members) <= set(range(players)):
            raise RewardError(
                f"alike={self.alike}: expected each of the players 0 to {players - 1} in one group at most"
            )
        self._grouped = frozenset(members)
        self._value = value
        self._floor = floor
        self._known: dict[frozenset[int], float] = {}

    @property
    def evaluations(self) -> int:
        """How many coalitions were evaluated so far."""
        return len(self._known)

    @property
    def none(self) -> float:
        """v(none): what there is without anybody."""
        return self(())

    @property
    def everybody(self) -> float:
        """v(N): what there is with all."""
        return self(range(self.players))

    def __call__(self, coalition: Iterable[int]) -> float:
        """v(S), from memory where it was asked for before."""
        asked = self._one_of_its_kind(frozenset(coalition))
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = self._worth(asked)
        return known

    def evened(self, values: Sequence[float]) -> list[float]:
        """Values in which players that are alike have the mean of theirs."""
        even = list(values)
        for group in self.alike:
            mean = math.fsum(values[player] for player in group) / len(group)
            for player in group:
                even[player] = mean
        return even

    def _one_of_its_kind(self, coalition: frozenset[int]) -> frozenset[int]:
        """The coalition that stands for all with as many of each group."""
        if not self._grouped & coalition:
            return coalition
        first = [player for group in self.alike for player in group[: len(coalition.intersection(group))]]
        return (coalition - self._grouped).union(first)

    def _worth(self, coalition: frozenset[int]) -> float:
        worth = float(self._value(coalition))
        if abs(worth) <= _MOST:
            return worth if self._floor is None else max(worth, self._floor)
        if self._floor is not None:
            # Plus infinity as well: a worth nobody can measure is not a merit.
            return self._floor
        raise RewardError(
            f"coalition {sorted(coalition)} is worth {worth}; expected a finite number: "
            "refuse updates that are not finite before, or give floor="
        )
