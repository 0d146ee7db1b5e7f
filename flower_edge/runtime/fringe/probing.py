"""`Probing`: when a link's goodput is to be probed, and by how many bytes. Pure arithmetic; nothing here sends.

A frame of some dozen bytes is there sooner than clocks and threads can tell, so a pipeline that was compressed well no
longer says what its links give. Such frames do not count. Instead, a frame is sent that carries nothing: 20 ms of the
link as it is taken to be, every ten seconds, and each second while the estimate moves or a frame comes much later than
it should. A late one is not counted itself: of so short a frame only those would be that waited for a thread, and the
estimate could but fall. Where frames say enough by themselves, or where nothing was sent since the last one, none is.
"""

from __future__ import annotations

import math
from typing import Final

from ...fringe.links import LinkEstimate

__all__ = ["Probing"]

_TAKES_S: Final = 0.020
_LEAST_BYTES, _MOST_BYTES = 256, 1 << 15
#: A frame that says little is a reason to look if it is so much later than it should be.
_LATE_S: Final = 0.020
#: An estimate may be far too high: the next probe is larger than the one before by no more than this.
_GROWTH: Final = 4
_AGAIN_S: Final = 1.0
#: So long a probe waits for a moment when nothing else is on its way; under steady traffic there may be none.
_PATIENCE_S: Final = 1.0
_MOVED: Final = 1.5


class Probing:
    """Of one link; its owner locks.

    Args:
        every_s: between two probes; 0: never.

    >>> probing, seen = Probing(30.0), LinkEstimate().sent(100, 0.001)
    >>> probing.arrived(100, 5.0)  # too short to tell
    0.0
    >>> probing.due_bytes(30.0, seen), probing.due_bytes(30.1, seen)  # 20 ms, but not too many at first
    (1024, 0)
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._told_s = 0.0
        self._due_s = self._probed_s = 0.0
        self._last_bytes = _LEAST_BYTES
        self._sent = False
        self._wanted_bytes = _LEAST_BYTES

    @property
    def told_s(self) -> float:
        """When something was last there that was long enough to tell; 0: never."""
        return self._told_s

    def tells(self, size_bytes: int, seconds: float, seen: LinkEstimate, now_s: float) -> bool:
        """Whether a frame that took `seconds`, delay included, is long enough to say anything.

        One that is not, but is much too late, brings the next probe forward.
        """
        if not seen.transfers or 2 * size_bytes >= self._wanted_bytes:
            return True
        if self._every_s and seconds > seen.link.seconds(size_bytes) + _LATE_S:
            self._due_s = min(self._due_s, max(now_s, self._probed_s + _AGAIN_S))
        return False

    def arrived(self, size_bytes: int, now_s: float) -> float:
        """A frame is there: for how many seconds before it nothing was that tells; 0 where this one does not either."""
        self._sent = True
        if 2 * size_bytes < self._wanted_bytes:
            return 0.0
        since_s, self._told_s = (now_s - self._told_s if self._told_s else 0.0), now_s
        self._due_s = max(self._due_s, now_s + self._every_s)
        return since_s

    def moved(self, before: LinkEstimate, after: LinkEstimate, now_s: float) -> None:
        """What a probe made of the estimate; whether there is to be another one soon."""
        ratio = after.link.goodput_bps / before.link.goodput_bps
        self._due_s = now_s + (_AGAIN_S if not 1 / _MOVED < ratio < _MOVED else self._every_s)
        self._sent = self._sent or self._due_s <= now_s + _AGAIN_S

    def due_bytes(self, now_s: float, seen: LinkEstimate, *, alone: bool = True) -> int:
        """Of a probe that is to be sent now; 0: none.

        Args:
            now_s: of the clock of `arrived`.
            seen: the link as it is taken to be.
            alone: no frame is on its way; behind others a probe is only sent when it has waited for a while.
        """
        if not self._every_s or not seen.transfers:
            return 0
        takes_bytes = seen.link.goodput_bps * _TAKES_S / 8
        most_bytes = min(_MOST_BYTES, _GROWTH * self._last_bytes)
        self._wanted_bytes = int(min(max(takes_bytes, _LEAST_BYTES), most_bytes)) if math.isfinite(takes_bytes) else 0
        self._wanted_bytes = self._wanted_bytes or most_bytes
        if not self._sent or now_s < self._due_s + (0.0 if alone else _PATIENCE_S):
            return 0
        self._sent, self._probed_s, self._last_bytes = False, now_s, self._wanted_bytes
        self._due_s = now_s + self._every_s
        return self._wanted_bytes
