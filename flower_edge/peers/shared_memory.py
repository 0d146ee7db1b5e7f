"""Letters through memory that processes of one host share: files in a folder that lives in RAM, read by mapping them.

Ray's workers, SuperNodes of one machine and threads of one process all see the folder; another host does not, and is
told so when it opens its mailbox. The folder's name holds a token the server drew, which travels in the gossip message;
folder and files are for their owner alone. The server's end, who makes and removes the folder, is `SharedFolder`.

    <folder>/<round>/<sender>/<sequence>     one letter: envelope, then the packet

A letter is written under another name and renamed, so that it is there whole or not at all, whenever its writer dies.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import shutil
import stat
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

from ..errors import PeerError, WireError
from .mailbox import MOST_BYTES, Letter, Mailbox
from .packet import Packet

__all__ = ["FOLDER_NAME", "SharedMemoryMailbox", "check_folder", "numbered", "write_letter"]

#: Names a folder can have; nothing else that a message may name is opened.
FOLDER_NAME = re.compile(r"flower-edge-[0-9a-f]{16}-[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_MAGIC = b"FEML"
#: magic, check sum of the rest of the envelope, number of receivers, processing_s (NaN: not told)
_ENVELOPE = struct.Struct("<4sIId")
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_CHECKED = 8  # bytes before those that the check sum is of


class SharedMemoryMailbox(Mailbox):
    """The mailbox of a node on a host whose nodes share memory. `link_s` is the time it took to read a letter.

    Args:
        node: index of the node.
        folder: as the server's `SharedFolder.config()` says.
        most_bytes: see `Mailbox`.

    Raises:
        PeerError: the folder is not on this host, is not one of ours, or others may look into it.
    """

    via = "shared-memory"

    def __init__(self, node: int, folder: str | Path, *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(node, most_bytes=most_bytes)
        self._folder = check_folder(Path(folder))
        self._bad: set[Path] = set()

    def forget(self, before_round: int) -> None:
        """Remove the letters this node posted in earlier rounds, and what a killed post of them left behind."""
        for round_, folder in numbered(self._folder).items():
            if round_ < before_round:
                shutil.rmtree(folder / str(self.node), ignore_errors=True)
                with suppress(OSError):  # letters of others are still in it
                    folder.rmdir()

    def _send(self, packet: Packet, to: tuple[int, ...], processing_s: float | None) -> None:
        receivers = struct.pack(f"<{len(to)}I", *to)
        rest = struct.pack("<Id", len(to), float("nan") if processing_s is None else processing_s) + receivers
        envelope = _MAGIC + struct.pack("<I", zlib.crc32(rest)) + rest
        path = self._folder / str(packet.round) / str(packet.sender) / str(packet.sequence)
        write_letter(path, envelope, packet.to_bytes())

    def _fetch(self, round: int, sender: int) -> Letter | None:
        folder = self._folder / str(round) / str(sender)
        try:
            names = [name for name in os.listdir(folder) if _NUMBER.fullmatch(name)]
        except OSError:
            return None
        for name in sorted(names, key=int, reverse=True):
            begun_s = time.perf_counter()
            try:
                found = self._read(folder / name)
            except WireError as error:
                if folder / name not in self._bad:
                    self._bad.add(folder / name)
                    self._refuse(sender, error)
                continue
            if found is None:
                continue
            packet, processing_s = found
            if (packet.round, packet.sender, packet.sequence) == (round, sender, int(name)):
                return Letter(packet, processing_s, time.perf_counter() - begun_s, self.via)
            if folder / name not in self._bad:
                self._bad.add(folder / name)
                says = f"it says round {packet.round}, node {packet.sender}, sequence {packet.sequence}"
                self._refuse(sender, WireError(f"{says}; expected {round}, {sender}, {name}, as its file is called"))
        return None

    def _read(self, path: Path) -> tuple[Packet, float | None] | None:
        """The packet and its sender's time; `None` if it is not for this node, or gone."""
        try:
            # Without waiting: a pipe in the place of a letter would have nobody at its other end.
            opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _AT_ONCE)
        except FileNotFoundError:
            return None  # forgotten just now
        except OSError as error:
            raise WireError(f"a letter that cannot be opened: {error}") from error
        try:
            about = os.fstat(opened)
            if not stat.S_ISREG(about.st_mode) or about.st_size < _ENVELOPE.size:
                raise WireError(f"{about.st_size} bytes that are no letter; another program writes into the folder")
            try:
                mapped = mmap.mmap(opened, 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise WireError(f"{about.st_size} bytes that cannot be mapped: {error}") from error
            # Unmapped when nothing refers to it any more: an error's traceback may still, so it is not closed here.
            return self._unfold(memoryview(mapped))
        finally:
            os.close(opened)

    def _unfold(self, view: memoryview) -> tuple[Packet, float | None] | None:
        magic, check, count, processing_s = _ENVELOPE.unpack_from(view)
        begin = _ENVELOPE.size + 4 * count
        if magic != _MAGIC or begin > len(view) or zlib.crc32(view[_CHECKED:begin]) != check:
            raise WireError(f"{len(view)} bytes without a whole envelope; another program writes into the folder")
        if self.node not in struct.unpack_from(f"<{count}I", view, _ENVELOPE.size):
            return None
        if len(view) - begin > self.most_bytes:
            raise WireError(f"a packet of {len(view) - begin} bytes, at most {self.most_bytes} are read")
        told = processing_s == processing_s  # NaN: not told
        if told and not 0 <= processing_s < float("inf"):
            raise WireError(f"processing_s = {processing_s}, expected seconds, 0 or more")
        return Packet.from_bytes(view[begin:]), processing_s if told else None


def check_folder(folder: Path) -> Path:
    """The folder, if it is one that a `SharedFolder` of this user made on this host.

    Raises:
        PeerError: it is not; the message says what to choose instead.
    """
    if not FOLDER_NAME.fullmatch(folder.name) or not folder.is_absolute():
        raise PeerError(f"mailbox folder {str(folder)!r}: expected what SharedFolder.config() says; pass it unchanged")
    try:
        about = folder.lstat()
    except OSError as error:
        raise PeerError(
            f"mailbox folder {folder} is not on this host ({error.strerror}): its nodes share no memory with the "
            "server, or the run has ended; choose the mailbox 'relay'"
        ) from error
    if not stat.S_ISDIR(about.st_mode) or (os.name == "posix" and about.st_uid != os.geteuid()):
        raise PeerError(
            f"mailbox folder {folder} belongs to somebody else; run the server and its nodes as one user, "
            "or choose the mailbox 'relay'"
        )
    if os.name == "posix" and about.st_mode & 0o077:
        raise PeerError(f"mailbox folder {folder} is open to others; chmod 700 it, or choose the mailbox 'relay'")
    return folder


def numbered(folder: Path) -> dict[int, Path]:
    """What is called by a number in a folder, by that number: rounds, senders in a round, letters of a sender."""
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    return {int(name): folder / name for name in names if _NUMBER.fullmatch(name)}


def write_letter(path: Path, *parts: bytes) -> None:
    """Put a letter in its place, whole or not at all.

    Raises:
        PeerError: the folder is gone, or the memory is full.
    """
    box = path.parent
    unfinished = box / f".unfinished-{os.getpid()}-{secrets.token_hex(8)}"
    for attempt in range(3):
        try:
            for folder in (box.parent, box):
                folder.mkdir(mode=0o700, exist_ok=True)
            opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            break
        except FileNotFoundError as error:
            # Somebody tidied the round's folder away between the two calls; or the whole of it is gone.
            if attempt == 2 or not box.parent.parent.is_dir():
                raise PeerError(
                    f"mailbox folder {box.parent.parent} is gone: the run has ended, or the server was started anew; "
                    "open the mailbox that the next message describes"
                ) from error
        except OSError as error:
            raise _unwritten(path, error) from error
    try:
        with os.fdopen(opened, "wb", buffering=0) as file:
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[file.write(view) :]
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> PeerError:
    return PeerError(
        f"letter {path} cannot be written ({error.strerror}); make room there, call forget() for earlier rounds, "
        "or choose the mailbox 'relay'"
    )
