"""A program that is to run: started, looked at, started again after a pause that grows. Nothing here knows Flower."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .back_off import BackOff
from .processes import MARKER, Family

__all__ = ["KeptProcess"]


class KeptProcess:
    """One program, its children included.

    Args:
        name: what it is called.
        mark: by which its processes are found again, also by whoever keeps it after this process was killed.
        command: makes its command line; called at each start.
        environment, cwd, log: what it is started with; `log` is appended to.
        on_event: told what happens, in words.
        back_off: how long to wait after an end; by default half a second, doubling up to half a minute.
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
        back_off: BackOff | None = None,
    ) -> None:
        self.name, self._command, self._environment, self._cwd, self._log = name, command, environment, cwd, log
        self._family, self._mark, self._on_event = Family(mark), mark, on_event
        self._process: subprocess.Popen[bytes] | None = None
        #: How often it was started.
        self.starts = 0
        self._back_off, self._due_s = back_off or BackOff(first_s=0.5, most_s=30.0, good_s=60.0), 0.0

    @property
    def runs(self) -> bool:
        """Whether it runs, as far as was looked."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended_with(self) -> int | None:
        """With what it ended; None while it runs, or before it was started."""
        return None if self._process is None else self._process.poll()

    def clear(self) -> None:
        """End what an earlier keeper has left."""
        self._family.stop()

    def look(self) -> bool:
        """Start it if it does not run and its pause is over; whether it was started by this call."""
        if self.runs:
            return False
        if self._process is not None:
            code, self._process = self._process.returncode, None
            wait_s = self._back_off.next_s()
            self._due_s = time.monotonic() + wait_s
            self._on_event(f"{self.name} has ended ({code}); it is started again in {wait_s:g} s, see {self._log}")
            # What it started may live on, and would keep its port or its name.
            self._family.stop()
        if time.monotonic() < self._due_s:
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
        self.starts += 1
        self._back_off.began()
        self._on_event(f"{self.name} is started, process {self._process.pid}")

    def stop(self) -> None:
        """End it, by SIGTERM and, if need be, SIGKILL."""
        self._family.stop()
        self._process = None
