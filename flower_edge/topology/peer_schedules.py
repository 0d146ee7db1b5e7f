"""Who talks to whom, round by round, with few peers each: schedules whose rounds, multiplied, are a consensus.

Functions from a number of nodes to a period of `Exchange`s over abstract seats 0 .. nodes - 1; which node sits where is
`relabel`'s matter. Every exchange is doubly stochastic, so that no schedule moves the mean. Nothing here knows a radio.

Sources: Ying, Yuan, Chen, Hu, Pan, Yin, "Exponential graph is provably efficient for decentralized deep training",
NeurIPS 2021 (one-peer exponential). Takezawa, Sato, Bao, Niwa, Yamada, "Beyond exponential graph: communication-
efficient topologies for decentralized learning via finite-time convergence", NeurIPS 2023 (Base-(k + 1)); written from
the ideas of the paper, not from its listings: its algorithms are followed in substance, not line by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from ..errors import TopologyError
from .rows import Floats, Indices

__all__ = ["Exchange", "base_k_plus_1", "circulant", "hyper_hypercube", "one_peer_exponential", "product"]


@dataclass(frozen=True, eq=False)
class Exchange:
    """One round: seat `receiver[k]` takes `weight[k]` of seat `sender[k]`'s model, and of its own what is left of 1.

    Attributes:
        seats: how many take part.
        receiver, sender: int64 [links].
        weight: float64 [links], above 0.
    """

    seats: int
    receiver: Indices
    sender: Indices
    weight: Floats

    @property
    def matrix(self) -> Floats:
        """W [seats, seats], dense: for tests and small networks."""
        dense = np.zeros((self.seats, self.seats))
        np.add.at(dense, (self.receiver, self.sender), self.weight)
        dense[np.diag_indices(self.seats)] = 1.0 - dense.sum(axis=1)
        return dense


def product(schedule: list[Exchange]) -> Floats:
    """What a whole schedule does to the models: the product of its matrices, the first on the right. Dense."""
    whole = np.eye(schedule[0].seats) if schedule else np.eye(1)
    for exchange in schedule:
        whole = exchange.matrix @ whole
    return whole


def circulant(seats: int, offsets: tuple[int, ...], own: float | None = None) -> Exchange:
    """Every seat hears those `offsets` before it, all with the same weight; `own` is the weight of its own model.

    >>> circulant(3, (1,)).matrix
    array([[0.5, 0. , 0.5],
           [0.5, 0.5, 0. ],
           [0. , 0.5, 0.5]])

    Raises:
        TopologyError: an offset that is no other seat, or `own` outside 0 to 1.
    """
    if any(offset % seats == 0 for offset in offsets) or len({o % seats for o in offsets}) != len(offsets):
        raise TopologyError(f"offsets {offsets} among {seats} seats: each must be another seat, each once")
    own = 1.0 / (len(offsets) + 1) if own is None else own
    if not 0.0 <= own <= 1.0:
        raise TopologyError(f"own = {own}: expected a weight from 0 to 1")
    seat = np.arange(seats)
    sender = [(seat - offset) % seats for offset in offsets]
    count = len(offsets)
    weight = np.full(count * seats, (1.0 - own) / max(count, 1))
    return Exchange(
        seats, np.tile(seat, count), np.concatenate([*sender, np.zeros(0, np.int64)]).astype(np.int64), weight
    )


def one_peer_exponential(seats: int, own: float = 0.5) -> list[Exchange]:
    """In round t seat i hears i - 2^(t mod ceil(log2 seats)): one peer, ceil(log2 seats) rounds.

    With `own` = 1/2 the product of a period is exact consensus where `seats` is a power of two.

    >>> [exchange.sender.tolist() for exchange in one_peer_exponential(4)]
    [[3, 0, 1, 2], [2, 3, 0, 1]]
    """
    return [circulant(seats, (2**power,), own) for power in range((seats - 1).bit_length())] if seats > 1 else []


def hyper_hypercube(seats: int, peers: int) -> list[Exchange]:
    """Exact consensus in as few rounds as `seats` has factors up to `peers` + 1: groups meet along each axis of a grid.

    Raises:
        TopologyError: `seats` has a prime factor above `peers` + 1.
    """
    sides = _factors(seats, peers + 1)
    if sides is None:
        raise TopologyError(f"{seats} seats have a prime factor above peers + 1 = {peers + 1}; use base_k_plus_1")
    return [_meet(seats, groups) for groups in _axes(np.arange(seats), sides)]


def base_k_plus_1(seats: int, peers: int = 1) -> list[Exchange]:
    """Exact consensus of any number of seats in a finite number of rounds, at most `peers` peers each.

    O(log seats) rounds to the base `peers` + 1. The shorter of the simple graph and of one that first averages inside
    groups of the size of the factor of `seats` that a hyper-hypercube cannot do, then across them.

    >>> len(base_k_plus_1(6)), bool(np.ptp(product(base_k_plus_1(6))) < 1e-15)
    (4, True)

    Raises:
        TopologyError: `seats` or `peers` below 1.
    """
    if seats < 1 or peers < 1:
        raise TopologyError(f"seats = {seats}, peers = {peers}: expected 1 or more of both")
    simple = _simple(seats, peers)
    rest = seats
    for factor in range(2, peers + 2):
        while rest % factor == 0:
            rest //= factor
    smooth = seats // rest
    if rest in (1, seats):
        return simple
    inside, across = _simple(rest, peers), hyper_hypercube(smooth, peers)
    if len(inside) + len(across) >= len(simple):
        return simple
    # Seat s is place s % rest in group s // rest.
    blocks = [np.arange(rest) + group * rest for group in range(smooth)]
    columns = [np.arange(smooth) * rest + place for place in range(rest)]
    return [_side_by_side(seats, [(exchange, block) for block in blocks]) for exchange in inside] + [
        _side_by_side(seats, [(exchange, column) for column in columns]) for exchange in across
    ]


def _simple(seats: int, peers: int) -> list[Exchange]:
    """The simple Base-(k + 1) graph: parts of a (k + 1)^p seats, from the large to the small.

    First every part averages inside itself. Then, part by part, all later parts take so much of the part that they, as
    a whole, have the mean of all that is left to them and it; each of their seats meets one seat in each of the part's
    a blocks, no two the same. After that the blocks of the part hold the mean in sum, and average inside themselves.
    """
    if _factors(seats, peers + 1) is not None:
        return hyper_hypercube(seats, peers)
    parts: list[list[Indices]] = []  # of each part its blocks
    first, rest = 0, seats
    while rest:
        power = _log(rest, peers + 1)
        size = int((peers + 1) ** power)
        count = rest // size
        parts.append([np.arange(size) + first + block * size for block in range(count)])
        first, rest = first + count * size, rest % size
    inside = [_axes(np.concatenate(blocks), _factors_of(sum(map(len, blocks)), peers + 1)) for blocks in parts]
    after = [[_axes(block, _factors_of(len(block), peers + 1)) for block in blocks] for blocks in parts]
    opening = max(map(len, inside))
    rounds: list[list[tuple[Indices, Indices, Floats]]] = []

    def at(round: int, groups: list[Indices]) -> None:
        while len(rounds) <= round:
            rounds.append([])
        rounds[round] += [_full(group) for group in groups]

    for part, axes in enumerate(inside):
        for step, groups in enumerate(axes):
            at(step, groups)
        if part + 1 == len(parts):
            break
        meeting = opening + part
        at(meeting, [])
        later = np.concatenate([block for blocks in parts[part + 1 :] for block in blocks])
        mine = sum(map(len, parts[part]))
        weight = mine / (len(parts[part]) * (mine + len(later)))
        for block, block_axes in zip(parts[part], after[part], strict=True):
            met = block[: len(later)]
            both = np.concatenate([later, met]), np.concatenate([met, later])
            rounds[meeting].append((*both, np.full(2 * len(later), weight)))
            for step, groups in enumerate(block_axes):
                at(meeting + 1 + step, groups)
    return [_exchange(seats, links) for links in rounds]


def _log(number: int, base: int) -> int:
    """The largest power of the base that is not above the number."""
    power = 0
    while base ** (power + 1) <= number:
        power += 1
    return power


@lru_cache(maxsize=4096)
def _factors(number: int, most: int) -> tuple[int, ...] | None:
    """The fewest factors, each 2 to `most`, that multiply to the number, descending; None if there are none."""
    if number == 1:
        return ()
    best: tuple[int, ...] | None = None
    for factor in range(min(most, number), 1, -1):
        if number % factor == 0:
            rest = _factors(number // factor, factor)
            if rest is not None and (best is None or len(rest) + 1 < len(best)):
                best = (factor, *rest)
    return best


def _factors_of(number: int, most: int) -> tuple[int, ...]:
    factors = _factors(number, most)
    assert factors is not None, f"{number} is no product of factors up to {most}"
    return factors


def _axes(seats: Indices, sides: tuple[int, ...]) -> list[list[Indices]]:
    """For each axis of a grid of these sides, the groups of seats along it."""
    assert prod(sides) == len(seats)
    grid = seats.reshape(sides)
    return [list(np.moveaxis(grid, axis, -1).reshape(-1, side)) for axis, side in enumerate(sides)]


def _full(group: Indices) -> tuple[Indices, Indices, Floats]:
    """Links of a group in which everybody hears everybody, with equal weights."""
    receiver, sender = np.repeat(group, len(group)), np.tile(group, len(group))
    other = receiver != sender
    return receiver[other], sender[other], np.full(int(other.sum()), 1.0 / len(group))


def _exchange(seats: int, links: list[tuple[Indices, Indices, Floats]]) -> Exchange:
    if not links:
        nobody = np.zeros(0, np.int64)
        return Exchange(seats, nobody, nobody, np.zeros(0))
    receiver, sender, weight = (np.concatenate(column) for column in zip(*links, strict=True))
    return Exchange(seats, receiver.astype(np.int64), sender.astype(np.int64), weight)


def _meet(seats: int, groups: list[Indices]) -> Exchange:
    return _exchange(seats, [_full(group) for group in groups])


def _side_by_side(seats: int, copies: list[tuple[Exchange, Indices]]) -> Exchange:
    """Copies of an exchange, each among other seats, at the same time."""
    return _exchange(seats, [(seat[e.receiver], seat[e.sender], e.weight) for e, seat in copies])
