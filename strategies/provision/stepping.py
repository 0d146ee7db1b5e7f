"""Smaller and larger on a ladder of sizes: what a terminal that asks for another model is given. Nothing here slices.

The size that `assign` gives is the ceiling: nobody is given a wider or deeper one, whoever asks.

Source: [4] ¶58-59 and claim 7: a terminal asks for a model of less or more work as its load changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from flower_edge.errors import ConfigError
from flower_edge.runtime.steps.messages import Request
from flower_edge.submodels.sizes import Size

__all__ = ["To", "asked_of", "check_ladder", "reason_of", "size_now", "stepped"]

#: One step on the ladder, or a size.
To = Literal["smaller", "larger"] | float | Size

_ASKED: dict[str, Literal["smaller", "larger"]] = {"smaller-model": "smaller", "larger-model": "larger"}
_LETTERS = 40


def check_ladder(sizes: Sequence[float | Size]) -> tuple[Size, ...]:
    """The sizes, the largest first.

    Raises:
        ConfigError: one that is none, or is not smaller than the one before it.

    >>> check_ladder([1.0, 0.5, Size(0.5, 1)])[-1]
    Size(rate=0.5, depth=1)
    """
    ladder = tuple(Size.of(size, "sizes") for size in sizes)
    for before, after in pairwise(ladder):
        if after == before or not after.is_within(before):
            raise ConfigError(
                f"sizes: {after} comes after {before}; give the largest first, each smaller than the last"
            )
    return ladder


def size_now(wished: Size | None, assigned: Size) -> Size:
    """What a node is given: what it was changed to, as long as the assignment allows as much.

    >>> str(size_now(Size(0.5), Size(1.0))), str(size_now(Size(0.5), Size(0.25)))
    ('rate 0.5', 'rate 0.25')
    """
    return wished if wished is not None and wished.is_within(assigned) else assigned


def stepped(ladder: Sequence[Size], assigned: Size, now: Size, to: To) -> Size:
    """The size one step from this one, or the size that is asked for; the same where there is none.

    Args:
        ladder: as from `check_ladder`.
        assigned: the ceiling.
        now: what the node has.
        to: where to.

    >>> ladder = check_ladder([1.0, 0.5, 0.25])
    >>> [stepped(ladder, Size(0.7), Size(0.7), to).rate for to in ("smaller", "larger", 0.25, 1.0)]
    [0.5, 0.7, 0.25, 0.7]
    """
    if not isinstance(to, str):
        return size_now(Size.of(to), assigned)
    own = [assigned, *(size for size in ladder if size != assigned and size.is_within(assigned))]
    if to == "smaller":
        return next((size for size in own if size != now and size.is_within(now)), now)
    return next((size for size in reversed(own) if size != now and now.is_within(size)), now)


def asked_of(request: Request | None) -> Literal["smaller", "larger"] | None:
    """What a request asks for; `None` where it is about something else.

    >>> asked_of(Request("smaller-model")), asked_of(Request("overload"))
    ('smaller', None)
    """
    return None if request is None else _ASKED.get(request.kind)


def reason_of(request: Request) -> str:
    """Why, in the terminal's words.

    >>> reason_of(Request("smaller-model", {"load": 0.97}))
    'terminal asks: load 0.97'
    """
    told = ", ".join(f"{name} {value}"[:_LETTERS] for name, value in list(request.values.items())[:4])
    return f"terminal asks: {told}" if told else "terminal asks"
