"""`waves`: sets in parts of bounded size, so that no message grows with what is shared. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import ConfigError, WireError

__all__ = ["Part", "check_part", "waves"]


class Part(NamedTuple):
    """Rows `start` … `stop` - 1 of the `samples` of a set."""

    key: str
    start: int
    stop: int
    samples: int


def waves(samples: Mapping[str, int], row_bytes: int, piece_bytes: int) -> list[list[Part]]:
    """Sets in parts, in their order; the parts of one list are of one message and at most `piece_bytes` together.

    A row that is larger than that goes alone. A set without samples is left out.

    Args:
        samples: how many rows, by set.
        row_bytes: of a row.
        piece_bytes: the most a message carries.

    Raises:
        ConfigError: sizes below 1.

    >>> waves({"a": 3, "b": 2}, row_bytes=10, piece_bytes=40)
    [[Part(key='a', start=0, stop=3, samples=3), Part(key='b', start=0, stop=1, samples=2)], \
[Part(key='b', start=1, stop=2, samples=2)]]
    """
    if row_bytes < 1 or piece_bytes < 1:
        raise ConfigError(f"row_bytes = {row_bytes}, piece_bytes = {piece_bytes}: expected 1 or more")
    most = max(1, piece_bytes // row_bytes)
    planned: list[list[Part]] = []
    room = 0
    for key, count in samples.items():
        start = 0
        while start < count:
            if not room:
                planned.append([])
                room = most
            stop = min(count, start + room)
            planned[-1].append(Part(key, start, stop, count))
            room -= stop - start
            start = stop
    return planned


def check_part(part: Part, held: int) -> None:
    """Refuse a part that does not go on where the receiver is.

    Args:
        part: what came.
        held: rows of that set the receiver has; a part that starts at 0 begins anew.

    Raises:
        WireError: a gap, a part that goes back, or one that is outside its set.

    >>> check_part(Part("a", 4, 6, samples=10), held=3)
    Traceback (most recent call last):
    flower_edge.errors.WireError: set 'a': rows 4..6 of 10 came and 3 are here; send it again from row 0
    """
    if not (0 <= part.start < part.stop <= part.samples and part.start in (0, held)):
        raise WireError(
            f"set {part.key!r}: rows {part.start}..{part.stop} of {part.samples} came and {held} are here; "
            "send it again from row 0"
        )
