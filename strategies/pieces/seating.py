"""Which terminal holds which piece of which chain: pure functions from who is there to seats. Nothing here sends.

chain   one copy of the model on one data segment; its number is the segment's, or the terminal's that has the samples
place   of a piece in its chain; place 0 has the samples
spare   a terminal that is there and has no place

Where edges are named (CASE 2), edge m holds the m-th part of the model and chain s runs through terminal s of every
edge; an edge that cuts its part again gives several terminals of its own to each chain.

Source: [4] ¶17-26 and 52-56 (docs/sources.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flower_edge.errors import NotEnoughNodes
from flower_edge.splitting.chain import Machine

__all__ = ["Chain", "DataFrom", "Seating", "Terminal", "seat_chains", "slowest", "spell"]

DataFrom = Literal["terminal", "segments"]


@dataclass(frozen=True)
class Terminal:
    """One that is there and can train.

    Attributes:
        number: stable over a run.
        node: Flower's id of it.
        machine: how fast it is, and how much memory it has.
        samples: of its own.
        loads: it can load any segment of the training data.
        edge: it belongs to; empty where there are none.
    """

    number: int
    node: int
    machine: Machine
    samples: int = 0
    loads: bool = False
    edge: str = ""

    def heads(self, data: DataFrom) -> bool:
        """Whether it can hold place 0."""
        return self.samples > 0 if data == "terminal" else self.loads


@dataclass(frozen=True)
class Chain:
    """Who holds what.

    Attributes:
        number: see the module.
        terminals: by place.
        segment: of the training data; None: place 0 has samples of its own.
        spans: units of each place, `[start, stop)`; empty until they are planned.
    """

    number: int
    terminals: tuple[Terminal, ...]
    segment: int | None = None
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Seating:
    """Of a round.

    Attributes:
        chains: in the order of their numbers.
        spares: in the order of theirs.
    """

    chains: tuple[Chain, ...]
    spares: tuple[Terminal, ...]


def seat_chains(
    terminals: Sequence[Terminal],
    pieces: Mapping[str, int],
    *,
    data: DataFrom = "terminal",
    segments: int | None = None,
    chains: int | None = None,
    round: int = 1,
) -> Seating:
    """As many chains as the terminals make.

    Args:
        terminals: who is there.
        pieces: by edge, in the order of the layers, into how many its part is cut; one edge `""` where there are none.
        data: who has samples: some terminals, or whoever loads a segment.
        segments: how many there are; None: one for each chain. More than chains take turns, round by round.
        chains: at most so many; the other terminals are spares.
        round: from 1 on.

    Raises:
        NotEnoughNodes: not even one chain; says how many terminals are missing, and where.

    >>> there = [Terminal(n, 100 + n, Machine(1e9), samples=50) for n in range(7)]
    >>> seating = seat_chains(there, {"": 3})
    >>> [[one.number for one in chain.terminals] for chain in seating.chains], [one.number for one in seating.spares]
    ([[0, 1, 2], [3, 4, 5]], [6])
    """
    left = {edge: sorted((t for t in terminals if t.edge == edge), key=lambda t: t.number) for edge in pieces}
    first = next(iter(pieces))
    holders = [one for one in left[first] if one.heads(data)]
    count = min([len(holders), *(len(left[edge]) // need for edge, need in pieces.items())])
    if not count:
        raise NotEnoughNodes(_too_few(left, pieces, len(holders), data))
    count = min([count, *(most for most in (chains, segments) if most is not None)])
    seated: list[list[Terminal]] = []
    for _ in range(count):
        head = next(one for one in left[first] if one.heads(data))
        left[first].remove(head)
        row = [head]
        for edge, need in pieces.items():
            # Whoever could not begin a chain is of use here, and those who could are left to begin others.
            able = sorted(left[edge], key=lambda one: (edge == first and one.heads(data), one.number))
            row += sorted(able[: need - (edge == first)], key=lambda one: one.number)
            left[edge] = [one for one in left[edge] if one not in row]
        seated.append(row)
    found = []
    for place, row in enumerate(seated):
        segment = None
        if data == "segments":
            segment = place if segments is None else ((round - 1) * count + place) % segments
        found.append(Chain(row[0].number if segment is None else segment, tuple(row), segment))
    spares = sorted((one for rest in left.values() for one in rest), key=lambda one: one.number)
    return Seating(tuple(sorted(found, key=lambda one: one.number)), tuple(spares))


def slowest(chains: Sequence[Chain]) -> list[Machine]:
    """By place, a machine no faster and no larger than that of any chain: cuts for it fit all.

    >>> slow, small = Machine(1e6), Machine(1e9, memory_bytes=10)
    >>> slowest([Chain(n, (Terminal(n, n, one),)) for n, one in enumerate((slow, small))])
    [Machine(flops_per_s=1000000.0, memory_bytes=10, name='place 0')]
    """
    found = []
    for place in range(len(chains[0].terminals)):
        machines = [chain.terminals[place].machine for chain in chains]
        rooms = [one.memory_bytes for one in machines if one.memory_bytes is not None]
        rate = min(one.flops_per_s for one in machines)
        found.append(Machine(rate, min(rooms) if rooms else None, f"place {place}"))
    return found


def _too_few(left: Mapping[str, Sequence[Terminal]], pieces: Mapping[str, int], holders: int, data: DataFrom) -> str:
    for edge, need in pieces.items():
        if (have := len(left[edge])) < need:
            who, what = (f" of edge {edge!r}", "its part of the model") if edge else ("", "the model")
            return (
                f"{have} terminals{who} answer and {what} is cut into {need} pieces, one for each; wait for "
                f"{need - have} more, or cut it into fewer pieces"
            )
    assert not holders
    what = "has samples of its own" if data == "terminal" else "can load a segment"
    return f"no terminal that could begin a chain {what}; give pieces_client " + (
        "a function of (context) that has some, on one terminal or more"
        if data == "terminal"
        else "a function of (context, segment)"
    )


def spell(start: int, stop: int) -> str:
    """Units start .. stop-1, in words.

    >>> spell(2, 4), spell(5, 6)
    ('units 2 to 3', 'unit 5')
    """
    return f"unit {start}" if stop == start + 1 else f"units {start} to {stop - 1}"
