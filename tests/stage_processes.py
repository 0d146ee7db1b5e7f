"""Stages as processes of their own, with TLS between them, for tests; ends those it started and no others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.transport import GrpcTransport, TrustServer, issue, make_authority

SECRET = b"a secret of the tests, shared by all machines"


class StageProcesses:
    """`flower-edge stage` for each machine."""

    def __init__(self, folder: Path, machines: tuple[str, ...], *more: str) -> None:
        self.folder, self.machines, self.more = folder, machines, more
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.addresses: dict[str, str] = {}
        authority = make_authority("tests")
        host = issue(authority, ["127.0.0.1"])
        files = {"ca.pem": authority.certificate_pem, "host.pem": host.certificate_pem, "host.key": host.key_pem}
        for name, data in {**files, "secret": SECRET}.items():
            (folder / name).write_bytes(data)
        self.transport = GrpcTransport(TrustServer(authority.certificate_pem))

    def start(self, *machines: str) -> None:
        """All, or these; a machine that ran before listens where it did."""
        for machine in machines or self.machines:
            command = [sys.executable, "-m", "flower_edge.cli.main", "stage", "--json", "--machine", machine]
            command += ["--listen", self.addresses.get(machine, "127.0.0.1:0"), "--threads", "1", *self.more]
            for option, name in (("certificate", "host.pem"), ("key", "host.key"), ("authority", "ca.pem")):
                command += [f"--{option}", str(self.folder / name)]
            command += ["--secret", str(self.folder / "secret")]
            self.processes[machine] = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            )
        for machine in machines or self.machines:
            self.addresses[machine] = json.loads(self._told(self.processes[machine]).readline())["listening"]

    def deployment(self, **options: object) -> Deployment:
        return Deployment(self.addresses, self.transport, secret=SECRET, **options)  # type: ignore[arg-type]

    def kill(self, machine: str) -> None:
        self.processes[machine].kill()
        self.processes[machine].wait(10)
        self._told(self.processes.pop(machine)).close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.terminate()
        stuck = []
        for machine, process in self.processes.items():
            try:
                process.wait(60)  # it takes a moment; a machine under load may not find that moment at once
            except subprocess.TimeoutExpired:
                stuck.append(machine)
                process.send_signal(signal.SIGABRT)  # it writes where its threads are
                process.wait(10)
            self._told(process).close()
        assert not stuck
        assert {process.returncode for process in self.processes.values()} <= {0}

    @staticmethod
    def _told(process: subprocess.Popen[str]) -> IO[str]:
        assert process.stdout is not None
        return process.stdout
