"""`SharedFolder`: the folder in which the nodes of one host leave letters for one another; the server's end.

Made before the first round and removed at the end; if its server is killed, the next one to start on this host removes
it. Nothing here reads a letter.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import PeerError
from .shared_memory import FOLDER_NAME, check_folder, numbered, write_letter

try:
    import fcntl
except ImportError:  # not on Windows: there only age tells which folder is abandoned
    fcntl = None  # type: ignore[assignment]

__all__ = ["SharedFolder", "default_root", "remove_abandoned"]

log = getLogger(__name__)

#: Files beside the rounds: the server holds a lock on this one as long as it lives.
_ALIVE = "alive"
_LETTER = re.compile(r"[0-9]{1,20}/[0-9]{1,20}/[0-9]{1,20}")


def default_root() -> Path:
    """Where folders go unless told otherwise: `/dev/shm`, which is memory, else the system's temporary folder."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class SharedFolder:
    """A new folder for the letters of a run, open to its owner alone.

    Args:
        run_id: the Flower run; part of the name.
        root: folder to make it in; `default_root` by default. For all nodes' processes it must be the same folder.
        abandoned_after_s: folders of servers that are gone are removed from `root` if nothing was posted to them for so
            long.

    Usable as a context manager; the folder is also removed when the process ends or nobody holds this object.

    Raises:
        PeerError: the folder cannot be made there.

    >>> with SharedFolder(run_id=7) as folder:
    ...     folder.config()["kind"], folder.path.is_dir()
    ('shared-memory', True)
    >>> folder.path.exists()
    False
    """

    def __init__(self, run_id: int, root: str | Path | None = None, *, abandoned_after_s: float = 3600.0) -> None:
        root = (default_root() if root is None else Path(root)).absolute()
        remove_abandoned(root, abandoned_after_s)
        self.path = root / f"flower-edge-{run_id % (1 << 64):016x}-{secrets.token_hex(16)}"
        try:
            self.path.mkdir(mode=0o700)
            alive = os.open(self.path / _ALIVE, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError as error:
            raise PeerError(
                f"no mailbox folder can be made in {root} ({error.strerror}); pass a root that can be written, "
                "or choose the mailbox 'relay'"
            ) from error
        if fcntl is not None:
            fcntl.flock(alive, fcntl.LOCK_EX)
        self._end = weakref.finalize(self, _remove, self.path, alive, os.getpid())

    def config(self) -> dict[str, bool | int | float | str]:
        """Plain values for the gossip message, from which a node opens its mailbox; see `open_mailbox`."""
        return {"kind": "shared-memory", "folder": str(self.path)}

    def forget(self, before_round: int) -> None:
        """Remove letters of earlier rounds, whoever posted them."""
        for round_, folder in numbered(self.path).items():
            if round_ < before_round:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder and all in it. Safe to call twice."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The letters that are there, as bytes, for a checkpoint: take it between rounds."""
        letters: dict[str, bytes] = {}
        for round_folder in numbered(self.path).values():
            for box in numbered(round_folder).values():
                for letter in numbered(box).values():
                    letters[letter.relative_to(self.path).as_posix()] = letter.read_bytes()
        return {"letters": dict(sorted(letters.items()))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; what was there is removed.

        Raises:
            PeerError: a name in it is not that of a letter.
        """
        if bad := [name for name in state["letters"] if not _LETTER.fullmatch(name)]:
            raise PeerError(f"letters called {bad[:3]}: expected '<round>/<sender>/<sequence>'; pass state_dict()")
        for folder in numbered(self.path).values():
            shutil.rmtree(folder)
        for name, letter in state["letters"].items():
            write_letter(self.path / name, letter)


def remove_abandoned(root: Path, after_s: float) -> int:
    """Remove folders of this user whose server is gone and which nothing was posted to for `after_s`; how many."""
    removed = 0
    for folder in root.glob("flower-edge-*"):
        if not FOLDER_NAME.fullmatch(folder.name):
            continue
        try:
            check_folder(folder)
            age_s = time.time() - max(path.stat().st_mtime for path in (folder, *numbered(folder).values()))
        except (PeerError, OSError):
            continue
        alive = -1  # killed before it had a lock
        with suppress(OSError):
            alive = os.open(folder / _ALIVE, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        if age_s > after_s and _lock(alive):
            log.warning("removing mailbox folder %s, whose server is gone", folder)
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        if alive >= 0:
            os.close(alive)
    return removed


def _lock(alive: int) -> bool:
    """Whether nobody else holds the lock."""
    if fcntl is None or alive < 0:
        return True
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(path: Path, alive: int, made_by: int) -> None:
    # A forked child has this object, too, and ends before its parent.
    if os.getpid() == made_by:
        with suppress(OSError):
            os.close(alive)
        shutil.rmtree(path, ignore_errors=True)
