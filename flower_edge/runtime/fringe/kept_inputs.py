"""`KeptInputs`: a bounded sample of what was asked, in memory only, for healing with what a pipeline really sees.

While there is room every sample is kept. After that each new one takes the place of one at random, so that of a sample
that was asked n samples ago (1 - 1/room)^n is left: recent ones are likelier than old ones.

    all requests alike (Vitter's reservoir)   after a year of day, night is never seen
    the latest                                one burst of nearly equal pictures is all there is
    this                                      reaches back further than the latest, and follows a shift: when as many
                                              samples came as there is room for, 63 % are new, after twice as many 86 %

Nothing here is sent or written.

Source: Aggarwal 2006, On biased reservoir sampling in the presence of stream evolution, algorithm 2.1.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import FringeError

__all__ = ["FRAME_BYTES", "KeptInputs"]

Array = npt.NDArray[Any]

#: That go into one answer, but for a sample that is larger by itself.
FRAME_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 1 << 28


class KeptInputs:
    """Threads may call all of it.

    Args:
        most: samples.
        most_bytes: of all of them; larger samples are fewer then.
        seed: of which one has to go.

    >>> kept = KeptInputs(4)
    >>> kept.add(np.zeros((3, 2), np.float32))
    >>> kept.about()
    {'kept': 3, 'seen': 3, 'most': 4, 'sample_bytes': 8}
    """

    def __init__(self, most: int, *, most_bytes: int = _MOST_BYTES, seed: int = 0) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._held: Array | None = None
        self._kept = self._seen = 0

    def add(self, samples: Array) -> None:
        """Samples [batch, ...] that were asked. Of another shape or dtype than those before: they are forgotten.

        One that is not finite is left out: nobody could learn from it.
        """
        if samples.dtype.kind == "f":
            samples = samples[np.isfinite(samples).all(axis=tuple(range(1, samples.ndim)))]
        if not len(samples):
            return
        with self._lock:
            held = self._held
            if held is None or held.shape[1:] != samples.shape[1:] or held.dtype != samples.dtype:
                room = min(self._most, self._most_bytes // max(samples[0].nbytes, 1))
                held = self._held = np.empty((room, *samples.shape[1:]), samples.dtype)
                self._kept = self._seen = 0
            self._seen += len(samples)
            first = min(len(held) - self._kept, len(samples))
            held[self._kept : self._kept + first] = samples[:first]
            self._kept += first
            if first < len(samples) and len(held):
                held[self._random.integers(len(held), size=len(samples) - first)] = samples[first:]

    def about(self) -> dict[str, int]:
        """How many are kept, were ever asked of this kind, may be kept; bytes of one."""
        with self._lock:
            one_bytes = 0 if self._held is None else int(np.prod(self._held.shape[1:])) * self._held.itemsize
            return {"kept": self._kept, "seen": self._seen, "most": self._most, "sample_bytes": one_bytes}

    def take(self, at: Sequence[int]) -> Array:
        """Copies of some, by their places from 0 to `kept`.

        Raises:
            FringeError: a place where nothing is kept, or more than go into one answer.
        """
        with self._lock:
            if self._held is None or not at or not all(type(one) is int and 0 <= one < self._kept for one in at):
                raise FringeError(
                    f"inputs at {list(at)!r:.60}: expected places from 0 to below {self._kept}; ask again"
                )
            if len(at) > max(1, FRAME_BYTES // max(self._held[0].nbytes, 1)):
                raise FringeError(f"{len(at)} inputs at once: expected no more than {FRAME_BYTES} bytes; ask for fewer")
            return self._held[list(at)]
