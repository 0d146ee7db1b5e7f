"""Runs programs, each in a process of its own that has numpy, Flower and torch already: it is forked, not started.

Not a sandbox, and for nothing but the tests of what documents show. The process that is forked has imported libraries
of other people and nothing of ours, so a program still imports of `flower_edge` what it would import by itself.

One line of JSON goes in per program, the arguments of `_become` and `timeout_s`, and one comes out when it has ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

#: What documents import again and again, and takes seconds. None of it starts a thread when it is imported.
PRELOADED = (
    "cryptography.x509",
    "flwr.app",
    "flwr.clientapp",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
    "matplotlib.pyplot",
    "networkx",
    "numba",
    "numpy",
    "pydantic",
    "safetensors.numpy",
    "scipy.optimize",
    "scipy.sparse.csgraph",
    "scipy.spatial",
    "sklearn.datasets",
    "sqlalchemy.orm",
    "torch",
    "torch.fx.experimental.symbolic_shapes",
)


class PageServer:
    """The process that is forked, from outside; a context."""

    def __init__(self) -> None:
        # As `python -W` does it for one program: what a document shows is not deprecated.
        command = [sys.executable, "-W", "error::DeprecationWarning:__main__", __file__]
        # With more, libraries for matrices start threads when they are imported; see `_threads`.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, script: Path, folder: Path, timeout_s: float = 300.0) -> tuple[int, str]:
        """Run the program in the folder; its exit status (of one that a signal ended, minus that) and its stderr.

        One that takes longer than `timeout_s` is killed, with what it started.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        errors = script.with_suffix(".stderr")
        job = {"script": str(script), "folder": str(folder), "errors": str(errors), "timeout_s": timeout_s}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["exit"]), errors.read_text("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=300)


def _become(script: str, folder: str, errors: str) -> None:
    """In the forked process: be what `python script` is there, and end as it does."""
    os.setsid()  # what it starts can be ended with it
    nothing, told = os.open(os.devnull, os.O_RDWR), os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for here, there in ((nothing, 0), (nothing, 1), (told, 2)):
        os.dup2(here, there)
    os.chdir(folder)
    sys.argv = [script]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def _wait(process: int, timeout_s: float) -> int:
    latest_s = time.monotonic() + timeout_s
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > latest_s:
            os.killpg(process, signal.SIGKILL)
        time.sleep(0.01)


def _threads() -> int:
    """Of this process, those of libraries in C as well where the system tells.

    Only the thread that forks goes on in the fork: a lock that another one held would be held there for ever.
    """
    told = Path("/proc/self/task")
    return len(list(told.iterdir())) if told.is_dir() else threading.active_count()


def _serve() -> None:
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:
            traceback.print_exc()  # the document that needs it will say so
    assert _threads() == 1, "a process with threads is not forked"
    # Flower's records collect garbage when they are converted: what is here already need not be looked at each time.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        timeout_s = job.pop("timeout_s")
        process = os.fork()
        if not process:
            # Its end is the end of this program: what runs at exit runs, and threads are waited for.
            return _become(**job)
        print(json.dumps({"exit": _wait(process, timeout_s)}), flush=True)
    return None


if __name__ == "__main__":
    _serve()
