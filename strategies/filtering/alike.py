"""Replies of one round that are unlike the others: other names of records or of metrics. Nothing here looks at a value.

Flower's strategies merge nothing at all where two replies differ in these. What most replies have is right; where there
is no such most, what the node with the lowest key has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from flower_edge.admission.gate import Offer
from flower_edge.admission.refusal import Refusal

__all__ = ["unlike_the_others"]

Value = TypeVar("Value")
_Names = tuple[str, tuple[str, ...]]


def unlike_the_others(offers: Mapping[int, Offer], keys: Mapping[int, str], *, training: bool) -> dict[int, Refusal]:
    """Refusals by place, of those that are not like most.

    Args:
        offers: by place; each has passed the gate.
        keys: of the nodes they came from, by place.
        training: whether the names of the records of arrays count.
    """
    order = sorted(offers, key=lambda place: (_natural(keys[place]), place))
    odd: dict[int, Refusal] = {}
    if training:
        names = {place: ",".join(sorted(offers[place].arrays)) for place in order}
        right = _most(names)
        for place, came in names.items():
            if right is not None and came != right:
                text = f"its arrays come in the record {came[:80]!r}, those of most others in {right[:80]!r}"
                odd[place] = Refusal("no-arrays", f"{text}; name it as the server's message does")
    metrics = {place: _names(offers[place]) for place in order if place not in odd}
    usual = _most(metrics)
    for place, named in metrics.items():
        if usual is not None and named != usual:
            odd[place] = Refusal("metrics", _difference(named, usual))
    return odd


def _natural(key: str) -> tuple[int, int, str]:
    """Keys that are numbers first, as numbers."""
    return (0, int(key), "") if key.isascii() and key.isdigit() else (1, 0, key)


def _names(offer: Offer) -> _Names:
    ((record, metrics),) = offer.metrics.items()
    return record, tuple(sorted(metrics))


def _most(found: Mapping[int, Value]) -> Value | None:
    # `most_common` keeps the order of the first of equals, which is the lowest key's.
    return Counter(found.values()).most_common(1)[0][0] if found else None


def _difference(came: _Names, usual: _Names) -> str:
    if came[0] != usual[0]:
        return f"its metrics come in the record {came[0][:80]!r}, those of most others in {usual[0][:80]!r}"
    missing, extra = sorted(set(usual[1]) - set(came[1])), sorted(set(came[1]) - set(usual[1]))
    parts = [f"without {', '.join(missing[:4])[:120]}"] if missing else []
    parts += [f"with {', '.join(extra[:4])[:120]}"] if extra else []
    return f"its metrics come {' and '.join(parts)}, unlike those of most others; send the same from every client"
