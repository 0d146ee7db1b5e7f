"""`Turns`: one thread at a time, and whoever presses a button before the loop that goes on by itself.

torch.fx changes what calling a module means while it traces, and an iteration takes seconds: neither may meet the
other. A plain lock would let the loop take it again and again while somebody waits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]


class Turns:
    """See the module.

    >>> turns = Turns()
    >>> with turns.first(), turns.first():
    ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._waiting = 0

    @contextmanager
    def first(self) -> Iterator[None]:
        """For who has been asked by somebody; may be nested in one thread."""
        with self._changed:
            self._waiting += 1
        try:
            with self._lock:
                yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    @contextmanager
    def last(self) -> Iterator[None]:
        """For a loop: once nobody else waits."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
        with self._lock:
            yield
