"""The enrolment book: which tokens are good, and which keys and certificates belong to which devices. One SQLite file.

Tokens are kept as SHA-256, so that who reads the file cannot use them. All that counts is one transaction each: a
token that was redeemed is redeemed also after a power cut, and a token for one device never lets two in. Several
processes may have the book open. Nothing here talks to Flower or to devices.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..errors import ConfigError, EnrolmentError, EnrolmentRefused

__all__ = ["Device", "EnrolmentBook"]

DeviceState = Literal["pending", "joined", "removed"]
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tokens (
    digest TEXT PRIMARY KEY, uses_left INTEGER NOT NULL, uses INTEGER NOT NULL, expires_s REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS devices (
    public_key TEXT PRIMARY KEY, name TEXT NOT NULL, node_id TEXT, state TEXT NOT NULL, since_s REAL NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS names ON devices (name) WHERE state <> 'removed';
CREATE TABLE IF NOT EXISTS certificates (
    fingerprint TEXT PRIMARY KEY, public_key TEXT NOT NULL, until_s REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS untold (public_key TEXT PRIMARY KEY) STRICT;
"""


@dataclass(frozen=True)
class Device:
    """A device that has joined, or was on the way to it.

    Attributes:
        public_key: as OpenSSH writes it, without a comment: who the device is.
        name: for people; no two devices that are in have the same.
        node_id: Flower's; None while Flower has not been told of it.
        state: `pending` until Flower has registered it; `removed` for good.
        since_s: when it came into this state, seconds since 1970.
    """

    public_key: str
    name: str
    node_id: int | None
    state: DeviceState
    since_s: float


class EnrolmentBook:
    """A book in a file, which is made where it is not there.

    Args:
        path: of the file.
        clock: seconds since 1970; the only clock that tokens go by.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        with self._write() as book:
            book.executescript(_SCHEMA)

    def invite(self, *, uses: int = 1, valid_s: float = 3600.0) -> str:
        """A new token, good for `uses` devices within `valid_s` seconds.

        Raises:
            ConfigError: no such number or time.
        """
        if uses < 1:
            raise ConfigError(f"a token for {uses} devices: expected 1 or more")
        if not 0.0 < valid_s <= 366 * 86_400.0:
            raise ConfigError(f"a token valid for {valid_s:g} s: expected more than 0, and a year at most")
        # No other letters: a token that begins with "-" would be an option of the command line.
        token = secrets.token_hex(20)
        now_s = self._clock()
        with self._write() as book:
            book.execute("DELETE FROM tokens WHERE expires_s < ?", (now_s - 30 * 86_400.0,))
            book.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", (_digest(token), uses, uses, now_s + valid_s))
        return token

    def admit(self, token: str | None, public_key: str, name: str) -> Device:
        """Let a device in, once its key has been proved; what it is called may get a number behind it.

        A device that is in already stays as it is, whatever the token: so a join that broke off can be done again.

        Raises:
            EnrolmentRefused: `no-token`, `bad-token`, `token-expired`, `token-used` or `removed`.
        """
        now_s = self._clock()
        with self._write() as book:
            known = _one(book, "public_key", public_key)
            if known is not None and known.state == "removed":
                raise EnrolmentRefused(_REMOVED, "removed")
            if known is not None:
                return known
            if token is None:
                raise EnrolmentRefused(f"no token came, and this device is not known here; {_ASK}", "no-token")
            row = book.execute("SELECT uses_left, expires_s FROM tokens WHERE digest = ?", (_digest(token),)).fetchone()
            if row is None:
                raise EnrolmentRefused(f"the token is not one of this server; copy it whole, or {_ASK}", "bad-token")
            left, expires_s = row
            if now_s >= expires_s:
                hours = (now_s - expires_s) / 3600.0
                raise EnrolmentRefused(f"the token expired {hours:.1f} hours ago; {_ASK}", "token-expired")
            if left < 1:
                raise EnrolmentRefused(f"the token has been used, as often as it was good for; {_ASK}", "token-used")
            book.execute("UPDATE tokens SET uses_left = uses_left - 1 WHERE digest = ?", (_digest(token),))
            taken = {row[0] for row in book.execute("SELECT name FROM devices WHERE state <> 'removed'")}
            given = next(other for other in _names(name) if other not in taken)
            book.execute("INSERT INTO devices VALUES (?, ?, NULL, 'pending', ?)", (public_key, given, now_s))
            return Device(public_key, given, None, "pending", now_s)

    def joined(self, public_key: str, node_id: int) -> Device:
        """Flower has registered a device under this id."""
        with self._write() as book:
            done = book.execute(
                "UPDATE devices SET node_id = ?, state = 'joined', since_s = ? WHERE public_key = ? AND state <> ?",
                (str(node_id), self._clock(), public_key, "removed"),
            )
            if done.rowcount != 1:
                raise EnrolmentRefused(_REMOVED, "removed")
        return self.device(public_key)

    def certified(self, public_key: str, fingerprint: str, until_s: float) -> None:
        """A device was given a certificate, good until then (seconds since 1970); expired ones are forgotten."""
        with self._write() as book:
            book.execute("DELETE FROM certificates WHERE until_s < ?", (self._clock(),))
            book.execute("INSERT OR REPLACE INTO certificates VALUES (?, ?, ?)", (fingerprint, public_key, until_s))

    def removed(self, public_key: str) -> None:
        """A device is out for good: its key will never be let in again. Flower is to be told, see `untold`."""
        with self._write() as book:
            book.execute(
                "UPDATE devices SET state = 'removed', since_s = ? WHERE public_key = ? AND state <> 'removed'",
                (self._clock(), public_key),
            )
            # Also one without a node id: Flower may have it, where its join broke off or goes on just now.
            book.execute(
                "INSERT OR IGNORE INTO untold SELECT public_key FROM devices WHERE public_key = ?", (public_key,)
            )

    def has_node(self, public_key: str, node_id: int) -> None:
        """Flower has a device that is out under this id, and is to be told, see `untold`."""
        with self._write() as book:
            done = book.execute(
                "UPDATE devices SET node_id = ? WHERE public_key = ? AND state = 'removed'", (str(node_id), public_key)
            )
            if done.rowcount == 1:
                book.execute("INSERT OR IGNORE INTO untold VALUES (?)", (public_key,))

    def told(self, public_key: str) -> None:
        """Flower knows that this device is out."""
        with self._write() as book:
            book.execute("DELETE FROM untold WHERE public_key = ?", (public_key,))

    def untold(self) -> list[Device]:
        """Devices that are out, and Flower does not know it yet."""
        with self._open() as book:
            rows = book.execute("SELECT devices.* FROM devices JOIN untold USING (public_key)").fetchall()
        return [_device(row) for row in rows]

    def revoked(self) -> list[str]:
        """Fingerprints of certificates of devices that are out and that have not expired, the last ones first."""
        with self._open() as book:
            rows = book.execute(
                "SELECT fingerprint FROM certificates JOIN devices USING (public_key) "
                "WHERE state = 'removed' AND until_s > ? ORDER BY since_s DESC, fingerprint",
                (self._clock(),),
            ).fetchall()
        return [str(row[0]) for row in rows]

    def uses_left(self) -> int:
        """For how many devices more the tokens are good that have not expired."""
        with self._open() as book:
            (left,) = book.execute(
                "SELECT COALESCE(SUM(uses_left), 0) FROM tokens WHERE expires_s > ?", (self._clock(),)
            ).fetchone()
        return int(left)

    def device(self, public_key: str) -> Device:
        """The device with this key.

        Raises:
            EnrolmentRefused: `unknown`.
        """
        with self._open() as book:
            found = _one(book, "public_key", public_key)
        if found is None:
            raise EnrolmentRefused("this device is not known here; join with a token of this server", "unknown")
        return found

    def called(self, name: str) -> Device:
        """The device of this name, or with this node id, that is in.

        Raises:
            ConfigError: there is none.
        """
        found = [device for device in self.devices() if name in (device.name, str(device.node_id))]
        if not found:
            names = ", ".join(device.name for device in self.devices()) or "none"
            raise ConfigError(f"no device {name!r} has joined; there are: {names}")
        return found[0]

    def devices(self, *, removed: bool = False) -> list[Device]:
        """Those that are in, the longest first; with `removed` also those that are out, behind them, the last first."""
        with self._open() as book:
            rows = book.execute("SELECT * FROM devices WHERE state <> 'removed' ORDER BY since_s, name").fetchall()
            if removed:
                gone = "SELECT * FROM devices WHERE state = 'removed' ORDER BY since_s DESC, name"
                rows += book.execute(gone).fetchall()
        return [_device(row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            book = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
            try:
                book.execute("PRAGMA journal_mode = WAL")
                book.execute("PRAGMA synchronous = FULL")
                yield book
            finally:
                book.close()
        except sqlite3.Error as error:
            raise EnrolmentError(
                f"{self._path}: {error}; is the disk full, or the folder not to be written to?"
            ) from None

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._open() as book:
            book.execute("BEGIN IMMEDIATE")
            try:
                yield book
            except BaseException:
                if book.in_transaction:
                    book.execute("ROLLBACK")
                raise
            if book.in_transaction:
                book.execute("COMMIT")


_ASK: Final = "ask for a new one: `flower-edge devices invite` on the server makes it"
_REMOVED: Final = (
    "this device's key was removed here and is not taken again; run `flower-edge leave` on the device, and join "
    "with a new token"
)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _names(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _one(book: sqlite3.Connection, column: str, value: str) -> Device | None:
    row = book.execute(f"SELECT * FROM devices WHERE {column} = ?", (value,)).fetchone()
    return None if row is None else _device(row)


def _device(row: tuple[str, str, str | None, DeviceState, float]) -> Device:
    public_key, name, node_id, state, since_s = row
    return Device(public_key, name, None if node_id is None else int(node_id), state, since_s)
