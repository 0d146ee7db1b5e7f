"""Ending the processes that a test has started, those too that do not want to."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable
from typing import Any

__all__ = ["end_all"]


def end_all(processes: Iterable[subprocess.Popen[Any]], *, within_s: float = 60.0) -> None:
    """Ask all of them to end, stopped ones too, and kill who has not ended in time; each of them has ended then."""
    going = [process for process in processes if process.poll() is None]
    for process in going:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in going:
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
