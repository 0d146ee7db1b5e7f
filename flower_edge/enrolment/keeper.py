"""Keeps a device's node running where there is no systemd: again after it ended, and not on an empty battery.

    python -m flower_edge.enrolment.keeper FOLDER

Needs nothing but Python: no psutil, no systemd. It holds a lock on `keeper.lock` for as long as it lives, so that
nobody takes the number in `keeper.pid` for a process that is long gone. Nothing here talks to the server: after each
end another program asks it whether this device is still taken there (`standing`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ..clients.condition_policy import ConditionPolicy
from ..clients.measure import measure_conditions
from ..errors import EnrolmentError
from ..runtime.launching.back_off import BackOff
from .device_folder import DeviceFolder, Joined
from .start_files import standing_command

__all__ = ["keep", "keeper_command", "keeper_pid", "main"]

#: The log is begun anew above this; one older part is kept.
_LOG_BYTES: Final = 5_000_000
_LOOK_S: Final = 0.5
_BATTERY_S: Final = 60.0
_END_S: Final = 20.0
#: A device that was removed: in case it was a mistake, and the server is set back.
_OUT_S: Final = 3600.0


def keeper_command(folder: Path) -> list[str]:
    """What starts the keeper of a folder."""
    return [sys.executable, "-P", "-m", "flower_edge.enrolment.keeper", str(folder)]


def keeper_pid(folder: DeviceFolder) -> int | None:
    """The process id of the folder's keeper; None where none lives."""
    try:
        with folder.file("keeper.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except OSError:  # it is held
        with contextlib.suppress(OSError, ValueError):
            return int(folder.file("keeper.pid").read_text("ascii"))
        return None


def keep(
    folder: DeviceFolder,
    joined: Joined,
    *,
    ended: Callable[[], bool],
    log: Callable[[str], None],
    out: Any,
    first_s: float = 5.0,
    refusal: Callable[[], str] | None = None,
    standing: Sequence[str] = (),
) -> None:
    """Keep the node running until `ended`, then end it.

    Args:
        folder, joined: the join.
        ended: is asked twice a second.
        log: is called with a line about each start and end.
        out: where the node prints; a file, or None for here.
        first_s: the first wait after an end; it doubles up to five minutes, and begins anew after ten good minutes.
        refusal: why the device should rest now, empty where it need not; None: the battery policy of the join.
        standing: what finds out, after an end, whether the server refuses this device; then the node is tried once an
            hour. Empty: nobody asks.
    """
    refusal = refusal or _battery(joined.options.min_battery)
    back_off = BackOff(first_s=first_s, most_s=300.0, good_s=600.0)
    node: subprocess.Popen[bytes] | None = None
    asking: subprocess.Popen[str] | None = None
    start_s, ask_s, resting = 0.0, 0.0, ""
    try:
        while not ended():
            now_s = time.monotonic()
            if now_s >= ask_s:
                ask_s = now_s + _BATTERY_S
                if (why := refusal()) != resting:
                    resting = why
                    log(f"the node rests: {why}" if why else "the node need not rest any more")
            if node is not None and (code := node.poll()) is not None:
                wait_s = back_off.next_s()
                log(f"the node has ended with {code}; it is started again in {wait_s:.0f} s")
                node, start_s = None, now_s + wait_s
                asking = _ask(folder, standing, out)
            if asking is not None and asking.poll() is not None:
                if why := _told(asking):
                    start_s = now_s + _OUT_S
                    log(f"{why}. The node is tried again in {_OUT_S / 60.0:.0f} minutes")
                asking = None
            if resting and node is not None:
                _end(node)
                node = None
            if node is None and not resting and asking is None and now_s >= start_s:
                node = _start(folder, joined, out)
                back_off.began()
                log(f"the node is started, process {node.pid}")
            time.sleep(_LOOK_S)
    finally:
        if asking is not None:
            asking.kill()
            asking.communicate()
        if node is not None:
            _end(node)


def _ask(folder: DeviceFolder, command: Sequence[str], out: Any) -> subprocess.Popen[str] | None:
    if not command:
        return None
    return subprocess.Popen(
        command, cwd=folder.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=out, text=True
    )


def _told(asked: subprocess.Popen[str]) -> str:
    words = asked.communicate()[0].strip()
    return words if asked.returncode == os.EX_NOPERM else ""


def _battery(least: float) -> Callable[[], str]:
    if least <= 0.0:
        return lambda: ""
    policy = ConditionPolicy(
        min_battery=least, max_temperature_c=None, when_throttled=True, memory_factor=None, load_gentle=None
    )

    def refusal() -> str:
        verdict = policy.verdict(measure_conditions(interval_s=0.0))
        return verdict.why if verdict.skips else ""

    return refusal


def _start(folder: DeviceFolder, joined: Joined, out: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        folder.command(joined),
        env={**os.environ, **folder.variables()},
        cwd=folder.path,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=None if out is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_with_parent,
    )


def _with_parent() -> None:
    """A node goes with its keeper, also one that was killed: else a second one would be started beside it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; Linux, and Android


def _end(node: subprocess.Popen[bytes]) -> None:
    node.terminate()
    try:
        node.wait(_END_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()


class _Log:
    """The node's log file, begun anew when it is long; the node writes into it itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.file = path.open("ab", buffering=0)

    def __call__(self, words: str) -> None:
        if self.file.tell() > _LOG_BYTES:
            # The node goes on writing into the file it was given: what counts is that neither grows for ever.
            self._path.with_name(f"{self._path.name}.old").write_bytes(self._path.read_bytes()[-_LOG_BYTES:])
            self.file.truncate(0)
        self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} keeper: {words}\n".encode())


def main(arguments: list[str]) -> int:
    """Be the keeper of a folder, until SIGTERM or Ctrl-C; returns the exit code."""
    folder = DeviceFolder(Path(arguments[0]))
    joined = folder.joined()
    if joined is None:
        print(f"{folder.path}: nothing has joined here; `flower-edge join` does", file=sys.stderr)
        return 2
    with folder.file("keeper.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"{folder.path}: a keeper is there already", file=sys.stderr)
            return 0
        folder.write("keeper.pid", str(os.getpid()).encode())
        signals: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: signals.append(number))
        log = _Log(folder.file("node.log"))
        log(f"begins, process {os.getpid()}")
        asks = standing_command(folder.path)
        keep(folder, joined, ended=lambda: bool(signals), log=log, out=log.file, standing=asks)
        log("ends")
        folder.file("keeper.pid").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EnrolmentError as error:
        sys.exit(f"EnrolmentError: {error}")
