"""What `Split` may be told: each argument by itself, refused by its name. Nothing here acts on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from flower_edge.errors import ConfigError

from ..arguments import check_choices, check_counts

__all__ = ["check_arguments", "check_share"]

CHOICES: Final = {
    "labels": ("cloud", "device"),
    "variant": ("v1", "v2"),
    "measure": ("rounds", "reports"),
    "loss": ("cross-entropy", "mse"),
}


def check_arguments(
    *,
    choices: Mapping[str, Any],
    counts: Mapping[str, tuple[Any, int]],
    amounts: Mapping[str, Any],
) -> None:
    """Refuse values that cannot be.

    Args:
        choices: one of a few words each, see `CHOICES`.
        counts: whole numbers, each with the least it may be.
        amounts: finite numbers, 0 or more.

    Raises:
        ConfigError: names the argument, what came and what was expected.
    """
    check_choices(choices, CHOICES)
    check_counts(counts)
    for name, amount in amounts.items():
        if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 <= amount < math.inf:
            raise ConfigError(f"{name} = {amount!r}: expected a finite number, 0 or more")
    if counts["tail"][0] and choices["labels"] != "device":
        raise ConfigError(
            f"tail = {counts['tail'][0]} with labels='cloud': last units on the device need labels='device'; set it, "
            "or leave tail out"
        )


def check_share(name: str, share: Any) -> None:
    """Refuse what is no share of samples.

    Raises:
        ConfigError: not above 0 and at most 1, nor None.
    """
    if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
        raise ConfigError(f"{name} = {share!r}: expected a share above 0 and at most 1, or None")
