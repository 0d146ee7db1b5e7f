"""One executor process as seen by the node that started it: what it works on, whether it lives, its end.

Only this process is waited for and ended, with the children it made.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, Final

from ..flower_private_node import Claim

__all__ = ["Executor"]

#: A process that has nothing to do ends within milliseconds of being let go.
_END_S: Final = 2.0
_LOOK_S: Final = 0.02


class Executor:
    """A process that works on messages.

    Args:
        address: HOST:PORT of the SuperNode's Runtime API.
        command: starts the process; the descriptor and the address are put behind it.

    Raises:
        OSError: the system starts no further process.
    """

    #: Python, without the working directory in front of the modules: an app's folder must not stand before the app.
    COMMAND: Final = (sys.executable, "-P", "-m", "flower_edge.runtime.warm.worker")

    def __init__(self, address: str, command: tuple[str, ...] = COMMAND) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), address],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # A session of its own: Ctrl-C in a terminal is for the node, which then ends this one.
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._received = b""
        #: What it works on.
        self.claim: Claim | None = None
        #: Run and app it belongs to, once it had a message: another's is never given to it.
        self.bound: tuple[int, str] | None = None
        self.messages = 0
        self.ready = False
        #: Resident memory it told of last.
        self.rss_bytes = 0
        self.used_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def fileno(self) -> int:
        """For `select`: readable when it has something to tell, or has ended."""
        return self._socket.fileno()

    def give(self, claim: Claim) -> bool:
        """Have it work on a message; False where it is gone."""
        self.bound = (claim.run_id, claim.fab_hash)
        self.claim = claim
        self.used_s = time.monotonic()
        try:
            self._socket.sendall((json.dumps({"token": claim.token}) + "\n").encode())
        except OSError:
            return False
        return True

    def look(self) -> bool:
        """Take in what it told since the last time; False when it has ended, or told what cannot be read."""
        ended = False
        try:
            while chunk := self._socket.recv(4096):
                self._received += chunk
            ended = True
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        *lines, self._received = self._received.split(b"\n")
        try:
            for line in lines:
                self._heard(json.loads(line))
        except (ValueError, TypeError, KeyError):
            return False  # the app has written there: who knows what else it has done
        return not ended and not self._over()

    def _heard(self, words: dict[str, Any]) -> None:
        self.ready = True
        self.rss_bytes = int(words["rss_bytes"])
        if words.get("done"):
            self.claim = None
            self.messages += 1
            self.used_s = time.monotonic()

    def _over(self) -> bool:
        """Whether it has ended; it is not reaped by this, so that its number stays its own."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13: then its socket alone tells
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def let_go(self) -> None:
        """Tell it to end, without waiting for it."""
        self._socket.close()

    def close(self, patience_s: float = _END_S) -> int:
        """End it and its children, whatever they do; returns the exit code."""
        self._socket.close()
        latest_s = time.monotonic() + patience_s
        while not self._over() and time.monotonic() < latest_s:
            time.sleep(_LOOK_S)
        # Before it is reaped: afterwards the number of its group could be somebody else's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()
