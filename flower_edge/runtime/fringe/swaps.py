"""`Swap`: what a change of version did; and what machines say they hold, read. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import EdgeError, FringeError

__all__ = ["Swap", "everywhere", "holding", "why_not"]


@dataclass(frozen=True)
class Swap:
    """What a swap did.

    Attributes:
        version: the number that serves now.
        before: the one that did; the same where just this pipeline was served already, and nothing changed.
        load_s: until every machine held it.
        flip_s: until the entry had flipped.
        drain_s: until nothing of the one before was under way.
    """

    version: int
    before: int | None
    load_s: float
    flip_s: float
    drain_s: float


def holding(told: Mapping[str, Mapping[str, Any]]) -> dict[int, dict[str, tuple[str, str | None]]]:
    """By version and machine: the digest of what it holds, and the address of the machine behind.

    Args:
        told: by machine, what `StageServer.statistics` gave.

    Raises:
        FringeError: that is no such thing.

    >>> holding({"camera": {"versions": {"3": "ab"}, "next": {"3": "10.0.0.2:9201"}}, "cloud": {"versions": {}}})
    {3: {'camera': ('ab', '10.0.0.2:9201')}}
    """
    found: dict[int, dict[str, tuple[str, str | None]]] = {}
    try:
        for machine, said in told.items():
            for number, digest in said["versions"].items():
                found.setdefault(int(number), {})[machine] = (str(digest), said["next"].get(number))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FringeError(
            f"machine {machine!r} says that it holds {str(said)[:60]!r}: {error}; expected statistics of a stage"
        ) from error
    return found


def everywhere(told: Mapping[str, Mapping[str, Any]]) -> tuple[int, ...]:
    """Numbers that all machines hold.

    >>> camera, cloud = {"versions": {"3": "ab", "4": "cd"}, "next": {}}, {"versions": {"4": "ef"}, "next": {}}
    >>> everywhere({"camera": camera, "cloud": cloud})
    (4,)
    """
    return tuple(sorted(number for number, held in holding(told).items() if len(held) == len(told)))


def why_not(what: str, lost: Mapping[str, EdgeError]) -> str:
    """A sentence: what did not happen, and which machines are to blame, each with its error.

    >>> why_not("nothing was deployed", {"cloud": EdgeError("it is gone")})
    "nothing was deployed: machine 'cloud': it is gone"
    """
    first, error = next(iter(lost.items()))
    text = str(error) if f"{first!r}" in str(error) else f"machine {first!r}: {error}"
    more = f", nor {', '.join(map(repr, list(lost)[1:]))}" if len(lost) > 1 else ""
    return f"{what}: {text}{more}"
