"""Striking a process, from inside at a point of its work or from outside; and disks small enough to be full.

A process that is to be struck has a plan: a file that is not there yet. At its points it looks for it, and when the
plan names the point, the first who takes it (by renaming it) does what it says: so a fault strikes once, and whoever
waits for it sees that it has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

__all__ = [
    "Plan",
    "can_mount",
    "eventually",
    "fill",
    "go_on",
    "is_stopped",
    "make_room",
    "needs_small_disk",
    "small_disk",
    "strike",
]

_BALLAST = "ballast"
#: Generous: a busy machine, and nothing here waits longer than it has to.
LONG_S = 120.0


@dataclass(frozen=True)
class Plan:
    """What is to happen, and where; the file is outside of the disk that is to be full."""

    path: Path

    def arm(self, point: str, how: str, disk: Path | None = None, *, nth: int = 1) -> None:
        """From now on; the `nth` time that the point is reached."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"point": point, "how": how, "disk": str(disk or ""), "nth": nth}))
        os.rename(part, self.path)

    @property
    def struck(self) -> bool:
        """Whether it has happened, or is about to."""
        return self._taken.exists()

    @property
    def _taken(self) -> Path:
        return self.path.with_suffix(".struck")

    def here(self, point: str) -> None:
        """In the process that is to be struck: this is the point."""
        if not self.path.exists():
            return
        try:
            told = json.loads(self.path.read_text())
            if told["point"] not in (point, "any"):
                return
            if told["nth"] > 1:
                self.arm(told["point"], told["how"], Path(told["disk"]), nth=told["nth"] - 1)
                return
            os.rename(self.path, self._taken)
        except (FileNotFoundError, ValueError):
            return  # another thread was faster
        strike(os.getpid(), told["how"], Path(told["disk"]))


def strike(pid: int, how: str, disk: Path | None) -> None:
    """Do it."""
    if how == "disk_full":
        assert disk is not None
        fill(disk)
    else:
        os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)


def go_on(pid: int) -> None:
    """Undo a stop."""
    os.kill(pid, signal.SIGCONT)


def fill(disk: Path) -> None:
    """Until not a page more can be written."""
    with (disk / _BALLAST).open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def make_room(disk: Path) -> None:
    """Undo `fill`."""
    (disk / _BALLAST).unlink()


def is_stopped(pid: int) -> bool:
    """Whether the system says that a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def eventually(true: Callable[[], object], what: str, within_s: float = LONG_S) -> None:
    """Wait for something."""
    until_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until_s, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.01)


@cache
def can_mount() -> bool:
    """Whether a small disk can be mounted here. Root in a container may lack the right to, so it is tried, once."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount(Path(folder), 100)
        except (OSError, subprocess.CalledProcessError):
            return False
        _unmount(Path(folder))
    return True


def needs_small_disk() -> None:
    """Skip the test where there can be none, and say why."""
    if not can_mount():
        pytest.skip("a small disk cannot be mounted here: that takes the rights of root")


def _mount(folder: Path, size_kb: int) -> None:
    options = f"size={size_kb}k,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=True)


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, size_kb: int, *, needed: bool) -> Iterator[Path]:
    """A disk of its own, mounted at `folder`, which is for its owner alone; a plain folder where none is needed."""
    if needed:
        needs_small_disk()
    folder.mkdir(mode=0o700, parents=True)
    if not needed:
        yield folder
        return
    _mount(folder, size_kb)
    try:
        yield folder
    finally:
        _unmount(folder)
