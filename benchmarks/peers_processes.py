"""Agents and bare gRPC as processes of their own, for `benchmarks.peers`; ends those it started and no others."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

from flower_edge.errors import LaunchError
from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.round_table import Card, RoundTable
from flower_edge.transport.certificates import issue, make_authority

__all__ = ["RUN", "BlackHole", "Child", "Host", "make_certificates"]

RUN: Final = "benchmark"
_END_S: Final = 30.0


def make_certificates(folder: Path, names: int) -> None:
    """`ca.pem`, and `0.pem`, `0.key` and so on, for this host."""
    authority = make_authority("benchmark")
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    for name in range(names):
        pair = issue(authority, ["127.0.0.1"])
        (folder / f"{name}.pem").write_bytes(pair.certificate_pem)
        (folder / f"{name}.key").write_bytes(pair.key_pem)


class Child:
    """A process that answers a line with a line. A context manager that ends it."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._command = command

    def hear(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            LaunchError: it has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LaunchError(f"{' '.join(self._command)} ended with {self.process.wait(_END_S)}; its errors are above")
        told: dict[str, Any] = json.loads(line)
        return told

    def ask(self, **told: Any) -> dict[str, Any]:
        """Tell it something, and hear what it says."""
        self.tell(**told)
        return self.hear()

    def tell(self, **told: Any) -> None:
        """Without an answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Host:
    """An agent in a process of its own, and what its node's mailbox asks of it.

    Args:
        stack: ends it.
        folder: with certificates.
        node: index of its node.
        paced: one that times its pieces, instead of `flower-edge agent`.
    """

    def __init__(self, stack: ExitStack, folder: Path, node: int, *, paced: bool = False) -> None:
        self.node = node
        if paced:
            self.child = stack.enter_context(Child(["benchmarks.peers_child", "paced", str(folder)]))
        else:
            command = ["flower_edge.cli.main", "agent", "--json", "--listen", "127.0.0.1:0"]
            command += ["--folder", str(folder / f"agent-{node}")]
            for option, name in (("certificate", f"{node}.pem"), ("key", f"{node}.key"), ("authority", "ca.pem")):
                command += [f"--{option}", str(folder / name)]
            self.child = stack.enter_context(Child(command))
        told = self.child.hear()
        self.card = Card(**told["card"])
        self.client = stack.enter_context(AgentClient(told["socket"]))

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.child.process.pid

    def begin(self, round: int, others: dict[int, Card], **more: Any) -> None:
        """A round in which all these are neighbours."""
        table = RoundTable(run=RUN, round=round, node=self.node, neighbours=others, hears=list(others), **more)
        self.client.call({"do": "round", "table": table.to_json()})

    def post(self, round: int, data: bytes, to: list[int]) -> None:
        """Hand a packet to the agent."""
        head = {"do": "post", "run": RUN, "round": round, "sequence": 0, "to": to, "processing_s": None}
        self.client.call(head, data)

    def flush(self, wait_s: float = 300.0) -> None:
        """Wait until it has been delivered.

        Raises:
            LaunchError: it was not.
        """
        answer, _ = self.client.call({"do": "flush", "run": RUN, "wait_s": wait_s}, wait_s=wait_s)
        if answer["pending"]:
            raise LaunchError(f"node {self.node} has not delivered its packet within {wait_s:g} s")

    def to(self, round: int, node: int) -> dict[str, Any]:
        """What it measured of a delivery."""
        report = self.client.call({"do": "report", "run": RUN, "round": round})[0]["report"]
        told: dict[str, Any] = report["to"][str(node)]
        return told

    def forget(self, before_round: int) -> None:
        """Give up what is older."""
        self.client.call({"do": "forget", "run": RUN, "before_round": before_round})

    def lost_after_s(self, node: int, since_s: float, most_s: float) -> float:
        """Seconds from `since_s`, on the clock that processes of a host share, until it noticed that a node is gone.

        Raises:
            LaunchError: it did not, in `most_s`.
        """
        while time.monotonic() - since_s < most_s:
            (run,) = self.client.status()["runs"]
            now_s = time.monotonic()
            for link in run["links"]:
                if link["to"] == str(node) and link["state"] in ("lost", "unreachable"):
                    return max(0.0, now_s - float(link["since_s"]) - since_s)
            time.sleep(0.01)
        raise LaunchError(f"node {self.node} has not noticed within {most_s:g} s that node {node} is gone")

    def peak_mb(self) -> float:
        """The most resident memory its process has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e6


class BlackHole:
    """A way to a port of this host on which suddenly nothing arrives any more, as when a cable is pulled."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._to = (host, int(port))
        self._open = threading.Event()
        self._open.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self) -> None:
        """From now on nothing gets through, and nobody is told."""
        self._open.clear()

    def close(self) -> None:
        """Give it up; what it holds ends with the process."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._to)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(1 << 16):
                if not self._open.is_set():
                    threading.Event().wait()
                far.sendall(data)


def stop(pid: int) -> None:
    """Let a process hang."""
    os.kill(pid, signal.SIGSTOP)
