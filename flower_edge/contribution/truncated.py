"""Shapley values by sampling orders of the players, where an order ends as soon as the rest can add next to nothing.

GTG-Shapley without its reconstruction of models, which is the `value` it is given. Nothing here trains or merges.

Letters:
    n         players
    v(S)      what coalition S is worth; N all players, P the players of an order that have come so far
    phi[i]    mean over the orders of v(P + i) - v(P) where i comes

Source: Liu, Chen, Yu, Liu, Cui, "GTG-Shapley: efficient and accurate participant contribution evaluation in federated
learning", ACM TIST 13(4), 2022: truncation between and within rounds, guided sampling, the convergence criterion, with
the authors' published settings (0.001, 30 orders at least, the last 10 within 5 %).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RewardError
from .exact import exact_shapley, rounding
from .game import Contribution, Game, Value

__all__ = ["Sampling", "shapley", "truncated_shapley"]


@dataclass(frozen=True)
class Sampling:
    """When sampling stops.

    Args:
        within: an order ends where |v(N) - v(P)| is below it: whoever comes later gets 0 of that order. In the unit of
            the values.
        between: nothing is sampled where |v(N) - v(none)| is at most this: the round moved nothing, and all values
            are 0. In the unit of the values.
        least: so many orders are walked at least.
        most: and so many at most.
        last: the running means of so many last orders are compared.
        change: sampling ends where they differ by less than this share. The paper takes the share for every player
            by itself, and a player with nothing to give never gets there; here it is the players' mean change over
            the mean size of their values.

    Raises:
        RewardError: a number out of its range.
    """

    within: float = 0.001
    between: float = 0.001
    least: int = 30
    most: int = 200
    last: int = 10
    change: float = 0.05

    def __post_init__(self) -> None:
        for name in ("within", "between", "change"):
            given = getattr(self, name)
            if not 0.0 <= given < math.inf:
                raise RewardError(f"Sampling({name}={given!r}): expected a finite number, 0 or more")
        if not 1 <= self.least <= self.most:
            raise RewardError(f"Sampling(least={self.least}, most={self.most}): expected 1 <= least <= most")
        if self.last < 1:
            raise RewardError(f"Sampling(last={self.last}): expected 1 or more orders to compare")


def truncated_shapley(
    value: Value,
    players: int,
    rng: np.random.Generator,
    *,
    sampling: Sampling | None = None,
    alike: Iterable[Sequence[int]] = (),
    floor: float | None = None,
) -> Contribution:
    """Shapley values from sampled orders.

    Orders are guided: in every n of them each player comes first once, in a fresh order of turns, so a run of any
    length is an unbiased sample but for what truncation cuts off.

    The sum of the values is off v(N) - v(none) by at most `sum_error_bound`: the mean over the orders of what was left
    when they ended, which is at most `within`, and rounding. Where nothing was sampled it is |v(N) - v(none)|, at most
    `between`.

    Args:
        value: what a coalition is worth; higher is better. In an order each coalition is the one before and one more.
        players: n.
        rng: draws the orders.
        sampling: when to stop.
        alike: groups of players known to be equal: each gets the mean of its group, where sampling would part them.
        floor: what a coalition counts for at least; see `Game`.

    Raises:
        RewardError: a value that is not finite.

    >>> found = truncated_shapley(lambda s: 2.0 * len(s), players=10, rng=np.random.default_rng(1))
    >>> found.values == (2.0,) * 10, found.total, found.converged
    (True, 20.0, True)
    """
    stop = Sampling() if sampling is None else sampling
    game = Game(value, players, alike=alike, floor=floor)
    total = game.everybody - game.none
    if players == 0 or abs(total) <= stop.between:
        return Contribution(
            values=(0.0,) * players,
            total=total,
            method="truncated",
            evaluations=game.evaluations,
            sum_error_bound=abs(total),
            standard_errors=(0.0,) * players,
        )

    added: list[NDArray[np.float64]] = []
    left: list[float] = []
    ended_early = 0
    converged = False
    while not converged and len(added) < stop.most:
        for first in rng.permutation(players).tolist():
            order = [first, *rng.permutation([player for player in range(players) if player != first]).tolist()]
            marginal, rest, early = _walk(game, order, stop.within)
            added.append(marginal)
            left.append(rest)
            ended_early += early
            if len(added) == stop.most:
                break
        converged = _converged(np.array(added), stop)

    orders = len(added)
    values = game.evened([math.fsum(column) / orders for column in np.array(added).T])
    return Contribution(
        values=tuple(values),
        total=total,
        method="truncated",
        evaluations=game.evaluations,
        sum_error_bound=math.fsum(left) / orders + _slack(np.array(added), values, total),
        permutations=orders,
        truncated=ended_early,
        converged=converged,
        standard_errors=tuple(_standard_errors(np.array(added))),
    )


def shapley(
    value: Value,
    players: int,
    rng: np.random.Generator,
    *,
    exact_up_to: int = 8,
    sampling: Sampling | None = None,
    alike: Iterable[Sequence[int]] = (),
    floor: float | None = None,
) -> Contribution:
    """Exact Shapley values of a few players, sampled ones of more.

    Exact values are never truncated: a round in which all cancels out takes its 2^n evaluations as well.

    Args:
        exact_up_to: how many players are a few; 8 take at most 256 evaluations.

    The other arguments are those of `truncated_shapley`.

    >>> shapley(lambda s: 2.0 * len(s), players=2, rng=np.random.default_rng(1)).method
    'exact'
    """
    if players <= exact_up_to:
        return exact_shapley(value, players, alike=alike, floor=floor)
    return truncated_shapley(value, players, rng, sampling=sampling, alike=alike, floor=floor)


def _walk(game: Game, order: Sequence[int], within: float) -> tuple[NDArray[np.float64], float, bool]:
    """What each player added in one order, how much was left of v(N) where it ended, and whether it ended early."""
    added = np.zeros(game.players)
    everybody = game.everybody
    before = game.none
    for place, player in enumerate(order):
        if abs(everybody - before) < within:
            return added, abs(everybody - before), True
        now = game(order[: place + 1])
        added[player] = now - before
        before = now
    return added, 0.0, False


def _converged(added: NDArray[np.float64], stop: Sampling) -> bool:
    """Whether the running means of the last orders have come to rest. `added`: [orders, players]."""
    if len(added) < max(stop.least, stop.last):
        return False
    means = np.cumsum(added, axis=0) / np.arange(1, len(added) + 1)[:, None]
    size = float(np.abs(means[-1]).mean())
    changes = np.abs(means[-stop.last :] - means[-1]).mean(axis=1)
    return bool(changes.max() <= stop.change * size)


def _standard_errors(added: NDArray[np.float64]) -> list[float]:
    """Of the mean of each column, [players]. That orders are guided is left out, which only makes them smaller."""
    orders = len(added)
    if orders < 2:
        return [math.inf] * added.shape[1]
    errors: list[float] = (added.std(axis=0, ddof=1) / math.sqrt(orders)).tolist()
    return errors


def _slack(added: NDArray[np.float64], values: Sequence[float], total: float) -> float:
    """What rounding can do to the sum: each step of an order is a difference of two floats."""
    return rounding(values, total) + 2.0 * len(values) * math.ulp(float(np.abs(added).max(initial=abs(total))))
