"""Packets that this node has posted, in files, until all their receivers have acknowledged them.

    out/<round>-<sequence>.packet      its bytes             .json       whom it is for
    out/<round>-<sequence>.done-<dst>  that node has it

The JSON is written last: a packet without one was not acknowledged to the mailbox that posted it. Nothing here sends.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...errors import PeerError
from .letter_files import sync_folder

__all__ = ["Post", "Posts", "Received"]

_JSON: Final = re.compile(r"(\d{1,20})-(\d{1,20})\.json")


@dataclass
class Post:
    """One packet.

    Attributes:
        round, sequence: of the packet.
        path: its file.
        size, digest: of the file; SHA-256, hex.
        to: whom it is for.
        processing_s: as the mailbox told it.
        done: who needs it no more.
    """

    round: int
    sequence: int
    path: Path
    size: int
    digest: str
    to: tuple[int, ...]
    processing_s: float | None = None
    done: set[int] = field(default_factory=set)

    @property
    def waiting(self) -> list[int]:
        """Those who have not got it."""
        return [node for node in self.to if node not in self.done]


@dataclass(frozen=True)
class Received:
    """A packet whose bytes are there, and which is nobody's yet."""

    path: Path
    size: int
    digest: str


class Posts:
    """What a node has posted in a run. Its owner has the lock.

    Args:
        folder: of the run.
        durable: as of `LetterFiles`.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder, self._durable = folder / "out", durable
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.posts: dict[tuple[int, int], Post] = {}
        for path in sorted(self._folder.iterdir()):
            if _JSON.fullmatch(path.name) and (post := self._read(path)) is not None:
                self.posts[post.round, post.sequence] = post
        known = {f"{round_}-{sequence}" for round_, sequence in self.posts}
        for path in self._folder.iterdir():
            if ".new" in path.name or path.name.partition(".")[0] not in known:
                path.unlink(missing_ok=True)

    def receive(self, body: Iterable[bytes]) -> Received | None:
        """Write a packet as it comes; None where it is empty. Needs no lock.

        Raises:
            PeerError: it cannot be written.
        """
        path = self._folder / f"packet.new-{os.urandom(8).hex()}"
        digest, size = hashlib.sha256(), 0
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
                for data in body:
                    digest.update(data)
                    size += len(data)
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) :]
                if self._durable:
                    os.fsync(file.fileno())
        except OSError as error:
            path.unlink(missing_ok=True)
            raise self._unwritten(error) from None
        if not size:
            path.unlink()
            return None
        return Received(path, size, digest.hexdigest())

    def keep(
        self, round: int, sequence: int, to: Iterable[int], processing_s: float | None, received: Received
    ) -> Post:
        """From when this returns the packet is there, though the agent is killed.

        A packet of the same round and sequence takes the place of the one before.

        Raises:
            PeerError: it cannot be written.
        """
        path = self._folder / f"{round}-{sequence}.packet"
        before = self.posts.get((round, sequence))
        post = Post(round, sequence, path, received.size, received.digest, tuple(to), processing_s)
        if before is not None and before.digest == post.digest:
            # The same again: only those who have not been named before are new.
            post.to = tuple(sorted({*before.to, *post.to}))
            post.done = set(before.done)
        elif before is not None:
            self.remove(before)
        try:
            received.path.replace(path)
            self._tell(post)
        except OSError as error:
            received.path.unlink(missing_ok=True)
            raise self._unwritten(error) from None
        self.posts[round, sequence] = post
        return post

    def _unwritten(self, error: OSError) -> PeerError:
        return PeerError(
            f"the packet cannot be written into {self._folder} ({error.strerror}); make room there, or give the agent "
            "another --folder"
        )

    def done(self, post: Post, dst: int) -> None:
        """This receiver needs it no more; when nobody does, it is given up."""
        post.done.add(dst)
        if not post.waiting:
            self.remove(post)
        elif self.posts.get((post.round, post.sequence)) is post:
            with suppress(OSError):
                post.path.with_suffix(f".done-{dst}").touch(mode=0o600)

    def remove(self, post: Post) -> None:
        """Give it up."""
        if self.posts.get((post.round, post.sequence)) is not post:
            return
        del self.posts[post.round, post.sequence]
        # What says that it is there goes first.
        post.path.with_suffix(".json").unlink(missing_ok=True)
        for path in self._folder.glob(f"{post.round}-{post.sequence}.*"):
            if ".new-" not in path.name:
                path.unlink(missing_ok=True)

    def forget(self, before_round: int) -> None:
        """Give up packets of earlier rounds."""
        for post in [post for post in self.posts.values() if post.round < before_round]:
            self.remove(post)

    def _tell(self, post: Post) -> None:
        told = {"size": post.size, "digest": post.digest, "to": list(post.to), "processing_s": post.processing_s}
        path = post.path.with_suffix(".json")
        beside = path.with_suffix(".new-json")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(told, file)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        beside.replace(path)
        if self._durable:
            sync_folder(self._folder)

    def _read(self, path: Path) -> Post | None:
        round_, sequence = map(int, path.stem.split("-"))
        try:
            told: dict[str, Any] = json.loads(path.read_text())
            packet = path.with_suffix(".packet")
            if packet.stat().st_size != told["size"]:
                return None
            to, processing_s = tuple(int(node) for node in told["to"]), told["processing_s"]
            post = Post(round_, sequence, packet, told["size"], told["digest"], to, processing_s)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        done = (found.suffix.removeprefix(".done-") for found in self._folder.glob(f"{path.stem}.done-*"))
        post.done = {int(node) for node in done if node.isdecimal()}
        return post if post.waiting else None
