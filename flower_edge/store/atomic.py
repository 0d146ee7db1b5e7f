"""Files that are old or new, never half: write beside, flush to the disk, rename.

Nothing here knows what is in the file. One process writes a given file at a time; any number may read it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StateError

__all__ = ["remove_leftovers", "told_what_to_do", "write_bytes"]

#: Temporary files are called `.<name>.<random>.part` and stand beside the file they will become.
PART = ".part"


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash at any moment, finds the old file or the new one.

    A process killed while writing leaves a hidden `*.part` file behind; see `remove_leftovers`.

    Raises:
        OSError: the folder is missing, not writable or full; the old file is untouched.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


@contextmanager
def told_what_to_do(path: Path) -> Iterator[None]:
    """What of a run cannot be written within is said with its place, the reason, and what to do about it.

    Raises:
        StateError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{path} cannot be written ({error.strerror or error}); what was written before is whole: make room there, "
            "and resume the run"
        ) from error


def remove_leftovers(folder: Path) -> int:
    """Remove what a killed writer left in `folder`; only for the one process that writes there. Returns how many."""
    leftovers = list(folder.glob(f".*{PART}"))
    for part in leftovers:
        part.unlink(missing_ok=True)
    return len(leftovers)


def _flush_folder(folder: Path) -> None:
    # The rename itself is only on the disk once the folder is. Windows cannot open a folder and needs no such call.
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
