"""The agent's end of the Unix socket: frames in, answers out, for programs of the same user on the same host."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any, Final

from ...errors import ConfigError, EdgeError, PeerError
from ...peers.agent_frames import body_of, read_head, send_head

__all__ = ["FileBody", "LocalServer"]

log = getLogger("flwr.edge")

_CONNECTIONS: Final = 64
#: The system's own limit of a socket's path.
_PATH_BYTES: Final = 100
_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True)
class FileBody:
    """Bytes of a file that go with an answer."""

    path: Path
    offset: int
    size: int


#: What is asked, with the body as it comes; the answer, with a file's bytes where there are some.
Call = Callable[[dict[str, Any], Iterable[bytes]], tuple[dict[str, Any], FileBody | None]]


class LocalServer:
    """Listens on a Unix socket that only its owner can open.

    Args:
        path: of the socket; one that a dead agent has left is replaced.
        call: answers.

    Raises:
        ConfigError: a path that is too long, or in a folder that is not there.
    """

    def __init__(self, path: Path, call: Call) -> None:
        self.path, self._call = path, call
        if len(os.fsencode(path)) > _PATH_BYTES:
            raise ConfigError(
                f"socket {path}: longer than the system takes ({_PATH_BYTES} bytes); give a shorter --socket"
            )
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            path.unlink(missing_ok=True)
            self._channel.bind(str(path))
        except OSError as error:
            self._channel.close()
            raise ConfigError(f"socket {path}: {error.strerror}; give another --socket") from None
        finally:
            os.umask(before)
        self._channel.listen(_CONNECTIONS)
        self._thread = threading.Thread(target=self._listen, name="flower-edge local", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections, and remove the socket."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        self.path.unlink(missing_ok=True)
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)

    def _listen(self) -> None:
        while True:
            try:
                channel, _ = self._channel.accept()
            except OSError:
                return
            with self._lock:
                full = len(self._open) >= _CONNECTIONS
                if not full:
                    self._open.add(channel)
            if full or not _same_user(channel):
                with self._lock:
                    self._open.discard(channel)
                channel.close()
                continue
            threading.Thread(target=self._serve, args=(channel,), name="flower-edge local call", daemon=True).start()

    def _serve(self, channel: socket.socket) -> None:
        try:
            while (head := read_head(channel)) is not None:
                body = body_of(channel, head["body_bytes"])
                try:
                    answer, file = self._call(head, body)
                except EdgeError as error:
                    answer, file = {"error": str(error)}, None
                except OSError as error:
                    what = f"the agent cannot do {str(head.get('do'))[:40]!r} ({error.strerror or error})"
                    answer, file = {"error": f"{what}; where its folder is full, make room there, and ask again"}, None
                # What was not asked for is read all the same: the next frame comes behind it.
                for _ in body:
                    pass
                self._answer(channel, answer, file)
        except PeerError as error:
            log.warning("a program on this host sent no frame: %s", error)
            with suppress(OSError):
                send_head(channel, {"error": str(error)})
        except OSError:
            pass
        except Exception:
            log.exception("a call of a program on this host failed")
        finally:
            with self._lock:
                self._open.discard(channel)
            channel.close()

    @staticmethod
    def _answer(channel: socket.socket, answer: dict[str, Any], file: FileBody | None) -> None:
        if file is None:
            send_head(channel, answer)
            return
        try:
            opened = file.path.open("rb")
        except FileNotFoundError:
            send_head(channel, {"found": False})
            return
        with opened:
            send_head(channel, answer, file.size)
            channel.sendfile(opened, file.offset, file.size)


def _same_user(channel: socket.socket) -> bool:
    """Whether the other end is of this user; the mode of the socket says so already, where the system keeps to it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = _CREDENTIALS.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return user in (os.geteuid(), 0)
