"""A real `flower-edge up` and devices that join it, each a process of its own; ended with the test, by process id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ending import end_all

from flower_edge.enrolment.device_folder import DeviceFolder
from flower_edge.enrolment.keeper import keeper_pid
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.runtime.launching.processes import Family

APP = Path(__file__).parents[1] / "apps" / "thin_app"
_MAIN = [sys.executable, "-P", "-m", "flower_edge.cli.main"]


def wait(there: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    latest_s = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < latest_s, what()
        time.sleep(0.1)


@dataclass
class Up:
    """A server that runs, or ran."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    told: list[dict[str, Any]] = field(default_factory=list)

    def start(self, *options: str) -> None:
        """Start it, and wait for its join line."""
        self.told.clear()
        listen = ("--listen", "127.0.0.1:0", "--host", "127.0.0.1")
        command = [*_MAIN, "up", "--json", "--state", str(self.folder / "server"), *listen, *options]
        self.process = subprocess.Popen(
            command, cwd=self.folder, env=self.variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        wait(lambda: self.event("up") is not None, 180.0, self.logs)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                try:
                    self.told.append(json.loads(line))
                except ValueError:
                    self.told.append({"event": "noise", "message": line})

    def event(self, kind: str) -> dict[str, Any] | None:
        found = [told for told in list(self.told) if told["event"] == kind]
        return found[-1] if found else None

    def opening(self) -> dict[str, Any]:
        found = self.event("up")
        assert found is not None
        return found

    def join(self, name: str, *options: str, line: str | None = None) -> subprocess.Popen[str]:
        """Begin to let a device join, with its own folder; it goes on in the background."""
        words = (line or str(self.opening()["join"])).split()[1:]
        command = [*_MAIN, *words, "--state", str(self.folder / name), "--name", name, "--json", *options]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Any verb, to its end."""
        return subprocess.run(
            [*_MAIN, *arguments], cwd=self.folder, env=self.variables(), capture_output=True, text=True, timeout=180
        )

    def variables(self) -> dict[str, str]:
        return {**os.environ, "FLWR_HOME": str(self.folder / "flower"), "FLWR_TELEMETRY_ENABLED": "0"}

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(90)

    def logs(self) -> str:
        parts = [f"up: {told}" for told in list(self.told)[-20:]]
        for path in (*self.folder.glob("server/logs/*.log"), *self.folder.glob("*/node.log")):
            parts.append(f"--- {path.name}\n{path.read_text('utf-8', 'replace')[-2500:]}")
        return "\n".join(parts)


def answer(process: subprocess.Popen[str], seconds: float = 240.0) -> dict[str, Any]:
    """The JSON document of a join that went well."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@contextmanager
def server_in(folder: Path) -> Iterator[Up]:
    """A server's place; at the end all that was started from it is gone."""
    made = Up(folder)
    try:
        yield made
    finally:
        for device in folder.glob("*/keeper.pid"):
            if pid := keeper_pid(DeviceFolder(device.parent)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        if made.process is not None:
            end_all([made.process])
        Family(ServerFolder.at(folder / "server").launch_id).stop()
        for lock in folder.glob("*/keeper.lock"):
            place = DeviceFolder(lock.parent)
            wait(partial(_free, place), 60.0, made.logs)


def _free(place: DeviceFolder) -> bool:
    return keeper_pid(place) is None
