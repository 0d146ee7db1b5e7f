"""Finding and ending every process one launch started, and none besides.

A launch starts processes that detach themselves (the SuperLink's executor), that are started by others (Ray's) and
that outlive whoever started them. They are found by an environment variable with a value of its own that every child
inherits, and by descent from those. Never by name: two launches, or somebody else's Ray, look the same by name.

Linux tells a process's environment in /proc. Where there is no /proc (macOS) `ps` tells parents and process groups:
then a launch's processes are the descendants of what it started itself, and the process groups they belong to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from ...errors import LaunchError

__all__ = ["MARKER", "Family", "Interrupts"]

#: Environment variable that marks the processes of a launch; its value is the launch's id.
MARKER: Final = "FLOWER_EDGE_LAUNCH_ID"
_PROC: Final = Path("/proc")
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    group: int
    marked: bool


class Family:
    """The processes of one launch.

    Args:
        launch_id: value of `MARKER` in their environments.
        proc: the folder where the system tells about processes; one that does not exist means `ps`.
    """

    def __init__(self, launch_id: str, proc: Path = _PROC) -> None:
        self._mark = f"{MARKER}={launch_id}".encode()
        self._proc = proc if (proc / "self" / "environ").exists() else None
        self._started: list[subprocess.Popen[bytes]] = []
        # Only used without /proc: the process groups of what we started, and those seen among the descendants.
        self._groups: set[int] = set()

    def start(
        self, command: list[str], *, environment: dict[str, str], cwd: Path, **pipes: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process of the launch, in a session of its own: the terminal's Ctrl-C reaches us and not it.

        Args:
            command: program and arguments.
            environment: the whole environment; holds the marker.
            cwd: the working directory.
            pipes: `stdout` and `stderr` as for `subprocess.Popen`.
        """
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, start_new_session=True, **pipes
        )
        self._started.append(process)
        self._groups.add(process.pid)
        return process

    def alive(self) -> set[int]:
        """Ids of the launch's processes that run now, without our own.

        One look may miss an orphan in the very moment it becomes another program: then it has no environment.
        """
        everything = _by_ps() if self._proc is None else _by_proc(self._proc, self._mark)
        found = {p.pid for p in everything if p.marked or (self._proc is None and p.group in self._groups)}
        children: dict[int, list[int]] = {}
        for process in everything:
            children.setdefault(process.parent, []).append(process.pid)
        waiting = list(found)
        while waiting:
            for child in children.get(waiting.pop(), []):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        own_group = os.getpgrp()
        self._groups |= {p.group for p in everything if p.pid in found and p.group != own_group}
        return found - {os.getpid()}

    def stop(self, *, grace_s: float = 5.0, patience_s: float = 10.0) -> None:
        """End them all: SIGTERM, and after `grace_s` seconds SIGKILL, until two looks in a row find none.

        Raises:
            LaunchError: after another `patience_s` seconds some are still there.
        """
        begin_s = time.monotonic()
        asked: set[int] = set()
        empty = 0
        while empty < 2:
            found = self.alive()
            empty = 0 if found else empty + 1
            waited_s = time.monotonic() - begin_s
            if waited_s > grace_s + patience_s:
                pids = " ".join(map(str, sorted(found)))
                raise LaunchError(f"processes {pids} do not end, not even by SIGKILL; look at them with: ps -fp {pids}")
            if waited_s > grace_s:
                _send(found, signal.SIGKILL)
            else:
                _send(found - asked, signal.SIGTERM)
                asked |= found
            time.sleep(_POLL_S)
        for process in self._started:
            process.wait()


class Interrupts:
    """While open, notes Ctrl-C, SIGTERM and SIGHUP instead of letting them break off whatever is being done.

    Signals the caller ignores stay ignored. Outside the main thread nothing is noted: Python delivers no signals there.
    """

    def __init__(self) -> None:
        #: The first one that came, or None.
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = self.signal or signal.Signals(number)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _by_proc(proc: Path, mark: bytes) -> list[_Process]:
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        # A process may end between the two reads; another user's environment is not ours to read, nor is it marked.
        with suppress(OSError, ValueError, IndexError):
            # The second field is the program's name in brackets and may hold anything, brackets too.
            state, parent, group = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            if state in "ZX":
                continue
            try:
                marked = mark in (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                marked = False
            found.append(_Process(int(folder.name), int(parent), int(group), marked))
    return found


def _by_ps() -> list[_Process]:
    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    rows = (line.split() for line in listing.splitlines())
    return [
        _Process(int(pid), int(parent), int(group), False) for pid, parent, group, state, *_ in rows if state[0] != "Z"
    ]
