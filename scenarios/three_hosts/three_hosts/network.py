"""`Network`: hosts that are network namespaces on one switch, or, where not root, programs on the loopback address.

namespaces  each host has an address of its own, 10.77.x.y, and reaches the others through a switch; what it sends
            may be shaped. They are seen by nobody outside, and gone with the network.
loopback    all hosts are 127.0.0.1 and differ by their ports
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flower_edge.errors import LaunchError

__all__ = ["Host", "Network", "why_no_namespaces"]


@dataclass(frozen=True)
class Host:
    """One machine.

    Attributes:
        name: such as edge-0.
        address: where others dial it.
        prefix: words before a command that is to run there.
    """

    name: str
    address: str
    prefix: tuple[str, ...] = ()

    def command(self, words: Sequence[str]) -> list[str]:
        """A command, to be run there."""
        return [*self.prefix, *words]


def why_no_namespaces() -> str:
    """What is missing here to make network namespaces; "" if nothing is."""
    if os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "no program `ip` (Debian: iproute2)"
    probe = f"fe{os.getpid()}p"
    try:
        _run("ip", "netns", "add", probe)
    except LaunchError as error:
        return str(error)
    _run("ip", "netns", "del", probe)
    return ""


class Network:
    """Hosts by name, as long as the context lasts.

    Args:
        names: of hosts.
        namespaces: one for each, or all on the loopback address.
        mbps: what each host may send, megabits per second; 0: unshaped. Only with namespaces.

    Raises:
        LaunchError: on entering, where the system refuses.
    """

    def __init__(self, names: Sequence[str], *, namespaces: bool, mbps: float = 0.0) -> None:
        self._names, self._namespaces, self._mbps = tuple(names), namespaces, mbps
        self._made: list[str] = []
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._remove()

    def _make(self) -> None:
        if not self._namespaces:
            self.hosts = {name: Host(name, "127.0.0.1") for name in self._names}
            return
        switch = self._namespace("switch")
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for number, name in enumerate(self._names):
            space, port = self._namespace(name), f"p{number}"
            address = f"10.77.{number // 250}.{number % 250 + 1}"
            _run("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
            _run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
            _run("ip", "-n", space, "address", "add", f"{address}/16", "dev", "eth0")
            for link in ("lo", "eth0"):
                _run("ip", "-n", space, "link", "set", link, "up")
            if self._mbps:
                rate = ("rate", f"{self._mbps:g}mbit", "burst", "32k", "latency", "100ms")
                _run("ip", "netns", "exec", space, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *rate)
            self.hosts[name] = Host(name, address, ("ip", "netns", "exec", space))

    def _namespace(self, name: str) -> str:
        # The process id: two of these at once must not share any.
        space = f"fe{os.getpid()}-{name}"
        _run("ip", "netns", "add", space)
        self._made.append(space)
        return space

    def _remove(self) -> None:
        while self._made:
            # Links go with their namespaces.
            subprocess.run(["ip", "netns", "del", self._made.pop()], check=False, capture_output=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise LaunchError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
