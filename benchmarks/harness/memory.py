"""How much memory a whole family of processes holds.

The family is found by an environment variable with a value of its own, which every child inherits, and by descent:
Flower and Ray start processes that detach themselves, so that their parent no longer tells where they belong.

What is summed is each process's proportional set size (PSS): a page that k processes map counts 1/k for each, so that
libraries and Ray's shared object store are counted once and not once per process. Where the system does not tell it
(macOS) it is the unique set size (USS), which leaves shared pages out. Both err, if at all, on the low side.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import psutil  # type: ignore[import-untyped]

__all__ = ["MARKER", "ProcessFamily"]

#: Environment variable that marks the processes of a measurement; its value is the measurement's own.
MARKER: Final = "FLOWER_EDGE_MEASUREMENT"


class ProcessFamily:
    """The processes that carry a mark, and their descendants; none besides.

    Once found a process stays in the family until it ends: some replace the memory that shows their environment.

    Args:
        mark: value of `MARKER` in their environments.
        without: process ids that are not counted, though their children are.
    """

    def __init__(self, mark: str, *, without: frozenset[int] = frozenset()) -> None:
        self._mark = mark
        self._without = without
        self._members: dict[int, psutil.Process] = {}
        self._strangers: set[int] = set()

    def alive(self) -> list[psutil.Process]:
        """The family's processes that are there now, without those that are not counted."""
        pids = set(psutil.pids())
        self._strangers &= pids
        for pid in [pid for pid, process in self._members.items() if not process.is_running()]:
            del self._members[pid]
        for pid in sorted(pids - self._strangers - self._members.keys()):
            with suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                # The environment of a process that is being started is empty for a moment: look again next time.
                if process.ppid() in self._members or (environment := process.environ()).get(MARKER) == self._mark:
                    self._members[pid] = process
                elif environment:
                    self._strangers.add(pid)
        return [process for pid, process in self._members.items() if pid not in self._without]

    def memory_bytes(self) -> int:
        """Bytes of memory the family holds now, shared pages counted once."""
        total = 0
        for process in self.alive():
            with suppress(psutil.Error, OSError):  # it may have ended since it was found
                full = process.memory_full_info()
                total += getattr(full, "pss", full.uss)
        return total

    def end(self) -> None:
        """Kill those that still run, until two looks in a row find none.

        One look may miss a process in the very moment it becomes another program.
        """
        empty = 0
        while empty < 2:
            left = [process for process in self.alive() if _runs(process)]
            empty = 0 if left else empty + 1
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
