"""Jitter of Flower's background threads, out of the way of whoever samples.

A ServerApp's heartbeats and the retries of its calls draw their jitter from the process-global `random`, and so do
Flower's strategies when they sample nodes: a round that begins after a heartbeat (every half a minute) samples others
than with the same seed on a faster machine. Here the threads are given a generator of their own.

What is touched in flwr 1.41: the name `random` in the modules below. Where a release has moved one of them, or does
not use that name any more, nothing is done.
"""

from __future__ import annotations

import random
import sys
from importlib import import_module
from typing import Final

__all__ = ["give_threads_their_own_jitter"]

_MODULES: Final = (
    "flwr.supercore.heartbeat",
    "flwr.supercore.retry.retry_invoker",
    "flwr.supercore.inflatable.inflatable_utils",
)
_OWN: Final = random.Random()


def give_threads_their_own_jitter() -> None:
    """From now on only strategies, and what is the user's own, draw from `random`. Safe to call again."""
    for name in _MODULES:
        try:
            module = sys.modules.get(name) or import_module(name)
        except ImportError:  # pragma: no cover - another Flower release
            continue
        if getattr(module, "random", None) is random:
            module.random = _OWN  # type: ignore[attr-defined]
