"""The process-global generators of `random`, NumPy and torch: kept, given back, seeded for one call.

Flower's strategies sample nodes with the global `random`. A client that runs in the same process must not disturb
that stream, and a checkpoint must hold it. torch is touched only if somebody else has imported it.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .flower_private_jitter import give_threads_their_own_jitter

__all__ = [
    "blocks_open",
    "derive_seed",
    "generator_state",
    "give_threads_their_own_jitter",
    "kept_generators",
    "restore_generators",
    "seeded_call",
    "set_aside",
]

#: The states outside the blocks that are open, the outermost first. Every lane of a virtual clock has its own.
_OUTSIDE: ContextVar[tuple[list[Any], ...]] = ContextVar("flower-edge-generators-outside", default=())


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of parts, the same on every machine and Python.

    >>> derive_seed(7, "node-3", 1) == derive_seed(7, "node-3", 1) != derive_seed(7, "node-3", 2)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_state() -> dict[str, Any]:
    """The state of the global generators as a tree of plain values and arrays."""
    version, words, gauss = random.getstate()
    legacy = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "random": [version, list(words), gauss],
        "numpy": {**legacy, "state": dict(legacy["state"])},
    }
    if torch := sys.modules.get("torch"):
        state["torch"] = torch.get_rng_state().numpy().copy()
    return state


def restore_generators(state: dict[str, Any]) -> None:
    """Inverse of `generator_state`; torch's part waits for torch to be imported by its user."""
    version, words, gauss = state["random"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(state["numpy"])
    if "torch" in state:
        import importlib

        try:
            torch = importlib.import_module("torch")
        except ImportError:
            return
        torch.set_rng_state(torch.from_numpy(np.array(state["torch"], dtype=np.uint8)))


@contextmanager
def kept_generators() -> Iterator[None]:
    """Whatever draws from the global generators inside, outside they are where they were.

    >>> random.seed(1); before = random.getstate()
    >>> with kept_generators():
    ...     _ = random.random()
    >>> random.getstate() == before
    True
    """
    outside = _kept()
    _OUTSIDE.set((*_OUTSIDE.get(), outside))
    try:
        yield
    finally:
        _OUTSIDE.set(_OUTSIDE.get()[:-1])
        _give_back(outside)


@contextmanager
def seeded_call(seed: int) -> Iterator[None]:
    """Inside, the global generators start from `seed`; outside they are untouched.

    >>> random.seed(1); before = random.getstate()
    >>> with seeded_call(5):
    ...     _ = random.random()
    >>> random.getstate() == before
    True
    """
    with kept_generators():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if torch := sys.modules.get("torch"):
            torch.default_generator.manual_seed(seed)
        yield


def blocks_open() -> int:
    """In how many blocks of `kept_generators` and `seeded_call` the caller is."""
    return len(_OUTSIDE.get())


@contextmanager
def set_aside(above: int) -> Iterator[None]:
    """Leave the caller's blocks, all but the outermost `above`, while others run, and come back to them.

    The others draw from outside those blocks, and what they have drawn stays drawn when the blocks end.

    >>> random.seed(1); expected = [random.random() for _ in range(2)]
    >>> random.seed(1)
    >>> with seeded_call(5):
    ...     with set_aside(0):
    ...         first = random.random()
    >>> [first, random.random()] == expected
    True
    """
    blocks = _OUTSIDE.get()[above:]
    if not blocks:
        yield
        return
    inside = _kept()
    _give_back(blocks[0])
    try:
        yield
    finally:
        blocks[0][:] = _kept()
        _give_back(inside)


def _kept() -> list[Any]:
    """As `generator_state`, in the generators' own forms; for a moment, not for a checkpoint."""
    torch = sys.modules.get("torch")
    return [random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state() if torch else None]


def _give_back(kept: list[Any]) -> None:
    python, legacy, of_torch = kept
    random.setstate(python)
    np.random.set_state(legacy)
    if of_torch is not None:
        sys.modules["torch"].set_rng_state(of_torch)
