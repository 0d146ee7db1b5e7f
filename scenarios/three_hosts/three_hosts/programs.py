"""`Programs`: what runs on the hosts. Each program has a log file; all are ended together, the last started first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from flower_edge.errors import LaunchError
from flower_edge.runtime.launching.processes import Interrupts

from .network import Host

__all__ = ["Program", "Programs"]

_END_S: Final = 30.0


@dataclass(frozen=True)
class Program:
    """One that runs.

    Attributes:
        name: for messages, such as "edge-0: up".
        process: of it.
        log: what it prints.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def documents(self) -> list[dict[str, Any]]:
        """The JSON objects among the lines it has printed so far."""
        found = []
        with suppress(OSError):
            for line in self.log.read_text("utf-8", "replace").splitlines():
                with suppress(ValueError):
                    told = json.loads(line)
                    if isinstance(told, dict):
                        found.append(told)
        return found

    def last_words(self) -> str:
        """The end of what it has printed."""
        with suppress(OSError):
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-12:])
        return ""


class Programs:
    """See the module.

    Args:
        folder: of the logs.
        environment: of all of them.
        interrupts: whether somebody wants all of it to end.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], interrupts: Interrupts) -> None:
        self._folder, self._environment, self._interrupts = folder, dict(environment), interrupts
        self._running: list[Program] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for program in reversed(self._running):
            if program.process.poll() is None:
                program.process.terminate()
        latest_s = time.monotonic() + _END_S
        for program in reversed(self._running):
            with suppress(subprocess.TimeoutExpired):
                program.process.wait(max(0.1, latest_s - time.monotonic()))
        for program in self._running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(program.process.pid, signal.SIGKILL)
            program.process.wait()

    def start(self, host: Host, name: str, arguments: Sequence[str], **environment: str) -> Program:
        """Start `flower-edge` with these arguments on a host."""
        script = str(Path(sys.executable).parent / "flower-edge")
        log = self._folder / f"{host.name}-{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                host.command([script, *arguments]),
                env={**self._environment, **environment},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(f"{host.name}: {name}", process, log)
        self._running.append(program)
        return program

    def look(self) -> None:
        """
        Raises:
            LaunchError: one has ended; its last words are in the message.
            KeyboardInterrupt: Ctrl-C, or SIGTERM.
        """
        if self._interrupts.signal is not None:
            raise KeyboardInterrupt
        for program in self._running:
            if (code := program.process.poll()) is not None:
                raise LaunchError(f"{program.name} ended with {code}; the last it printed:\n{program.last_words()}")

    def wait(self, what: str, ready: Callable[[], Any], seconds: float) -> Any:
        """What `ready` gives once it is true.

        Raises:
            LaunchError: not so in time, or a program has ended.
        """
        latest_s = time.monotonic() + seconds
        while not (found := ready()):
            self.look()
            if time.monotonic() > latest_s:
                raise LaunchError(f"{what}: not within {seconds:g} s; the logs are in {self._folder}")
            time.sleep(0.2)
        return found
