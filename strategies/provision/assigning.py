"""Who is given how wide a model: a rate, a mapping, a property, or a function of your own. Nothing here slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flower_edge.errors import ConfigError
from flower_edge.submodels.choices import check_rate

__all__ = ["Assign", "rate_by_property", "rate_of"]

#: The rate of a node in a round: one for all, one by key, or a function of the round's number, the node's key, and what
#: is known of the node by name (its properties; its node config in a `LocalGrid`).
Assign = float | Mapping[str, float] | Callable[[int, str, Mapping[str, Any]], float]


def rate_by_property(
    name: str, rates: Mapping[Any, float], default: float | None = None
) -> Callable[[int, str, Mapping[str, Any]], float]:
    """A rate by what a node tells of itself.

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
    known = {value: check_rate(rate, f"rates[{value!r}]") for value, rate in rates.items()}
    fallback = None if default is None else check_rate(default, "default")

    def assign(round: int, key: str, row: Mapping[str, Any]) -> float:
        rate = known.get(row.get(name), fallback)
        if rate is None:
            raise ConfigError(
                f"node {key} tells {name} = {row.get(name)!r}, and there are rates for {list(known)}; "
                "give rate_by_property(..., default=)"
            )
        return rate

    return assign


def rate_of(assign: Assign, round: int, key: str, row: Mapping[str, Any]) -> float:
    """The rate of one node.

    Raises:
        ConfigError: it is none, or a mapping does not name the node.

    >>> rate_of({"0": 0.5}, 1, "0", {})
    0.5
    """
    if isinstance(assign, Mapping):
        if key not in assign:
            raise ConfigError(f"assign has no rate for node {key}; it has {list(assign)[:8]}")
        return check_rate(assign[key], f"assign[{key!r}]")
    if callable(assign):
        return check_rate(assign(round, key, row), f"assign({round}, {key!r}, …)")
    return check_rate(assign, "assign")
