"""Arguments of any strategy, refused by their names: words that are chosen and whole numbers. Nothing acts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord

from flower_edge.errors import ConfigError

__all__ = ["check_choices", "check_counts", "check_start", "scores_of"]


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


def check_start(
    initial_arrays: Any, num_rounds: Any, train_config: ConfigRecord | None, evaluate_config: ConfigRecord | None
) -> None:
    """Refuse what `start` cannot begin with.

    Raises:
        ConfigError: names the argument, what came and what to write.
    """
    if not isinstance(initial_arrays, ArrayRecord):
        raise ConfigError(
            f"initial_arrays is a {type(initial_arrays).__name__}: expected an ArrayRecord; of NumPy arrays by name, "
            "flower_edge.wire.record_of(arrays), of a torch model ArrayRecord(model.state_dict())"
        )
    if not isinstance(num_rounds, Integral) or num_rounds < 0:
        raise ConfigError(f"num_rounds = {num_rounds!r}: expected a whole number, 0 or more")
    for name, config in (("train_config", train_config), ("evaluate_config", evaluate_config)):
        if config is not None and not isinstance(config, ConfigRecord):
            raise ConfigError(f"{name} = {config!r}: expected a ConfigRecord; write ConfigRecord({{...}})")


def scores_of(found: Any) -> MetricRecord | None:
    """What an `evaluate_fn` returned.

    Raises:
        ConfigError: it is neither metrics by name nor None.

    >>> scores_of((0.3, {"accuracy": 0.9}))
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: evaluate_fn returned (0.3, {'accuracy': 0.9}): expected a MetricRecord or None; \
write return MetricRecord({"loss": loss, "accuracy": accuracy})
    """
    if found is None or isinstance(found, MetricRecord | Mapping):
        return found  # type: ignore[return-value]
    raise ConfigError(
        f"evaluate_fn returned {str(found)[:80]}: expected a MetricRecord or None; "
        'write return MetricRecord({"loss": loss, "accuracy": accuracy})'
    )
