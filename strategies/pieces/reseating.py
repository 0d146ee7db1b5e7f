"""A terminal of a chain left in mid-round: who takes its piece. Pure functions; nothing here sends.

    a spare terminal        takes its place, one of its own edge first
    a neighbour             in the chain takes its piece beside its own: the one that is quicker with both
    nobody                  has the memory for it, or the samples went with it: the chain is dropped for the round

The chain then begins its round again from where the round began, so nothing is merged of what was made before.

Source: [4] ¶52-56 (docs/sources.md): a piece whose terminal leaves is given to another one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flower_edge.splitting.costs import Job, memory_bytes, unit_flops
from flower_edge.splitting.profile import ModelProfile

from .seating import Chain, DataFrom, Terminal, spell

__all__ = ["Reseated", "Room", "reseated"]

Span = tuple[int, int]


@dataclass(frozen=True)
class Room:
    """Who can hold which units.

    Attributes:
        profile: of the model.
        job: batch size, and what the optimiser keeps.
    """

    profile: ModelProfile
    job: Job

    def fits(self, terminal: Terminal, span: Span) -> bool:
        """Whether it has the memory."""
        most = terminal.machine.memory_bytes
        return most is None or self.needed_bytes(span) <= most

    def needed_bytes(self, span: Span) -> int:
        """An estimate, as `balanced` makes it."""
        start, stop = span
        before = memory_bytes(self.profile, start, self.job)
        entering = 4 * self.job.batch_size * self.profile.cuts[start].values
        return memory_bytes(self.profile, stop, self.job) - before + entering

    def step_s(self, terminal: Terminal, span: Span) -> float:
        """Of a batch, forward and backward."""
        start, stop = span
        flops = float(unit_flops(self.profile)[start:stop].sum())
        return self.job.batch_size * flops / terminal.machine.flops_per_s


@dataclass(frozen=True)
class Reseated:
    """What becomes of a chain.

    Attributes:
        chain: with its new terminals and spans; None: it is dropped.
        spares: those that are left.
        told: of each place that was given to another terminal, or of the end: in words, with numbers for an event.
    """

    chain: Chain | None
    spares: tuple[Terminal, ...]
    told: tuple[tuple[str, dict[str, Any]], ...]


def reseated(chain: Chain, lost: Collection[int], spares: Sequence[Terminal], room: Room, data: DataFrom) -> Reseated:
    """A chain without the terminals at these places.

    Args:
        chain: with its spans.
        lost: places whose terminals are gone.
        spares: terminals that are there and have no place, in order.
        room: who can hold which units.
        data: who has samples.
    """
    seats: list[tuple[Terminal | None, Span]] = [
        (None if place in lost else one, span)
        for place, (one, span) in enumerate(zip(chain.terminals, chain.spans, strict=True))
    ]
    left, told = list(spares), list[tuple[str, dict[str, Any]]]()
    if 0 in lost and data == "terminal":
        holder = chain.terminals[0].number
        text = f"chain {chain.number} ends for this round: its samples were terminal {holder}'s, which is gone"
        return Reseated(None, tuple(left), ((text, {"chain": chain.number, "from": holder}),))

    def may(one: Terminal, span: Span) -> bool:
        return room.fits(one, span) and (span[0] > 0 or one.heads(data))

    def taker(place: int) -> tuple[int, Terminal, Span] | None:
        """Who takes a place: the index of its own seat, who it is, and what it holds then."""
        index = _index(seats, chain.spans[place])
        able = [one for one in left if may(one, seats[index][1])]
        if not able:
            return _neighbour(seats, index, room, may)
        spare = min(able, key=lambda one: (one.edge != chain.terminals[place].edge, left.index(one)))
        return index, spare, seats[index][1]

    waiting = sorted(lost)
    while waiting:
        # The first that anybody takes: whoever does may take the next one's as well, where a whole row is gone.
        place, found = next(((one, who) for one in waiting if (who := taker(one))), (waiting[0], None))
        index, gone = _index(seats, chain.spans[place]), chain.terminals[place]
        span = seats[index][1]
        values: dict[str, Any] = {"chain": chain.number, "from": gone.number, "start": span[0], "stop": span[1]}
        if found is None:
            text = (
                f"chain {chain.number} ends for this round: no spare terminal, and no neighbour with the memory, "
                f"takes {spell(*span)} of terminal {gone.number}, which is gone"
            )
            return Reseated(None, tuple(spares), (*told, (text, values)))
        at, one, both = found
        seats[min(index, at) : max(index, at) + 1] = [(one, both)]
        waiting.remove(place)
        if at == index:
            left.remove(one)
            text = f"chain {chain.number}: the spare terminal {one.number} takes {spell(*span)} of {gone.number}"
        else:
            text = f"chain {chain.number}: terminal {one.number} takes {spell(*span)} of {gone.number} beside its own"
        told.append((text, {**values, "to": one.number}))
    terminals = tuple(one for one, _ in seats if one is not None)
    return Reseated(
        replace(chain, terminals=terminals, spans=tuple(span for _, span in seats)), tuple(left), tuple(told)
    )


def _index(seats: Sequence[tuple[Terminal | None, Span]], span: Span) -> int:
    """Of the seat that a place has now; nobody has taken it, so it begins where it did."""
    return next(index for index, (_, held) in enumerate(seats) if held[0] == span[0])


def _neighbour(
    seats: Sequence[tuple[Terminal | None, Span]], index: int, room: Room, may: Any
) -> tuple[int, Terminal, Span] | None:
    found: list[tuple[float, int, Terminal, Span]] = []
    for at in (index - 1, index + 1):
        if not 0 <= at < len(seats) or (one := seats[at][0]) is None:
            continue
        both = (min(seats[at][1][0], seats[index][1][0]), max(seats[at][1][1], seats[index][1][1]))
        if may(one, both):
            found.append((room.step_s(one, both), at, one, both))
    if not found:
        return None
    _, at, one, both = min(found, key=lambda each: each[:2])
    return at, one, both
