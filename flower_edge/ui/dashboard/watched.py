"""`Watched`: the runs that are there, each read once for all who look, and not on the thread that answers them.

Nothing here draws.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from ...errors import ConfigError
from ...monitoring.follower import RunFollower
from ...monitoring.rounds import latest, total
from ...monitoring.run_state import RunState
from ...store.places import by_age
from .device_table import DeviceLine

__all__ = ["Entry", "Watched"]

#: Runs that a list shows, the newest ones, and how many of them are read to their end for it.
MOST_LISTED: Final = 200
MOST_READ: Final = 40
#: Seconds for which what was read is taken to hold.
_FRESH_S: Final = 0.4

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Entry:
    """A run in the list; None where it was not read or not recorded."""

    folder: str
    name: str
    status: str
    started_at: str
    rounds: int | None = None
    accuracy: float | None = None
    bytes: float | None = None
    duration_s: float | None = None
    refusals: int | None = None


class Watched:
    """Reads runs for any number of pages.

    Args:
        place: a run folder, or a folder of run folders.
        devices: gives the devices of the server beside which this stands; None: there is none.
    """

    def __init__(self, place: Path, devices: Callable[[], Sequence[DeviceLine]] | None = None) -> None:
        self.place, self._devices = place, devices
        #: The run's name, where it is one run that is watched.
        self.single = place.name if (place / "run.json").is_file() else None
        self._followers: dict[str, RunFollower] = {}
        self._looked_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._listed: tuple[float, list[Entry]] = (-1.0, [])
        #: Runs whose page was opened; of all others that have ended only the line of the list is kept.
        self._opened: set[str] = set()
        self._ended: dict[str, Entry] = {}
        self._reader = ThreadPoolExecutor(2, "dashboard, reading")

    def close(self) -> None:
        """End the threads, once they are done."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def names(self) -> list[str]:
        """The folders of runs that are there, oldest first."""
        if self.single is not None:
            return [self.single]
        return [path.name for path in by_age(self.place)]

    async def knows(self, name: str) -> bool:
        """Whether there is or was such a run; one that is gone is known as long as somebody looked at it."""
        if name in self._opened:
            return True
        return name in await self._off(self.names)

    async def entries(self) -> list[Entry]:
        """The list, newest first."""
        return await self._off(self._entries)

    @property
    def has_devices(self) -> bool:
        """Whether there is a server whose devices are shown."""
        return self._devices is not None

    async def devices(self) -> list[DeviceLine]:
        """Its devices now."""
        return [] if self._devices is None else list(await self._off(self._devices))

    async def seen(self, name: str, draw: Callable[[RunFollower, RunState], _Found]) -> _Found:
        """What `draw` makes of a run as it is now; it is called on another thread, and nobody writes meanwhile."""
        self._opened.add(name)
        return await self._off(lambda: self._seen(name, draw))

    async def ask_to_stop(self, name: str, why: str) -> None:
        """Ask a run to stop.

        Raises:
            ConfigError: it does not run, or its folder cannot be written to.
        """

        def ask() -> None:
            run = self._seen(name, lambda follower, _: follower.run)
            if run is None:
                raise ConfigError(f"{name} is gone; nothing is left to stop")
            try:
                run.ask_to_stop(why)
            except OSError as error:
                raise ConfigError(
                    f"{run.path} cannot be written to ({error.strerror}); stop the run where it runs"
                ) from error

        await self._off(ask)

    async def _off(self, call: Callable[[], _Found]) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._reader, call)

    def _follower(self, name: str) -> RunFollower:
        with self._lock:
            found = self._followers.get(name)
            if found is None:
                path = self.place if self.single is not None else self.place / name
                found = self._followers[name] = RunFollower(path)
            return found

    def _seen(self, name: str, draw: Callable[[RunFollower, RunState], _Found]) -> _Found:
        follower = self._follower(name)
        with follower.lock:
            if time.monotonic() - self._looked_s.get(name, -1.0) > _FRESH_S:
                follower.look()
                self._looked_s[name] = time.monotonic()
            return draw(follower, follower.state)

    def _line(self, name: str) -> Entry:
        if name in self._ended:
            return self._ended[name]
        entry = self._seen(name, _entry)
        if entry.status not in ("running", "missing") and name not in self._opened:
            self._ended[name] = entry
            with self._lock:
                self._followers.pop(name, None)
                self._looked_s.pop(name, None)
        return entry

    def _entries(self) -> list[Entry]:
        at_s, entries = self._listed
        if at_s >= 0 and time.monotonic() - at_s < _FRESH_S:
            return entries
        names = self.names()[-MOST_LISTED:][::-1]
        entries = [self._line(name) if place < MOST_READ else _unread(self.place / name)
                   for place, name in enumerate(names)]  # fmt: skip
        self._listed = (time.monotonic(), entries)
        return entries


def _entry(follower: RunFollower, state: RunState) -> Entry:
    run, lines = follower.run, state.lines
    bits = [value for value in (total(lines, "up_bits"), total(lines, "down_bits")) if value is not None]
    return Entry(
        follower.path.name,
        follower.name,
        follower.status,
        "" if run is None else str(run.info["started_at"]),
        state.round,
        latest(lines, "accuracy"),
        sum(bits) / 8 if bits else None,
        age_s(follower, state),
        sum(state.refused_by_code.values()) or None,
    )


def _unread(path: Path) -> Entry:
    follower = RunFollower(path)
    run = follower.read_info()
    return Entry(path.name, follower.name, follower.status, "" if run is None else str(run.info["started_at"]))


def age_s(follower: RunFollower, state: RunState) -> float | None:
    """Seconds from its start to its end, or to now; of one that broke off, to its last row."""
    run = follower.run
    if run is None or follower.status in ("interrupted", "missing"):
        return state.last_wall_s
    try:
        began = datetime.fromisoformat(str(run.info["started_at"]))
        ended = run.info.get("finished_at")
        moment = datetime.fromisoformat(str(ended)) if ended else datetime.now(UTC)
        return max(0.0, (moment - began).total_seconds())
    except (ValueError, TypeError):
        return state.last_wall_s
