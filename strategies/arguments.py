"""Arguments of any strategy, refused by their names: words that are chosen and whole numbers. Nothing acts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flower_edge.errors import ConfigError

__all__ = ["check_choices", "check_counts"]


def check_choices(choices: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> None:
    """Refuse a word that is none of those an argument knows.

    Raises:
        ConfigError: names the argument, what came and what was expected.

    >>> check_choices({"form": "star"}, {"form": ("server", "ring")})
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: form = 'star': expected one of 'server', 'ring'
    """
    for name, value in choices.items():
        if value not in known[name]:
            raise ConfigError(f"{name} = {value!r}: expected one of {', '.join(map(repr, known[name]))}")


def check_counts(counts: Mapping[str, tuple[Any, int]]) -> None:
    """Refuse what is no whole number, or less than the least it may be.

    Raises:
        ConfigError: names the argument, what came and what was expected.

    >>> check_counts({"steps": (0, 1)})
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: steps = 0: expected a whole number, 1 or more
    """
    for name, (count, least) in counts.items():
        if type(count) is not int or count < least:
            raise ConfigError(f"{name} = {count!r}: expected a whole number, {least} or more")
