"""What runs a device's node and starts it again: systemd, a keeper process, or a script in Termux.

Each can be put in place, started, stopped and taken away; all of that may be done twice. What it would write can be had
beforehand. Nothing here talks to the server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ..errors import ConfigError, EnrolmentError
from .device_folder import DeviceFolder, Joined, Manner
from .keeper import keeper_command, keeper_pid
from .server_folder import write_whole
from .start_files import UNIT_NAME, termux_script, unit_text

__all__ = ["Runner", "choose_manner", "runner_of"]

_SYSTEM_UNITS: Final = Path("/etc/systemd/system")
#: A small board takes its time to import.
_START_S: Final = 120.0


class Runner(Protocol):
    """What runs the node."""

    def files(self) -> Mapping[Path, str]:
        """The files it is made of, with their texts."""
        ...

    def start(self) -> None:
        """Put it in place and start it; with the options of now where it runs already.

        Raises:
            EnrolmentError: it does not start.
        """
        ...

    def stop(self) -> list[str]:
        """Stop it and take it away; lines about what was there."""
        ...

    def running(self) -> bool:
        """Whether it is there."""
        ...


def choose_manner(variables: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Manner:
    """What runs nodes on this machine.

    Args:
        variables: the environment: Termux and its Debian are known by it.
        root: of the file system.
    """
    if "TERMUX_VERSION" in variables or (root / "data/data/com.termux").is_dir():
        return "termux"
    # As sd_booted(3) tells it; a container may have the program and no systemd that runs.
    if (root / "run/systemd/system").is_dir() and shutil.which("systemctl"):
        return "systemd"
    return "process"


def runner_of(folder: DeviceFolder, joined: Joined) -> Runner:
    """The runner of a join.

    Raises:
        ConfigError: the join is one that runs in the foreground.
    """
    if joined.manner == "systemd":
        return Systemd(folder, joined)
    if joined.manner in ("process", "termux"):
        return Kept(folder, joined)
    raise ConfigError("this join runs in the foreground: whoever started it ends it")


@dataclass(frozen=True)
class Systemd:
    """A unit of systemd: the system's where root joins, else the user's."""

    folder: DeviceFolder
    joined: Joined

    @property
    def path(self) -> Path:
        """The unit's file."""
        if os.geteuid() == 0:
            return _SYSTEM_UNITS / UNIT_NAME
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user" / UNIT_NAME

    def files(self) -> Mapping[Path, str]:
        system, options = os.geteuid() == 0, self.joined.options
        user = pwd.getpwuid(self.folder.path.stat().st_uid).pw_name if system and self.folder.path.exists() else ""
        text = unit_text(
            self.folder.command(self.joined),
            folder=self.folder.path,
            variables=self.folder.variables(),
            system=system,
            user=user,
            memory_bytes=options.memory_bytes,
            cpu_share=options.cpu_share,
        )
        return {self.path: text}

    def start(self) -> None:
        for path, text in self.files().items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EnrolmentError(f"{path.parent} cannot be made ({error.strerror or error})") from None
            write_whole(path, text.encode(), mode=0o644)
        for arguments in (["daemon-reload"], ["enable", UNIT_NAME], ["restart", UNIT_NAME]):
            self._systemctl(*arguments)

    def stop(self) -> list[str]:
        told = []
        if self.path.exists():
            self._systemctl("disable", "--now", UNIT_NAME, may_fail=True)
            self.path.unlink(missing_ok=True)
            self._systemctl("daemon-reload", may_fail=True)
            told.append(f"stopped and removed the unit {self.path}")
        return told

    def running(self) -> bool:
        return self._systemctl("is-active", "--quiet", UNIT_NAME, may_fail=True) == 0

    def _systemctl(self, *arguments: str, may_fail: bool = False) -> int:
        command = ["systemctl", *([] if os.geteuid() == 0 else ["--user"]), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=90.0)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EnrolmentError(f"{' '.join(command)}: {error}") from None
        if done.returncode and not may_fail:
            raise EnrolmentError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.returncode


@dataclass(frozen=True)
class Kept:
    """A keeper process that was let go; in Termux with a script beside it, for the next start of the phone."""

    folder: DeviceFolder
    joined: Joined

    def files(self) -> Mapping[Path, str]:
        if self.joined.manner != "termux":
            return {}
        return {self.folder.file("start.sh"): termux_script(keeper_command(self.folder.path), {})}

    def start(self) -> None:
        self.stop()
        command = keeper_command(self.folder.path)
        for path, text in self.files().items():
            write_whole(path, text.encode(), mode=0o700)
            command = ["/bin/sh" if Path("/bin/sh").exists() else "sh", str(path)]
        process = subprocess.Popen(
            command,
            cwd=self.folder.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        latest_s = time.monotonic() + _START_S
        while keeper_pid(self.folder) is None:
            if process.poll() is not None:
                raise EnrolmentError(f"the keeper ended with {process.returncode}; try: {' '.join(command)}")
            if time.monotonic() > latest_s:
                process.kill()
                raise EnrolmentError(f"the keeper does not begin within {_START_S:.0f} s; try: {' '.join(command)}")
            time.sleep(0.05)

    def stop(self) -> list[str]:
        pid = keeper_pid(self.folder)
        if pid is None:
            return []
        os.kill(pid, signal.SIGTERM)
        latest_s = time.monotonic() + 30.0
        while keeper_pid(self.folder) == pid:
            if time.monotonic() > latest_s:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        return [f"stopped the node's keeper, process {pid}"]

    def running(self) -> bool:
        return keeper_pid(self.folder) is not None
