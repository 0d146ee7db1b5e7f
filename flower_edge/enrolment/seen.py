"""When devices were last seen by the server that runs, kept in a file of its folder for `flower-edge devices list`.

The server writes it every few seconds; who reads it may be another process, and the server may be gone. Nothing here
asks a device.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from .server_folder import ServerFolder

__all__ = ["WRITTEN_EVERY_S", "read_seen", "write_seen"]

WRITTEN_EVERY_S: Final = 10.0
#: Older than this it says nothing about now: the disk is full, or the server hangs.
_GOOD_S: Final = 6 * WRITTEN_EVERY_S
_NAME: Final = "seen"


def write_seen(folder: ServerFolder, ago_s: Mapping[str, float]) -> None:
    """Keep how many seconds ago each public key was seen; who was not is left out.

    Raises:
        EnrolmentError: it cannot be written.
    """
    folder.remember(_NAME, {"at_s": time.time(), "ago_s": {key: round(ago, 1) for key, ago in ago_s.items()}})


def read_seen(folder: ServerFolder) -> dict[str, float] | None:
    """How many seconds ago each public key was seen; None where no server runs, or it has not said so for a minute."""
    told = folder.recall(_NAME)
    if not folder.in_use or not isinstance(told, dict):
        return None
    at_s, seen = told.get("at_s"), told.get("ago_s")
    if not isinstance(at_s, float) or not isinstance(seen, dict):
        return None
    since_s = max(0.0, time.time() - at_s)
    if since_s > _GOOD_S:
        return None
    return {str(key): float(ago) + since_s for key, ago in seen.items() if isinstance(ago, (int, float))}
