"""`RunFollower`: a run folder looked at again and again, reading only what is new.

The run may be in any process of any machine that shares the disk. Whatever is wrong with its files is survived: half a
line waits for its end, a damaged one is passed over and counted, a run folder that is gone is said to be gone. Nothing
here writes or touches the run.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Final, Literal

from ..errors import DataError
from ..store.metrics import Row, parse_lines
from ..store.run_folder import RunFolder, Status
from .run_state import RunState

__all__ = ["RunFollower"]

log = logging.getLogger(__name__)

#: Read at once, so that a long run takes no more memory than its state.
_CHUNK_BYTES: Final = 4 << 20


class RunFollower:
    """Follows one run. Safe to use from several threads; each look reads what is new since the last one.

    Args:
        path: the run folder; it need not be there yet.

    Attributes:
        state: what its rows say so far; to be read after `look`, by one thread at a time, or under `lock`.
        damaged_lines: lines that could not be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        self.lock = threading.RLock()
        self.state = RunState()
        self.damaged_lines = 0
        self._run: RunFolder | None = None
        self._read, self._file_id = 0, 0
        self._config: dict[str, Any] | None = None

    def look(self) -> RunState:
        """Read what is new, and say what all of it amounts to."""
        with self.lock:
            self.read_info()
            try:
                self._read_on()
            except OSError as error:
                log.debug("%s cannot be read now: %s", self.path, error)
            return self.state

    def read_info(self) -> RunFolder | None:
        """Read what the run says of itself, and none of its rows; what was read before stays where that fails."""
        with self.lock:
            try:
                if (self.path / "run.json").is_file():
                    self._run = RunFolder.open(self.path)
            except (DataError, OSError) as error:
                log.debug("%s cannot be read now: %s", self.path, error)
            return self._run

    def _read_on(self) -> None:
        lines = self.path / "metrics.jsonl"
        try:
            file = lines.open("rb")
        except FileNotFoundError:
            return
        with file:
            there = _stat(file.fileno())
            if there[0] != self._file_id or there[1] < self._read:
                # Another file of that name: what was read before is not true any more.
                self.state, self.damaged_lines, self._read = RunState(), 0, 0
            self._file_id = there[0]
            file.seek(self._read)
            rest = b""
            while data := file.read(_CHUNK_BYTES):
                whole, feed, rest = (rest + data).rpartition(b"\n")
                self._read += len(whole) + len(feed)
                self.state.add(self._rows(whole))

    def _rows(self, whole: bytes) -> list[Row]:
        try:
            return list(parse_lines(whole, source=self.path.name))
        except DataError:
            pass
        found: list[Row] = []
        for line in whole.splitlines():
            try:
                found += parse_lines(line, source=self.path.name)
            except DataError as error:
                self.damaged_lines += 1
                log.debug("a line is passed over: %s", error)
        return found

    @property
    def run(self) -> RunFolder | None:
        """The run folder as last read; None before there was one."""
        return self._run

    @property
    def name(self) -> str:
        """What the run is called; until that can be read, its folder's name."""
        return self.path.name if self._run is None else self._run.name

    @property
    def status(self) -> Status | Literal["missing"]:
        """As of the run folder, and "missing" where there is none, any more or yet."""
        if self._run is None or not (self.path / "run.json").exists():
            return "missing"
        return self._run.status

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, as far as it can be read."""
        if self._config is None and self._run is not None:
            try:
                self._config = self._run.config
            except (DataError, OSError, ValueError, TypeError):
                return {}
        return self._config or {}


def _stat(handle: int) -> tuple[int, int]:
    import os

    found = os.fstat(handle)
    return found.st_ino, found.st_size
