"""How many examples a node can have, as the operator says it: one number, a table, or a function of the node's key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flower_edge.errors import ConfigError
from flower_edge.rewards.enrolment import Enrolment

__all__ = ["MostExamples", "check_most_examples", "most_of"]

#: One number for all, by key, or by a function of the key. `None` of an `Enrolment` or of a function is no limit.
MostExamples = int | Enrolment | Mapping[str, int | Enrolment] | Callable[[str], int | Enrolment | None]


def check_most_examples(most: MostExamples | None) -> None:
    """Refuse what cannot be one, before anything is sent.

    Raises:
        ConfigError: names the key, where there is one.
    """
    if isinstance(most, Mapping):
        for key, value in most.items():
            if not isinstance(key, str):
                raise ConfigError(f"most_examples has the key {key!r}; keys of nodes are texts, such as '7'")
            _number(value, key)
    elif most is not None and not callable(most):
        _number(most, "")


def most_of(most: MostExamples | None, key: str) -> int | None:
    """What the node with this key can have; 0 where it is not enrolled, `None` where there is no limit.

    Raises:
        ConfigError: a function of the user's that says no number.

    >>> most_of({"7": 600}, "7"), most_of({"7": 600}, "8"), most_of(lambda key: None, "8"), most_of(Enrolment(50), "8")
    (600, 0, None, 50)
    """
    if isinstance(most, Mapping):
        return _number(most[key], key) if key in most else 0
    if callable(most):
        found = most(key)
        return None if found is None else _number(found, key)
    return None if most is None else _number(most, "")


def _number(value: object, key: str) -> int | None:
    found = value.most_examples if isinstance(value, Enrolment) else value
    if found is None and isinstance(value, Enrolment):
        return None
    if type(found) is not int or found < 1:
        whose = f" of node {key!r}" if key else ""
        raise ConfigError(f"most_examples{whose} = {value!r}: expected a whole number, at least 1")
    return found
