"""Certificates of peers that are taken back before they expire: the list that a server of devices keeps, as a file.

`flower-edge up` writes it when a device is removed or leaves, and tells every run of its SuperLink where it is, by
FLOWER_EDGE_REVOKED. Who writes the round's tables of neighbours reads it before each round. Nothing here sends.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from logging import getLogger
from pathlib import Path
from typing import Final

from ..errors import PeerError

__all__ = ["REVOKED_VARIABLE", "RevokedPeers", "revoked_as_bytes"]

log = getLogger("flwr.edge")

#: Environment variable: the file with the fingerprints.
REVOKED_VARIABLE: Final = "FLOWER_EDGE_REVOKED"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")


class RevokedPeers:
    """The list, read again when its file has changed.

    Args:
        path: the file; None: what FLOWER_EDGE_REVOKED names, and where that is not set, nobody is ever revoked.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "revoked.json")
    ...     revoked = RevokedPeers(file)
    ...     _ = file.write_bytes(revoked_as_bytes(["ab" * 32]))
    ...     "ab" * 32 in revoked.now()
    True
    """

    def __init__(self, path: str | Path | None = None) -> None:
        given = os.environ.get(REVOKED_VARIABLE, "") if path is None else str(path)
        self._path = Path(given) if given else None
        self._seen: tuple[int, int, int] | None = None
        self._list: tuple[str, ...] = ()

    def now(self) -> tuple[str, ...]:
        """Fingerprints (SHA-256 over a certificate's DER, hex), the last revoked first.

        A list that was read once and cannot be read now holds on: nobody comes back because a disk is full.

        Raises:
            PeerError: a list that is named and was never read, damaged or not there: guessing would let somebody in.
        """
        if self._path is None:
            return ()
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen != self._seen:
                self._list = _read(self._path)
                self._seen = seen
        except (OSError, ValueError) as error:
            if self._seen is None:
                raise PeerError(
                    f"{self._path}, the list of revoked certificates, cannot be read ({error}); it is written "
                    "anew when `flower-edge up` starts"
                ) from None
            log.warning("\t%s cannot be read (%s); the list of before holds", self._path, error)
        return self._list


def revoked_as_bytes(fingerprints: Iterable[str]) -> bytes:
    """The content of such a file, the last revoked first."""
    return json.dumps({"fingerprints": list(fingerprints)}, indent=1).encode()


def _read(path: Path) -> tuple[str, ...]:
    told = json.loads(path.read_text("ascii"))
    found = told.get("fingerprints") if isinstance(told, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, str) and _FINGERPRINT.fullmatch(one) for one in found):
        raise ValueError("expected fingerprints of 64 hex digits")
    return tuple(found)
