"""Letters in files: those that came, those that are coming, those that are to be relayed.

    in/<round>-<src>           a letter to this node       relay/<dst>-<round>-<src>    one on its way to another
    part/<box>-<name>-<digest> one that is coming

    magic · length of the signed header · signed header · letter · trailer: how long it took, how it came

A letter is written under another name and renamed, so it is there whole or not at all, whenever the agent is killed; a
part that was cut is gone on with where it ended. No letter is ever held in memory. Nothing here sends.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import TransportRefused
from .headers import HEADER_BYTES, SignedHeader

__all__ = ["Box", "LetterFiles", "Part", "StoredLetter", "sync_folder"]

_MAGIC: Final = b"FEL1"
_PREFIX: Final = struct.Struct(">4sI")
#: seconds on the last leg, seconds on the legs before (NaN: none), whether through a relay
_TRAILER: Final = struct.Struct(">dd?")
_NAME: Final = re.compile(r"\d{1,20}(-\d{1,20}){1,2}")
_CHUNK: Final = 1 << 20

#: Where a letter goes: (round, src) of this node's own, (dst, round, src) of one to be relayed.
Box = tuple[int, ...]


@dataclass(frozen=True)
class StoredLetter:
    """A letter that is there.

    Attributes:
        signed: its header.
        path, payload_at: its file, and where in it the letter begins.
        took_s: seconds on the leg that brought it, by this host's clock.
        carried_s: seconds on legs before that, as the relay told; None where there were none.
        relayed: whether it came through a relay.
    """

    signed: SignedHeader
    path: Path
    payload_at: int
    took_s: float
    carried_s: float | None
    relayed: bool


class LetterFiles:
    """The letters of a run at this agent. Its owner has the lock.

    Args:
        folder: of this run, made if it is not there; only its owner may look into it.
        durable: wait until what is acknowledged is on the disk, and not only with the system.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder, self.durable = folder, durable
        for name in ("in", "relay", "part"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.letters: dict[Box, StoredLetter] = {}
        for name, length in (("in", 2), ("relay", 3)):
            for path in (folder / name).iterdir():
                box = tuple(map(int, path.name.split("-"))) if _NAME.fullmatch(path.name) else ()
                stored = _read(path) if len(box) == length else None
                if stored is not None:
                    self.letters[box] = stored

    def begin(self, signed: SignedHeader, box: Box) -> Part:
        """What comes next is this letter; goes on with a part of it that is there.

        Raises:
            TransportRefused: `no-room`: it cannot be written.
        """
        name = f"{len(box)}-{'-'.join(map(str, box))}-"
        mine = f"{name}{signed.header.digest[:32]}"
        try:
            for path in (self.folder / "part").glob(f"{name}*"):
                if path.name != mine:
                    path.unlink(missing_ok=True)
            return Part(self, signed, box, self.folder / "part" / mine)
        except OSError as error:
            raise _no_room(error) from None

    def path_of(self, box: Box) -> Path:
        """Where a letter goes."""
        return self.folder / ("in" if len(box) == 2 else "relay") / "-".join(map(str, box))

    def remove(self, box: Box) -> None:
        """Give one up."""
        stored = self.letters.pop(box, None)
        if stored is not None:
            stored.path.unlink(missing_ok=True)

    def forget(self, before_round: int, *, relayed: bool) -> None:
        """Give up letters of earlier rounds, and parts of them."""
        length = 3 if relayed else 2
        for box in [box for box in self.letters if len(box) == length and box[-2] < before_round]:
            self.remove(box)
        for path in (self.folder / "part").iterdir():
            numbers = path.name.split("-")
            if numbers[0] == str(length) and numbers[-3].isdecimal() and int(numbers[-3]) < before_round:
                path.unlink(missing_ok=True)


class Part:
    """A letter that is coming. Used by one thread.

    Attributes:
        offset: how much of it is there.
        ended: called when it is finished, kept or dropped.
    """

    def __init__(self, files: LetterFiles, signed: SignedHeader, box: Box, path: Path) -> None:
        self._files, self._signed, self._box, self._path = files, signed, box, path
        head = signed.to_bytes()
        prefix = _PREFIX.pack(_MAGIC, len(head)) + head
        self._payload_at = len(prefix)
        self.ended: Callable[[], None] = lambda: None
        self._digest = hashlib.sha256()
        self.size = signed.header.size
        self._file: Any = open(path, "a+b", buffering=0)  # noqa: SIM115
        try:
            os.chmod(path, 0o600)
            self._file.seek(0)
            self.offset = self._file.seek(0, os.SEEK_END) - len(prefix)
            self._file.seek(0)
            if not 0 <= self.offset <= self.size or self._file.read(len(prefix)) != prefix:
                self._file.truncate(0)
                self._file.write(prefix)
                self.offset = 0
            left = self.offset
            while left:
                data = self._file.read(min(left, _CHUNK))
                self._digest.update(data)
                left -= len(data)
        except BaseException:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        """The next piece.

        Raises:
            TransportRefused: `no-room`: the disk is full.
        """
        self._digest.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.drop()
            raise _no_room(error) from None
        self.offset += len(data)

    def finish(self, took_s: float, carried_s: float | None, *, relayed: bool) -> StoredLetter:
        """It is whole: put it in its place, where it stays though the agent is killed; `letters` is for its owner.

        Raises:
            TransportRefused: `bad-digest`: it is not what was announced, and is given up; `no-room`.
        """
        if self.offset != self.size or self._digest.hexdigest() != self._signed.header.digest:
            self.drop()
            raise TransportRefused("a letter that is not what its header announced; send it anew", "bad-digest")
        try:
            self._file.write(_TRAILER.pack(took_s, float("nan") if carried_s is None else carried_s, relayed))
            if self._files.durable:
                os.fsync(self._file.fileno())
            self._file.close()
            path = self._files.path_of(self._box)
            self._path.replace(path)
            if self._files.durable:
                sync_folder(path.parent)
        except OSError as error:
            self.drop()
            raise _no_room(error) from None
        self.ended()
        return StoredLetter(self._signed, path, self._payload_at, took_s, carried_s, relayed)

    def keep(self) -> None:
        """It was cut: what is there stays, for a sender who goes on."""
        self._file.close()
        self.ended()

    def drop(self) -> None:
        """Give it up."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self.ended()


def sync_folder(folder: Path) -> None:
    """Wait until names in it are on the disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _read(path: Path) -> StoredLetter | None:
    """A letter that was put in its place before; None where it is damaged, and then removed."""
    with suppress(OSError, TransportRefused, struct.error), path.open("rb") as file:
        magic, length = _PREFIX.unpack(file.read(_PREFIX.size))
        if magic == _MAGIC and length <= HEADER_BYTES:
            signed = SignedHeader.from_bytes(file.read(length))
            payload_at = _PREFIX.size + length
            file.seek(payload_at + signed.header.size)
            trailer = file.read(_TRAILER.size + 1)
            if len(trailer) == _TRAILER.size:
                took_s, carried_s, relayed = _TRAILER.unpack(trailer)
                told = None if carried_s != carried_s else carried_s
                return StoredLetter(signed, path, payload_at, took_s, told, relayed)
    path.unlink(missing_ok=True)
    return None


def _no_room(error: OSError) -> TransportRefused:
    return TransportRefused(f"the letter cannot be written here ({error.strerror}); make room, or try later", "no-room")
