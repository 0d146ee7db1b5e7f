"""`Turns`: whose batch the cloud's one shared half computes next, where many connections ask at once.

SplitFed v2 has one half at the cloud for all devices. Batches take turns in the order of step and device, so that a
model does not depend on whose packets were faster. A device that is lost leaves and is not waited for. Nothing here
knows connections or models.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ...errors import ProtocolError

__all__ = ["Turns"]


class Turns:
    """Step i of a device comes after step i of all with a smaller number and after step i - 1 of all others.

    Args:
        numbers: of the devices.
        clock: monotonic seconds.

    >>> turns = Turns([0, 2])
    >>> with turns.of(0, 0, 1.0):
    ...     print("device 0, step 0")
    device 0, step 0
    >>> turns.next
    (0, 2)
    """

    def __init__(self, numbers: Iterable[int], clock: Callable[[], float] = time.monotonic) -> None:
        self._taken = dict.fromkeys(sorted(numbers), 0)
        self._clock = clock
        self._changed = threading.Condition()

    @property
    def next(self) -> tuple[int, int] | None:
        """Which step (from 0 on) of which device is to come; None when nobody is left."""
        with self._changed:
            return min(((taken, number) for number, taken in self._taken.items()), default=None)

    @contextmanager
    def of(self, number: int, step: int, patience_s: float) -> Iterator[None]:
        """Wait for a turn, and have it while the block lasts. A block that raises leaves for good.

        Raises:
            ProtocolError: the device is not (or no longer) among those that take turns, it asks for another step than
                its next, or others kept it waiting for longer than `patience_s` seconds.
        """
        latest_s = self._clock() + patience_s
        with self._changed:
            if self._taken.get(number) != step:
                expected = self._taken.get(number, "none: it has left")
                raise ProtocolError(f"device {number} asks for its turn {step}; expected {expected}")
            while min((taken, other) for other, taken in self._taken.items()) != (step, number):
                left_s = latest_s - self._clock()
                if left_s <= 0.0:
                    waits_for = min((taken, other) for other, taken in self._taken.items())[1]
                    raise ProtocolError(
                        f"device {number} waited {patience_s:g} s for its turn; device {waits_for} is in front of it"
                    )
                self._changed.wait(left_s)
                if number not in self._taken:
                    raise ProtocolError(f"device {number} was taken out while it waited for its turn")
        try:
            yield
        except BaseException:
            self.leave(number)
            raise
        with self._changed:
            if number in self._taken:
                self._taken[number] += 1
            self._changed.notify_all()

    def leave(self, number: int) -> None:
        """Do not wait for this one any more. Safe to call twice."""
        with self._changed:
            self._taken.pop(number, None)
            self._changed.notify_all()
