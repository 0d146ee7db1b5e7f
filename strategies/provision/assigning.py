"""Who is given how large a model: a size, a mapping, a property, or a function of your own. Nothing here slices.

A number is a rate: the share of channels, at all the depth there is. A `Size` is a rate and a depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flower_edge.errors import ConfigError
from flower_edge.submodels.sizes import Size

__all__ = ["Assign", "rate_by_property", "size_of"]

#: The size of a node in a round: one for all, one by key, or a function of the round's number, the node's key, and what
#: is known of the node by name (its properties; its node config in a `LocalGrid`).
Assign = float | Size | Mapping[str, float | Size] | Callable[[int, str, Mapping[str, Any]], float | Size]


def rate_by_property(
    name: str, rates: Mapping[Any, float | Size], default: float | Size | None = None
) -> Callable[[int, str, Mapping[str, Any]], float | Size]:
    """A rate, or a size, by what a node tells of itself.

    Args:
        name: of the property, such as `device-class`.
        rates: by its value.
        default: for a node that tells another value, or none; `None` refuses it.

    Raises:
        ConfigError: a rate that is none; (when asked) a node without a rate.

    >>> assign = rate_by_property("device-class", {"phone": 0.25, "server": 1.0}, default=0.5)
    >>> assign(1, "7", {"device-class": "phone"}), assign(1, "8", {})
    (0.25, 0.5)
    """
    for value, rate in rates.items():
        Size.of(rate, f"rates[{value!r}]")
    if default is not None:
        Size.of(default, "default")
    known = dict(rates)

    def assign(round: int, key: str, row: Mapping[str, Any]) -> float | Size:
        rate: float | Size | None = known.get(row.get(name), default)
        if rate is None:
            raise ConfigError(
                f"node {key} tells {name} = {row.get(name)!r}, and there are rates for {list(known)}; "
                "give rate_by_property(..., default=)"
            )
        return rate

    return assign


def size_of(assign: Assign, round: int, key: str, row: Mapping[str, Any]) -> Size:
    """The size of one node.

    Raises:
        ConfigError: it is none, or a mapping does not name the node.

    >>> size_of({"0": 0.5}, 1, "0", {})
    Size(rate=0.5, depth=0)
    """
    if isinstance(assign, Mapping):
        if key not in assign:
            raise ConfigError(f"assign has no rate for node {key}; it has {list(assign)[:8]}")
        return Size.of(assign[key], f"assign[{key!r}]")
    if callable(assign):
        return Size.of(assign(round, key, row), f"assign({round}, {key!r}, …)")
    return Size.of(assign, "assign")
