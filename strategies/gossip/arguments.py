"""What `Gossip` may be told: each argument by itself, refused by its name. Nothing here knows what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from flwr.serverapp import Grid

from flower_edge.codecs.codec import Codec
from flower_edge.codecs.delta import Delta, kinds_in
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import ConfigError, NestingError
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import find

from ..arguments import check_choices, check_counts
from .initial import INITIAL, Initial

__all__ = ["check_arguments", "check_codec", "check_grid", "check_options"]

_CHOICES: Final = {
    "signalling": ("rows", "requirements", "scalars"),
    "mailbox": ("relay", "shared-memory", "direct"),
    "final": ("server", "averaging", "local"),
    "evaluate": ("own", "mean"),
}
#: Kinds of codecs that carry whole models as well: what they round off is small beside each number, or block.
_WHOLE: Final = frozenset(["identity", "half", "block", "by_layer", "by_size"])


def check_arguments(
    *,
    choices: Mapping[str, str],
    counts: Mapping[str, tuple[int, int]],
    amounts: Mapping[str, float | None],
    averaged_to: float,
    fraction_evaluate: float,
    initial: Initial,
) -> None:
    """Refuse values that cannot be.

    Args:
        choices: one of a few words.
        counts: whole numbers, each with the least it may be.
        amounts: numbers above 0, or None.
        averaged_to, fraction_evaluate, initial: of `Gossip`.

    Raises:
        ConfigError: names the argument, what came and what was expected.
    """
    check_choices(choices, _CHOICES)
    if not callable(initial) and initial not in INITIAL:
        raise ConfigError(f"initial = {initial!r}: expected one of {', '.join(INITIAL)}, or a function of a Start")
    check_counts(counts)
    for name, amount in amounts.items():
        if amount is not None and not (0 < amount < math.inf):
            raise ConfigError(f"{name} = {amount!r}: expected a number above 0, or None")
    if not 0 < averaged_to < 1:
        raise ConfigError(f"averaged_to = {averaged_to!r}: expected a share of the distance, between 0 and 1")
    if not 0 <= fraction_evaluate <= 1:
        raise ConfigError(f"fraction_evaluate = {fraction_evaluate!r}: expected a share from 0 to 1")


def check_codec(codec: Codec) -> None:
    """Refuse codecs that cannot carry what neighbours tell each other.

    Raises:
        ConfigError: names the codec, and what to take instead.
    """
    if not isinstance(codec, VectorCodec | Delta):
        return
    if isinstance(codec, Delta):
        if codec.inner.teacher() is not None:
            raise ConfigError(
                f"codec = {codec!r}: {codec.inner.kind!r} lives on what a server publishes to all, and neighbours hear "
                "none; take one that needs nothing, such as Delta(Sign())"
            )
    elif unfit := sorted(set(kinds_in(codec.config())) - _WHOLE):
        raise ConfigError(
            f"codec = {codec!r}: neighbours exchange whole models, and {', '.join(map(repr, unfit))} is made for what "
            "has changed; take Delta of it, which remembers what was left out: codec=Delta(Sign())"
        )


def check_grid(grid: Grid, staleness: int) -> None:
    """Refuse grids on which gossip cannot be what it says.

    Raises:
        NestingError: says what to leave out, or what to take instead.
    """
    if find(grid, SteppedGrid) is not None:
        raise NestingError(
            "Gossip on a SteppedGrid: a worker mixes once per round, and slices of a round carry no models of "
            "neighbours; leave SteppedGrid out"
        )
    if staleness and find(grid, VirtualClock) is not None:
        raise NestingError(
            f"staleness={staleness} on a VirtualClock, where every round lasts until its last reply; "
            "use RoundClock and a world that models processing times"
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that `Gossip.start` does not have.

    Raises:
        ConfigError: names them, and what to do instead.
    """
    if not options:
        return
    instead = ""
    if "idle_s" in options:
        instead = (
            "; idle_s= is of no use to it: a round in which nobody is there changes nothing and takes no time. "
            "To wait for workers, leave it out and take GridProxy(grid, expected_nodes=...)"
        )
    raise ConfigError(f"Gossip.start got {sorted(options)}; its options beside Flower's are run= and resume={instead}")
