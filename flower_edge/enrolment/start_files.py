"""The files that start a device's node: a systemd unit, or a script for Termux. Nothing here writes or runs them.

Source: systemd.service(5), systemd.exec(5), systemd.resource-control(5); Termux wiki, Termux:Boot.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["UNIT_NAME", "standing_command", "termux_script", "unit_text"]

UNIT_NAME: Final = "flower-edge-node.service"

#: These need no name space of their own: any user may have them.
_EVERYWHERE: Final = """\
NoNewPrivileges=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
UMask=0077
"""
#: These do, and only the system's own systemd may count on them.
_SYSTEM: Final = """\
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""


def standing_command(folder: Path) -> list[str]:
    """What asks, after the node of a folder has ended, whether the server still takes it: see `standing`."""
    return [sys.executable, "-P", "-m", "flower_edge.enrolment.standing", str(folder)]


def unit_text(
    command: Sequence[str],
    *,
    folder: Path,
    variables: Mapping[str, str],
    system: bool,
    user: str = "",
    memory_bytes: int = 0,
    cpu_share: float = 0.0,
) -> str:
    """A unit that runs the node, with caps, as little of the system as it needs, and longer and longer waits.

    Args:
        command: what runs the node.
        folder: the one folder it may write to.
        variables: of its environment.
        system: for the system's systemd; else for a user's, where fewer of the fences can be had.
        user: whom it runs as, for the system's.
        memory_bytes: at most, 0: no limit. What needs more is ended, and started again.
        cpu_share: of one processor, 0: no limit.
    """
    after = "network-online.target time-sync.target" if system else "default.target"
    lines = [
        "[Unit]",
        "Description=Flower node of flower-edge",
        "Documentation=https://flower.ai/docs/framework/",
        # A board without a battery for its clock starts in the past, where no certificate is valid yet.
        *([f"Wants={after}", f"After={after}"] if system else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        *([f"User={user}"] if system and user else []),
        f"WorkingDirectory={_escape(str(folder))}",
        *(f'Environment="{name}={_escape(value)}"' for name, value in sorted(variables.items())),
        f"ExecStart={' '.join(_quote(part) for part in command)}",
        # Why the server refuses this device, into the journal; whatever comes of it changes nothing.
        f"ExecStopPost=-{' '.join(_quote(part) for part in standing_command(folder))}",
        # Flower takes a node that was killed back after a minute at the earliest. Systemd before 254 does not know the
        # two that let the wait grow, says so in its log, and always waits for RestartSec.
        # Also where it ends in good order: so it does when the SuperLink refuses it, as with a clock that is wrong.
        "Restart=always",
        "RestartSec=15",
        "RestartSteps=5",
        "RestartMaxDelaySec=300",
        "TimeoutStopSec=30",
        "KillMode=mixed",
        *([f"MemoryMax={memory_bytes}"] if memory_bytes else []),
        *([f"CPUQuota={100 * cpu_share:.0f}%"] if cpu_share else []),
        "TasksMax=256",
        "OOMPolicy=stop",
    ]
    fences = _EVERYWHERE + (_SYSTEM + f"ReadWritePaths={_quote(str(folder))}\n" if system else "")
    target = "multi-user.target" if system else "default.target"
    return "\n".join(lines) + "\n" + fences + f"\n[Install]\nWantedBy={target}\n"


def termux_script(keeper: Sequence[str], variables: Mapping[str, str]) -> str:
    """A script that starts the node's keeper in Termux, or in a Debian inside of it; also good for Termux:Boot.

    The wake lock keeps Android from letting the processor sleep. It does not keep Android from ending processes.
    """
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    return (
        "#!/bin/sh\n"
        "# Written by `flower-edge join`; `flower-edge leave` removes it.\n"
        "if command -v termux-wake-lock >/dev/null 2>&1; then termux-wake-lock; fi\n"
        f"{exports}"
        f"exec {shlex.join(keeper)}\n"
    )


def _escape(text: str) -> str:
    # `%` begins a specifier; `$` a variable, in ExecStart only.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _quote(part: str) -> str:
    escaped = _escape(part).replace("$", "$$")
    return f'"{escaped}"' if not part or any(letter in part for letter in " \t\"';$\\") else escaped
