"""`Watch`: what a session tells, read once for all who look, and not on the thread that answers them.

Nothing here draws.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ...runtime.compression.session_torch import CompressionSession
    from ...runtime.compression.settings import CompressionSettings
    from ...runtime.compression.told import Told

__all__ = ["Watch"]

#: Seconds for which what was told is taken to hold.
_FRESH_S: Final = 0.4


class Watch:
    """Reads a session for any number of pages.

    Proposals and exports may wait for an iteration to end: each has a thread of its own, so that none holds up another,
    nor a page, nor a button.

    Args:
        session: to read.
    """

    def __init__(self, session: CompressionSession) -> None:
        self._session = session
        self._lock = asyncio.Lock()
        self._reader = ThreadPoolExecutor(1, "page, reading")
        self._proposer = ThreadPoolExecutor(1, "page, proposing")
        self._exporter = ThreadPoolExecutor(1, "page, exporting")
        self._told: Told | None = None
        self._read_at_s = 0.0

    async def told(self, fresh: bool = False) -> Told:
        """What the session tells now, or told a moment ago; `fresh`: now."""
        async with self._lock:
            if self._told is not None and not fresh and time.monotonic() - self._read_at_s <= _FRESH_S:
                return self._told
            now: Told = await asyncio.get_running_loop().run_in_executor(self._reader, self._session.told)
            self._told, self._read_at_s = now, time.monotonic()
            return now

    async def proposed(self, settings: CompressionSettings) -> dict[str, Any]:
        """What the session would choose, and the most that could be had; goals that it would refuse are said in
        "refused".

        Raises:
            FringeError, SplitError: settings that do not go with its task or its machines.
        """

        def propose() -> dict[str, Any]:
            return self._session.propose(settings, refuse=False)

        return await asyncio.get_running_loop().run_in_executor(self._proposer, propose)

    async def exported(self, make: Callable[[], str]) -> str:
        """A text that the session makes; one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._exporter, make)

    def close(self) -> None:
        """End the threads, once they are done."""
        self._exporter.shutdown(wait=False, cancel_futures=True)
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._proposer.shutdown(wait=False, cancel_futures=True)
