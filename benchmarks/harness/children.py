"""Run a command in a process of its own and remember how much memory it, and all it started, held when."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flower_edge.errors import LaunchError
from flower_edge.runtime.launching.processes import Interrupts

from .memory import MARKER, ProcessFamily

__all__ = ["Measured", "available_cpus", "pin_to_cpus", "run_measured"]

#: Seconds between two looks at the memory, and the share of one core that looking may take.
_SHORTEST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5
_SHARE: Final = 0.05
_SHOWN_LINES: Final = 25


@dataclass(frozen=True)
class Measured:
    """A command that ran to its end.

    Args:
        begin_s: when it was started, on `time.monotonic`, which all processes of a machine share.
        end_s: when it had ended.
        samples: (when, bytes of memory held then), in the order of time.
    """

    begin_s: float
    end_s: float
    samples: tuple[tuple[float, int], ...]

    def peak_bytes(self, begin_s: float = -math.inf, end_s: float = math.inf) -> int:
        """The most memory seen between two times on `time.monotonic`.

        Raises:
            LaunchError: nobody looked in that time.

        >>> Measured(0.0, 3.0, ((0.5, 10), (1.5, 30), (2.5, 20))).peak_bytes(begin_s=2.0)
        20
        """
        seen = [held_bytes for at_s, held_bytes in self.samples if begin_s <= at_s <= end_s]
        if not seen:
            raise LaunchError(
                f"memory was looked at {len(self.samples)} times but never in the {end_s - begin_s:.3g} s asked for; "
                "measure more rounds"
            )
        return max(seen)


def run_measured(
    command: Sequence[str | Path],
    *,
    log: Path,
    timeout_s: float,
    cwd: Path | None = None,
    count_itself: bool = True,
) -> Measured:
    """Run a command to its end and watch the memory of its whole family of processes, also of those that detach.

    Args:
        command: program and arguments.
        log: the file that takes what it prints.
        timeout_s: seconds it may take.
        cwd: its working directory; by default ours.
        count_itself: False leaves the process itself out of the sum and counts only what it starts.

    Raises:
        LaunchError: it exits with something other than 0 or takes too long; shows the end of what it printed.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP came, its argument says which; the command is ended first.
    """
    mark = uuid.uuid4().hex
    with Interrupts() as interrupts, log.open("wb") as out:
        begin_s = time.monotonic()
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, MARKER: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C reaches us, and we end the command in good order
        )
        family = ProcessFamily(mark, without=frozenset() if count_itself else frozenset({child.pid}))
        samples: list[tuple[float, int]] = []
        try:
            while child.poll() is None:
                at_s, before_s = time.monotonic(), time.thread_time()
                samples.append((at_s, family.memory_bytes()))
                if interrupts.signal is not None:
                    raise KeyboardInterrupt(interrupts.signal)
                if at_s - begin_s > timeout_s:
                    raise LaunchError(f"{_said(command)} took more than {timeout_s:g} s; it ended with:\n{_tail(log)}")
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_pause_s(time.thread_time() - before_s))
        finally:
            _end(child, family)
    if child.returncode != 0:
        raise LaunchError(f"{_said(command)} exited with {child.returncode}; it ended with:\n{_tail(log)}")
    return Measured(begin_s, time.monotonic(), tuple(samples))


def available_cpus() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def pin_to_cpus(cpus: int) -> None:
    """Keep this process, and all it starts from now on, on that many processor cores, where the system can (Linux)."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])


def _pause_s(looking_s: float) -> float:
    return min(max(_SHORTEST_PAUSE_S, looking_s / _SHARE), _LONGEST_PAUSE_S)


def _end(child: subprocess.Popen[bytes], family: ProcessFamily, grace_s: float = 30.0) -> None:
    """End the command in good order, and then whatever it left behind."""
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
        child.kill()
        child.wait()
    family.end()


def _said(command: Sequence[str | Path]) -> str:
    return " ".join(str(part) for part in command)


def _tail(path: Path) -> str:
    return "\n".join(path.read_text("utf-8", "replace").splitlines()[-_SHOWN_LINES:])
