"""Where the part of a node's memory that does not fit into `Context.state` lies on disk.

One folder per run and node, `<root>/<run name>/<node key>/`, and in it, for every name, files called
`<name>-<digest>.safetensors` and one small `<name>.json`, the *marker*: that there is something to remember, where,
and which files hold it, newest first. Nothing here knows `Context` or decides what goes to disk; see `node_state`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from ..errors import ConfigError, StateError
from ..store.atomic import remove_leftovers, write_bytes

__all__ = [
    "MEMORY",
    "SCHEMA",
    "STATE_VARIABLE",
    "Marker",
    "NodeFolder",
    "StateFolder",
    "check_name",
    "digest_of",
    "node_key_of",
    "remove_run_state",
    "run_name_of",
    "state_root",
]

log = logging.getLogger(__name__)

#: Version of everything written here and into `Context.state`.
SCHEMA: Final = "flower-edge.state/1"
#: Environment variable with the root, where nothing nearer says one.
STATE_VARIABLE: Final = "FLOWER_EDGE_STATE"
#: The root that means: no files, whatever the size.
MEMORY: Final = ":memory:"
#: Flower draws run ids from 64 random bits. A grid in one process counts from 1, which names no run on disk.
_IN_PROCESS_RUN_IDS: Final = 2**32
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_FILE: Final = re.compile(r"(?P<name>.+)-(?P<digest>[0-9a-f]{32})\.safetensors")

Config = Mapping[str, bool | int | float | str]


def check_name(value: object, what: str) -> str:
    """`value` if it can be the name of a file or folder on every system.

    Raises:
        ConfigError: empty, longer than 100 characters, or with other characters than letters, digits and `_ . -`.

    >>> check_name("../phone", "node key")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: node key '../phone': expected 1 to 100 of the characters A-Z a-z 0-9 _ . -, \
not beginning with . or -; it names a file
    """
    text = str(value)
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"{what} {text!r}: expected 1 to 100 of the characters A-Z a-z 0-9 _ . -, "
            "not beginning with . or -; it names a file"
        )
    return text


def state_root(run_id: int, node_config: Config, run_config: Config, argument: str | Path | None = None) -> Path | None:
    """The folder under which files of nodes lie; None where everything stays in `Context.state`.

    The first of: `argument`, `state-dir` in the node config, `state-dir` in the run config, nothing on disk if the
    run id is that of a grid in one process (below 2^32: two such runs could not be told apart), the environment
    variable FLOWER_EDGE_STATE, `~/.flower-edge/state`. `:memory:` means None.

    >>> state_root(1, {}, {}) is None
    True
    """
    chosen = argument or node_config.get("state-dir") or run_config.get("state-dir")
    if not chosen and run_id < _IN_PROCESS_RUN_IDS:
        return None
    chosen = chosen or os.environ.get(STATE_VARIABLE) or "~/.flower-edge/state"
    if str(chosen) == MEMORY:
        return None
    try:
        return Path(str(chosen)).expanduser().absolute()
    except RuntimeError as error:  # a service account without a home
        raise ConfigError(f"state folder {chosen}: {error}; set state-dir in the node config") from error


def run_name_of(run_id: int, run_config: Config) -> str:
    """What a run is called on disk if nobody says otherwise: `run-name` in the run config, else `run-<run id>`.

    Raises:
        ConfigError: it cannot name a folder.
    """
    return check_name(run_config.get("run-name") or f"run-{run_id}", "run name")


def node_key_of(node_id: int, node_config: Config) -> str:
    """What a node is called on disk: `node-key` in the node config, else by its `partition-id`, else by its id.

    Raises:
        ConfigError: it cannot name a folder.

    >>> node_key_of(7, {"partition-id": 3}), node_key_of(7, {})
    ('partition-3', 'node-7')
    """
    partition = node_config.get("partition-id")
    usual = f"node-{node_id}" if partition is None else f"partition-{partition}"
    return check_name(node_config.get("node-key") or usual, "node key")


def remove_run_state(root: str | Path, run_name: str) -> bool:
    """Remove everything all nodes on this machine keep for a run; True if there was something."""
    folder = Path(root) / check_name(run_name, "run name")
    if not folder.is_dir():
        return False
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
    return True


@dataclass(frozen=True)
class Marker:
    """That a name has been saved, and where.

    Attributes:
        where: `memory` if the newest content was in `Context.state`, `file` if it is in a file.
        files: digests of the files kept, newest first.
        flower_run_id: the Flower run that saved it.
    """

    where: Literal["memory", "file"]
    files: tuple[str, ...]
    flower_run_id: int


def digest_of(data: bytes) -> str:
    """32 hexadecimal digits that name a file's content."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class StateFolder:
    """The files of one name of one node in one run."""

    root: Path
    run_name: str
    node_key: str
    name: str

    @classmethod
    def at(cls, root: Path, relative: str) -> tuple[StateFolder, str]:
        """The folder and digest that a file's path relative to the root spells.

        Raises:
            StateError: not a path this module makes; nothing outside the root is ever touched.
        """
        parts = PurePosixPath(relative).parts
        match = _FILE.fullmatch(parts[-1]) if len(parts) == 3 else None
        if match is None or not all(_NAME.fullmatch(part) for part in (*parts[:2], match["name"])):
            raise StateError(f"{relative!r} is not the path of a state file; expected run/node/name-digest.safetensors")
        return cls(root, parts[0], parts[1], match["name"]), match["digest"]

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.root / self.run_name / self.node_key

    def path(self, digest: str) -> Path:
        """The file with this content."""
        return self.folder / f"{self.name}-{digest}.safetensors"

    def relative(self, digest: str) -> str:
        """That path from the root on, with `/` on every system."""
        return f"{self.run_name}/{self.node_key}/{self.name}-{digest}.safetensors"

    def __str__(self) -> str:
        return f"{self.name!r} of node {self.node_key} in run {self.run_name}"

    # -- content -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> str:
        """Put content into its file, atomically, and return its digest.

        Raises:
            ConfigError: the folder cannot be written.
        """
        digest = digest_of(data)
        path = self.path(digest)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (path.exists() and path.read_bytes() == data):
                write_bytes(path, data)
        except OSError as error:
            raise self._unwritable(error) from error
        return digest

    def read(self, digest: str) -> bytes:
        """The content of a file.

        Raises:
            StateError: the file is missing, cannot be read or holds something else.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StateError(
                f"state {self}: {path} cannot be read ({error.strerror or error}); it was saved there before. Put the "
                "file back, or call delete() to start afresh"
            ) from error
        if digest_of(data) != digest:
            raise StateError(
                f"state {self}: {path} is damaged, its {len(data)} bytes are not the ones saved; put the file back, "
                "or call delete() to start afresh"
            )
        return data

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove this name's other files, and what a killed writer left."""
        kept = {self.path(digest) for digest in digests}
        for path in self._files():
            if path not in kept:
                path.unlink(missing_ok=True)
        if self.folder.is_dir():
            remove_leftovers(self.folder)

    def remove(self) -> None:
        """Remove everything of this name, and the node's folder if no other name is in it."""
        self.keep_only(())
        self._marker_path.unlink(missing_ok=True)
        with suppress(OSError):  # another name lives here, or it was never made
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        matches = [(path, _FILE.fullmatch(path.name)) for path in self.folder.iterdir()]
        return [path for path, match in matches if match is not None and match["name"] == self.name]

    # -- marker ------------------------------------------------------------------------------------------------------

    @property
    def _marker_path(self) -> Path:
        return self.folder / f"{self.name}.json"

    def marker(self) -> Marker | None:
        """What the marker says; None if the name was never saved here.

        Raises:
            StateError: the marker is damaged.
        """
        try:
            entry = json.loads(self._marker_path.read_text(encoding="utf-8"))
            if entry["schema"] != SCHEMA or entry["where"] not in ("memory", "file"):
                raise ValueError(f"schema {entry['schema']!r}, where {entry['where']!r}")
            return Marker(entry["where"], tuple(map(str, entry["files"])), int(entry["flower-run"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"state {self}: {self._marker_path} cannot be read ({error}), expected one of {SCHEMA!r}; "
                "call delete() to start afresh"
            ) from error

    def mark(self, marker: Marker) -> None:
        """Write the marker.

        Raises:
            ConfigError: the folder cannot be written.
        """
        entry = {
            "schema": SCHEMA,
            "run": self.run_name,
            "node": self.node_key,
            "name": self.name,
            "where": marker.where,
            "files": list(marker.files),
            "flower-run": marker.flower_run_id,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self._marker_path, json.dumps(entry, indent=2).encode() + b"\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"state folder {self.folder} cannot be written ({error.strerror or error}); set state-dir in the node "
            "config, or FLOWER_EDGE_STATE, to a folder this node can write, or to ':memory:' to keep everything in "
            "Flower's memory"
        )


@dataclass(frozen=True)
class NodeFolder:
    """All that one node keeps in one run."""

    root: Path
    run_name: str
    node_key: str

    def names(self) -> frozenset[str]:
        """The names there is something of."""
        folder = self.root / self.run_name / self.node_key
        if not folder.is_dir():
            return frozenset()
        paths = list(folder.iterdir())
        found = {match["name"] for path in paths if (match := _FILE.fullmatch(path.name))}
        return frozenset(found | {path.stem for path in paths if path.suffix == ".json"})

    def remove(self, names: Iterable[str]) -> None:
        """Remove everything of these names; other files, other nodes and other runs are left alone."""
        for name in sorted(names):
            StateFolder(self.root, self.run_name, self.node_key, name).remove()
