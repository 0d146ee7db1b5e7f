"""A program that is to run: started, looked at, started again after a pause that grows. Nothing here knows Flower."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..launching.processes import MARKER, Family

__all__ = ["KeptProcess", "Pause"]

#: Who has run for so long has started well.
_WELL_S: Final = 60.0


@dataclass
class Pause:
    """Seconds before the next attempt: twice as long after each that failed."""

    least_s: float = 0.5
    most_s: float = 30.0
    _next_s: float = field(default=0.0, init=False)

    def failed(self) -> float:
        """Another attempt has failed: wait so long."""
        self._next_s = min(self.most_s, max(self.least_s, 2 * self._next_s))
        return self._next_s

    def good(self) -> None:
        """It works: the next failure is the first."""
        self._next_s = 0.0


class KeptProcess:
    """One program, its children included.

    Args:
        name: what it is called.
        mark: by which its processes are found again, also by whoever keeps it after this process was killed.
        command: makes its command line; called at each start.
        environment, cwd, log: what it is started with; `log` is appended to.
        on_event: told what happens, in words.
    """

    def __init__(
        self,
        name: str,
        mark: str,
        command: Callable[[], list[str]],
        environment: Mapping[str, str],
        cwd: Path,
        log: Path,
        on_event: Callable[[str], None],
    ) -> None:
        self.name, self._command, self._environment, self._cwd, self._log = name, command, environment, cwd, log
        self._family, self._mark, self._on_event = Family(mark), mark, on_event
        self._process: subprocess.Popen[bytes] | None = None
        self._pause, self._due_s, self._began_s = Pause(), 0.0, 0.0

    @property
    def runs(self) -> bool:
        """Whether it runs, as far as was looked."""
        return self._process is not None and self._process.poll() is None

    def clear(self) -> None:
        """End what an earlier keeper has left."""
        self._family.stop()

    def look(self) -> bool:
        """Start it if it does not run and its pause is over; whether it was started by this call."""
        now_s = time.monotonic()
        if self.runs:
            if now_s - self._began_s > _WELL_S:
                self._pause.good()
            return False
        if self._process is not None:
            code, self._process = self._process.returncode, None
            wait_s = self._pause.failed()
            self._due_s = now_s + wait_s
            self._on_event(f"{self.name} has ended ({code}); it is started again in {wait_s:g} s, see {self._log}")
            # What it started may live on, and would keep its port or its name.
            self._family.stop()
        if now_s < self._due_s:
            return False
        self.start()
        return True

    def start(self) -> None:
        """Start it now."""
        with self._log.open("ab") as out:
            self._process = self._family.start(
                self._command(),
                environment={**self._environment, MARKER: self._mark},
                cwd=self._cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._began_s = time.monotonic()
        self._on_event(f"{self.name} is started, process {self._process.pid}")

    def stop(self) -> None:
        """End it, by SIGTERM and, if need be, SIGKILL."""
        self._family.stop()
        self._process = None
