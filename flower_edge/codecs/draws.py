"""`key_of`: the 64-bit key of what a codec draws at a moment. Nothing here draws."""

from __future__ import annotations

import numpy as np

__all__ = ["key_of"]


def key_of(seeds: list[int]) -> int:
    """One key from seed material: `key_of(at.seeds(self.seed))`; each part changes all of it.

    >>> key_of([0, 3, 1]) == key_of([0, 3, 1]) != key_of([0, 1, 3])
    True
    """
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
