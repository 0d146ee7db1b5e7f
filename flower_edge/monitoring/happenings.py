"""What happened during a run: its rows of kind "event", counted, listed and laid out in time.

Reads rows; draws nothing and writes nothing. A row with a `what` (see `flower_edge.events.Event`) belongs to the
timeline; one with a text alone is a plain sentence. There may be very many, so whatever a page shows is bounded here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..store.metrics import Row
from ..store.run_folder import RunFolder

__all__ = ["Dots", "Happening", "Timeline", "by_round", "happening_of", "happenings", "shown", "timeline"]

#: Lanes of a timeline, the most frequent ones; the places in time that are told apart in a lane.
MOST_LANES = 14
PLACES = 60
#: Lines that a page lists, and lines of the table of counts.
MOST_LISTED = 300
MOST_SPANS = 100


@dataclass(frozen=True)
class Happening:
    """One event row; `what` is empty for a plain sentence, and a time is `None` where there is no such clock."""

    round: int
    what: str
    text: str
    node: str = ""
    cell: str = ""
    edge_round: int = 0
    virtual_s: float | None = None
    wall_s: float | None = None


def happenings(run: RunFolder) -> list[Happening]:
    """Every event of a run: by round, then by virtual time, then as recorded.

    Edges work side by side, and each tells what happened when it is done.
    """
    told = (happening_of(row) for row in run.rows("event"))
    return sorted(told, key=lambda one: (one.round, math.inf if one.virtual_s is None else one.virtual_s))


def happening_of(row: Row) -> Happening:
    """What one row of kind "event" tells."""
    what, text = str(row.values.get("what", "")), row.values.get("text")
    # Whoever recorded an event in words of their own gets all of these words.
    said = "; ".join(str(value) for value in row.values.values()) if text is None else str(text)
    return Happening(row.round, what, said, row.node, row.cell, row.edge_round, row.virtual_s, row.wall_s)


@dataclass(frozen=True)
class Dots:
    """One lane of a timeline: a kind of event, and how often it happened around which time."""

    what: str
    total: int
    first_s: float
    last_s: float
    #: Middle of a stretch of time, and the events in it; stretches without any are left out.
    places: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class Timeline:
    """Events by kind over time. `left_out` are kinds that were too rare for a lane, with their numbers."""

    virtual: bool
    lanes: tuple[Dots, ...]
    left_out: tuple[tuple[str, int], ...] = ()


def timeline(events: Iterable[Happening], *, most: int = MOST_LANES, places: int = PLACES) -> Timeline | None:
    """The events that have a kind and a time, over virtual time where any has one, else over wall-clock time.

    Events of one lane that are too close together to be told apart share a place. Lanes are in the order in which
    their first event happened.

    Returns:
        `None` where no event has both.

    >>> found = timeline([Happening(1, "entered", "", virtual_s=at) for at in (0.0, 0.001, 90.0)])
    >>> [(lane.what, lane.total, [count for _, count in lane.places]) for lane in found.lanes]
    [('entered', 3, [2, 1])]
    """
    kinds = [event for event in events if event.what]
    virtual = any(event.virtual_s is not None for event in kinds)
    timed: dict[str, list[float]] = {}
    for event in kinds:
        at_s = event.virtual_s if virtual else event.wall_s
        if at_s is not None:
            timed.setdefault(event.what, []).append(at_s)
    if not timed:
        return None
    begin_s = min(min(times) for times in timed.values())
    width_s = (max(max(times) for times in timed.values()) - begin_s) / places or 1.0
    ranked = sorted(timed, key=lambda what: -len(timed[what]))
    lanes = [_dots(what, timed[what], begin_s, width_s, places) for what in ranked[:most]]
    return Timeline(
        virtual,
        tuple(sorted(lanes, key=lambda lane: lane.first_s)),
        tuple((what, len(timed[what])) for what in ranked[most:]),
    )


def _dots(what: str, times_s: Sequence[float], begin_s: float, width_s: float, places: int) -> Dots:
    stretches: dict[int, list[float]] = {}
    for at_s in times_s:
        stretches.setdefault(min(int((at_s - begin_s) / width_s), places - 1), []).append(at_s)
    middle = tuple((sum(stretches[at]) / len(stretches[at]), len(stretches[at])) for at in sorted(stretches))
    return Dots(what, len(times_s), min(times_s), max(times_s), middle)


def by_round(events: Sequence[Happening], *, most: int = MOST_SPANS) -> tuple[list[str], list[list[str]]]:
    """How often each kind of event happened in each round: head and lines of a table.

    Of a run with more than `most` rounds that have events, several rounds share a line.

    >>> by_round([Happening(1, "left", ""), Happening(3, "left", ""), Happening(3, "joined", "")])
    (['round', 'left', 'joined'], [['1', '1', '-'], ['3', '1', '1']])
    """
    kinds = Counter(event.what for event in events if event.what)
    head = sorted(kinds, key=lambda what: -kinds[what])
    rounds = sorted({event.round for event in events if event.what})
    each = -(-len(rounds) // most) or 1
    spans = [rounds[at : at + each] for at in range(0, len(rounds), each)]
    span_of = {number: at for at, span in enumerate(spans) for number in span}
    counts = Counter((span_of[event.round], event.what) for event in events if event.what)
    lines = [
        [
            str(span[0]) if len(span) == 1 else f"{span[0]} to {span[-1]}",
            *(f"{count:,}" if (count := counts[at, what]) else "-" for what in head),
        ]
        for at, span in enumerate(spans)
    ]
    return ["round", *head], lines


def shown(events: Sequence[Happening], most: int = MOST_LISTED) -> list[Happening]:
    """Those a page lists: all of them where they are few, else the first ones of each kind, so that none is missing.

    >>> many = [Happening(1, "entered", str(k)) for k in range(900)] + [Happening(9, "stopped", "reached 0.9")]
    >>> [event.text for event in shown(many, most=4)]
    ['0', '1', 'reached 0.9']
    """
    if len(events) <= most:
        return list(events)
    share = max(most // len({event.what for event in events}), 1)
    seen: Counter[str] = Counter()
    kept = []
    for event in events:
        seen[event.what] += 1
        if seen[event.what] <= share:
            kept.append(event)
    return kept
