"""`Steering`: whether a loop goes on, waits or has ended, for those who press buttons while it runs."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Final, Literal

from ..errors import FringeError

__all__ = ["STATUSES", "Status", "Steering"]

Status = Literal["running", "paused", "goals met", "floor reached", "stopped"]
STATUSES: Final[tuple[Status, ...]] = ("running", "paused", "goals met", "floor reached", "stopped")


class Steering:
    """A status that threads may read, set and wait for.

    >>> steering = Steering()
    >>> steering.set("paused", only=("running",)), steering.status
    (True, 'paused')
    >>> steering.set("goals met", only=("running",)), steering.status
    (False, 'paused')
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._status: Status = "running"

    @property
    def status(self) -> Status:
        """As it is now."""
        with self._changed:
            return self._status

    def set(self, status: Status, only: Collection[str] | None = None) -> bool:
        """Set it, from some other ones only; whether it was set.

        Raises:
            FringeError: no status.
        """
        if status not in STATUSES:
            raise FringeError(f"status = {status!r}: expected one of {', '.join(STATUSES)}")
        with self._changed:
            if only is not None and self._status not in only:
                return False
            self._status = status
            self._changed.notify_all()
            return True

    def wait_while_paused(self) -> Status:
        """The status, once it is not "paused"."""
        with self._changed:
            self._changed.wait_for(lambda: self._status != "paused")
            return self._status
