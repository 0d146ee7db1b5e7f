"""What a server that takes devices keeps on its disk: authorities, certificates, the books, Flower's own folder.

Found again when it is there, so that devices stay registered whatever ended the server. Everything lies in one folder
that only its owner may read. Nothing here starts or serves anything.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final

from cryptography import x509

from ..errors import EnrolmentError
from ..transport.certificates import KeyPair, fingerprint, issue, make_authority

__all__ = ["ServerFolder", "write_whole"]

#: An authority that ends takes every device with it: their joins were made with its fingerprint.
_AUTHORITY_DAYS: Final = 3650.0
_PUBLIC_DAYS: Final = 90.0
#: Of the SuperLink's own, which is read once and used on the loopback address only.
_INSIDE_DAYS: Final = 1000.0
_RENEW_BEFORE: Final = timedelta(days=30)
#: Who only looks whether the folder is in use holds the lock for a moment.
_LOCK_S: Final = 0.5
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class ServerFolder:
    """The folder of one server. Made by `ServerFolder.at`."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> ServerFolder:
        """The folder, made where it is not there.

        Raises:
            EnrolmentError: it cannot be made or written to.
        """
        folder = cls(path.expanduser().absolute())
        try:
            folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.home.mkdir(exist_ok=True)
            folder.logs.mkdir(exist_ok=True)
            if not (folder.path / "launch-id").exists():
                write_whole(folder.path / "launch-id", secrets.token_hex(16).encode())
        except OSError as error:
            raise EnrolmentError(
                f"--state {path} cannot be written to ({error.strerror or error}); give another folder"
            ) from None
        return folder

    @property
    def book(self) -> Path:
        """The enrolment book."""
        return self.path / "enrolment.sqlite"

    @property
    def database(self) -> Path:
        """Flower's own."""
        return self.path / "superlink.sqlite"

    @property
    def home(self) -> Path:
        """FLWR_HOME of the SuperLink and of `flwr` on this server."""
        return self.path / "flower"

    @property
    def logs(self) -> Path:
        """What the programs print."""
        return self.path / "logs"

    @property
    def runs(self) -> Path:
        """Where runs of this server leave their folders, unless FLOWER_EDGE_RUNS says otherwise."""
        return self.path / "runs"

    @property
    def revoked(self) -> Path:
        """Certificates for peers of devices that are out, for the runs of this server."""
        return self.path / "revoked.json"

    @property
    def launch_id(self) -> str:
        """Marks the processes of this server, also those that outlived it."""
        return (self.path / "launch-id").read_text("ascii").strip()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from serving from this folder.

        Raises:
            EnrolmentError: somebody does.
        """
        with (self.path / "lock").open("a") as file:
            if not _lock(file, _LOCK_S):
                raise EnrolmentError(
                    f"another `flower-edge up` serves from {self.path}; end it, or give this one a --state of its own"
                ) from None
            # Programs that are started here must not hold the lock when this one has been killed.
            os.set_inheritable(file.fileno(), False)
            yield

    @property
    def in_use(self) -> bool:
        """Whether somebody serves from here now."""
        with (self.path / "lock").open("a") as file:
            return not _lock(file, 0.0)

    def authority(self) -> KeyPair:
        """Who vouches for this server; its fingerprint is in every join line."""
        return self._authority("authority", "flower-edge")

    def peers(self) -> KeyPair:
        """Who vouches for devices among themselves, and for no server."""
        return self._authority("peers", "flower-edge peers")

    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate."""
        return fingerprint(self.authority().certificate_pem)

    def public_certificate(self, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Files of the public port's certificate and key; made anew where they are old, or for other hosts."""
        return self._certificate("public", [*dict.fromkeys([*hosts, *_LOOPBACK])], _PUBLIC_DAYS)

    def inside_certificate(self) -> tuple[Path, Path]:
        """The same for the SuperLink behind the filter."""
        return self._certificate("superlink", list(_LOOPBACK), _INSIDE_DAYS)

    def authority_file(self) -> Path:
        """The authority's certificate; not its key."""
        self.authority()
        return self.path / "authority.pem"

    def remember(self, name: str, value: object) -> None:
        """Keep a small value."""
        write_whole(self.path / f"{name}.json", json.dumps(value).encode())

    def recall(self, name: str) -> object:
        """It, or None."""
        try:
            return json.loads((self.path / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def _authority(self, name: str, called: str) -> KeyPair:
        files = self._files(name)
        if not all(file.exists() for file in files):
            if self.book.exists():
                raise EnrolmentError(
                    f"{files[0]} or {files[1]} is missing, and devices have joined with it; put it back from a copy, "
                    "or begin with an empty --state and let them join anew"
                )
            self._keep(files, make_authority(called, days=_AUTHORITY_DAYS))
        return _read(files)

    def _certificate(self, name: str, hosts: list[str], days: float) -> tuple[Path, Path]:
        files = self._files(name)
        if not _good_for(files, hosts):
            self._keep(files, issue(self.authority(), hosts, name=hosts[0], days=days))
        return files

    def _files(self, name: str) -> tuple[Path, Path]:
        return self.path / f"{name}.pem", self.path / f"{name}.key"

    def _keep(self, files: tuple[Path, Path], pair: KeyPair) -> None:
        # The certificate last: where it is, the key is there too.
        write_whole(files[1], pair.key_pem)
        write_whole(files[0], pair.certificate_pem, mode=0o644)


def _lock(file: IO[str], within_s: float) -> bool:
    latest_s = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= latest_s:
                return False
        time.sleep(0.05)


def write_whole(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that after a power cut it is the old one or the new one.

    Raises:
        EnrolmentError: the disk is full, or the folder cannot be written to.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        why = error.strerror or error
        raise EnrolmentError(f"{path} cannot be written ({why}); make room, or give another folder") from None


def _read(files: tuple[Path, Path]) -> KeyPair:
    try:
        return KeyPair(files[0].read_bytes(), files[1].read_bytes())
    except OSError as error:
        raise EnrolmentError(f"{error.filename} cannot be read ({error.strerror})") from None


def _good_for(files: tuple[Path, Path], hosts: list[str]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(files[0].read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    said = [str(name.value) for name in names]
    return files[1].exists() and said == hosts and found.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE
