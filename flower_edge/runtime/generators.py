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
from typing import Any

import numpy as np

__all__ = ["derive_seed", "generator_state", "kept_generators", "restore_generators", "seeded_call"]


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
    before = generator_state()
    try:
        yield
    finally:
        restore_generators(before)


@contextmanager
def seeded_call(seed: int) -> Iterator[None]:
    """Inside, the global generators start from `seed`; outside they are untouched.

    >>> random.seed(1); before = random.getstate()
    >>> with seeded_call(5):
    ...     _ = random.random()
    >>> random.getstate() == before
    True
    """
    python, legacy = random.getstate(), np.random.get_state(legacy=False)
    torch = sys.modules.get("torch")
    kept = torch.get_rng_state() if torch else None
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch:
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        if torch and kept is not None:
            torch.set_rng_state(kept)
