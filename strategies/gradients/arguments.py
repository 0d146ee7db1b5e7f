"""What `GradientExchange` may be told: each argument by itself, refused by its name. Nothing here acts on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from flower_edge.errors import ConfigError

from ..arguments import check_choices, check_counts

__all__ = ["check_arguments", "check_rate"]

_CHOICES: Final = {"form": ("server", "ring"), "mailbox": ("relay", "shared-memory")}


def check_arguments(
    *,
    choices: Mapping[str, str],
    counts: Mapping[str, tuple[int, int]],
    momentum: float,
    weight_decay: float,
    nesterov: bool,
    fraction_evaluate: float,
) -> None:
    """Refuse values that cannot be.

    Args:
        choices: one of a few words.
        counts: whole numbers, each with the least it may be.
        momentum, weight_decay, nesterov, fraction_evaluate: of `GradientExchange`.

    Raises:
        ConfigError: names the argument, what came and what was expected.
    """
    check_choices(choices, _CHOICES)
    check_counts(counts)
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum = {momentum!r}: expected 0 to below 1")
    if not 0 <= weight_decay < math.inf:
        raise ConfigError(f"weight_decay = {weight_decay!r}: expected a finite number, 0 or more")
    if nesterov and not momentum:
        raise ConfigError("nesterov=True without momentum: there is nothing to look ahead with; set momentum=0.9")
    if not 0 <= fraction_evaluate <= 1:
        raise ConfigError(f"fraction_evaluate = {fraction_evaluate!r}: expected a share from 0 to 1")


def check_rate(rate: Any, version: int) -> float:
    """The learning rate of an update.

    Raises:
        ConfigError: not a finite number, 0 or more.
    """
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 <= rate < math.inf:
        raise ConfigError(f"learning_rate = {rate!r} for update {version}: expected a finite number, 0 or more")
    return float(rate)
