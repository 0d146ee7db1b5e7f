"""A process that forks edges and centres, one for each job on its input; imports are done once.

A job is a line of JSON: `{"do": "edge" | "centre", "log", ...}`, answered by `{"pid"}`; `{"do": "code", "pid"}` is
answered by `{"code"}`, null while that process has not ended. When its input ends it kills those that it has started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from fault_points import eventually

__all__ = ["Nursery"]


class Nursery:
    """The other end of it: starts processes, and tells how they have ended."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def _ask(self, **job: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())  # type: ignore[no-any-return]

    def start(self, do: str, log: Path, **job: Any) -> int:
        """The process id of one that does this; what it prints goes to `log`."""
        return int(self._ask(do=do, log=str(log), **job)["pid"])

    def code(self, pid: int) -> int | None:
        """Its exit code, or the signal with a minus; None while it has not ended."""
        code = self._ask(do="code", pid=pid)["code"]
        return None if code is None else int(code)

    def wait(self, pid: int) -> int:
        """Until it has ended; its exit code, or the signal with a minus."""
        eventually(lambda: self.code(pid) is not None, f"process {pid} has ended")
        return self.code(pid) or 0

    def end(self, pid: int) -> None:
        """Kill it, if it is there."""
        if pid and self.code(pid) is None:
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)


def _be(job: dict[str, Any]) -> None:
    from fault_roles import be_centre, be_edge

    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(0)
    code = 1
    try:
        {"edge": be_edge, "centre": be_centre}[job["do"]](job)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        os._exit(code)


def _main() -> None:
    import fault_roles  # noqa: F401  imported before anybody is forked

    assert threading.active_count() == 1, "no process is forked beside other threads"
    codes: dict[int, int | None] = {}

    def code_of(pid: int) -> int | None:
        if codes[pid] is None and (ended := os.waitpid(pid, os.WNOHANG))[0]:
            codes[pid] = os.waitstatus_to_exitcode(ended[1])
        return codes[pid]

    for line in sys.stdin:
        job = json.loads(line)
        told: dict[str, Any]
        if job["do"] == "code":
            told = {"code": code_of(job["pid"])}
        else:
            pid = os.fork()
            if pid == 0:
                _be(job)
            codes[pid] = None
            told = {"pid": pid}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    for pid in codes:
        if code_of(pid) is None:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _main()
