"""The process that began a run: is it still there, and how was it called? Best effort, and only for this machine.

A process id alone is not enough, they are used again; with the moment the process started it is. Nothing here
sends a signal that does anything.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

__all__ = ["ProcessMark", "is_gone", "this_process", "without_secrets"]

#: Options whose value is for nobody else: run folders and pages are handed on, and Flower gives a ServerApp a token.
_SECRET: Final = re.compile(r"--?[\w-]*(?:token|password|secret)", re.IGNORECASE)


class ProcessMark(TypedDict):
    """One process among all that ever ran: JSON-ready."""

    host: str
    pid: int
    #: Clock ticks from boot to the start of the process; None where the system does not tell (all but Linux).
    started_ticks: int | None


def this_process() -> ProcessMark:
    """The mark of the process that calls."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started_ticks": _started_ticks(os.getpid())}


def without_secrets(command: Sequence[str]) -> list[str]:
    """A command line with three asterisks instead of each token, password and secret.

    >>> without_secrets(["flwr-simulation", "--token", "a1b2", "--run-once", "--auth-token=c3"])
    ['flwr-simulation', '--token', '***', '--run-once', '--auth-token=***']
    """
    told: list[str] = []
    for word in command:
        name, given, _ = word.partition("=")
        if told and _SECRET.fullmatch(told[-1]):
            told.append("***")
        elif given and _SECRET.fullmatch(name):
            told.append(f"{name}=***")
        else:
            told.append(word)
    return told


def is_gone(mark: ProcessMark) -> bool:
    """Whether that process has certainly ended. A process of another machine is never said to be gone.

    >>> is_gone(this_process())
    False
    """
    if mark["host"] != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(mark["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's process: it is there, and it may be ours no longer
        pass
    now = _started_ticks(mark["pid"])
    return now is not None and mark["started_ticks"] is not None and now != mark["started_ticks"]


def _started_ticks(pid: int) -> int | None:
    try:
        # The second field is the program's name in brackets and may hold spaces; field 22 is counted after it.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
