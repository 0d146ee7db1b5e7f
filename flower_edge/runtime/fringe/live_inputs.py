"""Fetching what an entry keeps of its requests, in bounded frames, checked. Nothing here keeps anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import FringeError
from ...fringe.wire import Wire
from .kept_inputs import FRAME_BYTES

__all__ = ["fetched"]

Array = npt.NDArray[Any]


def fetched(ask: Callable[..., dict[str, Any]], wire: Wire, most: int | None = None) -> Array | None:
    """Samples [samples, ...] that the entry keeps now, evenly from all of its places; None: it keeps none yet.

    Requests go on meanwhile, so a sample may have been taken out and another be there when its frame is asked for.

    Args:
        ask: asks the entry, see `ControlChannel.ask`.
        wire: of requests.
        most: samples.

    Raises:
        TransportError: it cannot be reached.
        FringeError: what it answers is no such thing.
    """
    if most is not None and most < 1:
        raise FringeError(f"most = {most}: expected 1 sample or more, or None for all that are kept")
    told = ask("inputs", at=[])
    kept, one_bytes = (told.get(name) for name in ("kept", "sample_bytes"))
    if not all(type(one) is int and one >= 0 for one in (kept, one_bytes)):
        raise FringeError(f"the entry keeps {told!r:.80}; expected how many samples, and bytes of one")
    assert isinstance(kept, int)
    assert isinstance(one_bytes, int)
    number = kept if most is None else min(kept, most)
    if not number:
        return None
    places = [int(place) for place in np.linspace(0, kept - 1, number).round()]
    together = max(1, FRAME_BYTES // max(one_bytes, 1))
    spec = wire.specs[0]
    found = []
    for first in range(0, number, together):
        at = places[first : first + together]
        samples = ask("inputs", at=at).get("inputs")
        if not isinstance(samples, np.ndarray) or samples.shape != (len(at), *spec.shape):
            raise FringeError(
                f"the entry sent inputs of shape {getattr(samples, 'shape', None)}, expected "
                f"{(len(at), *spec.shape)}; ask again after it has served some"
            )
        if samples.dtype != spec.dtype or not np.isfinite(samples).all():
            raise FringeError(f"the entry sent inputs of {samples.dtype}; expected finite numbers of {spec.dtype}")
        found.append(samples)
    return np.concatenate(found)
