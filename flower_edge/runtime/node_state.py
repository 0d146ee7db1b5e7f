"""`NodeState`: small memory of ClientApp code under a name, such as a codec's residual or an optimiser's momentum.

Flower keeps `Context.state` in the SuperNode's memory, copies it with every message and loses it when the SuperNode
restarts. So up to 1 MB per node stays there; above it the content goes to a file and only a pointer stays. What was
there before and is gone is told by a `StateError`, never guessed.

Nothing here sends anything, and nothing is remembered between calls but in `Context.state` and in the files: make a
`NodeState` for each message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from flwr.app import ConfigRecord, Context, RecordDict

from ..errors import ConfigError, StateError
from ..store.tree import Tree, tree_from_bytes, tree_to_bytes
from .node_state_files import (
    MEMORY,
    SCHEMA,
    Marker,
    NodeFolder,
    StateFolder,
    check_name,
    node_key_of,
    remove_run_state,
    run_name_of,
    state_root,
)

__all__ = [
    "MEMORY",
    "SCHEMA",
    "ImportedFrom",
    "NodeState",
    "export_files",
    "folder_of",
    "remove_run_state",
    "restore_files",
]

log = logging.getLogger(__name__)

#: Names of our records in `Context.state` begin with this.
_PREFIX: Final = "flower-edge.state."


@dataclass(frozen=True)
class ImportedFrom:
    """Where an imported state came from."""

    name: str
    run_name: str
    node_key: str


class NodeState:
    """What one node remembers under one name, from message to message.

    A *tree* is any nesting of dict, list and tuple around None, bool, int, float, str, bytes and NumPy arrays; what
    is loaded equals what was saved, bit for bit.

    Args:
        context: the `Context` Flower hands to the client function.
        name: what this memory is called; different names do not disturb each other.
        run_name: default `run-name` in the run config, else `run-<Flower's run id>`. A run name names one run: a run
            that is resumed keeps it and finds its files again, a fresh one takes a new one.
        node_key: what the node is called after a restart, too. Default `node-key` in the node config, else
            `partition-<partition-id>`, else `node-<node id>` (which Flower draws anew at every start).
        root: folder for files. Default `state-dir` in the node config, else in the run config, else (for Flower's own
            runs, not for a grid in one process) the environment variable FLOWER_EDGE_STATE, else
            `~/.flower-edge/state`. `:memory:` keeps everything in `Context.state` whatever its size and `durable`.
        limit_bytes: how much of a node's memory may lie in `Context.state`, all names together.
        durable: always use a file, so that even small state survives a restart of the SuperNode.

    Attributes:
        recovered: whether `load` found the content in a file that `Context.state` no longer knew of.

    Raises:
        ConfigError: a name, run name or node key that cannot name a file.

    >>> context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
    >>> NodeState(context, "momentum").save({"step": 3})
    >>> NodeState(context, "momentum").load()
    {'step': 3}
    """

    def __init__(
        self,
        context: Context,
        name: str,
        *,
        run_name: str | None = None,
        node_key: str | None = None,
        root: str | Path | None = None,
        limit_bytes: int = 1_000_000,
        durable: bool = False,
    ) -> None:
        if limit_bytes < 0:
            raise ConfigError(f"limit_bytes = {limit_bytes}: expected 0 or more")
        node_config, run_config = context.node_config, context.run_config
        self.name = check_name(name, "state name")
        self.run_name = check_name(run_name, "run name") if run_name else run_name_of(context.run_id, run_config)
        self.node_key = check_name(node_key, "node key") if node_key else node_key_of(context.node_id, node_config)
        self.recovered = False
        self._context = context
        self._limit_bytes = limit_bytes
        self._durable = durable
        self._root = state_root(context.run_id, node_config, run_config, root)
        self._files = None if self._root is None else StateFolder(self._root, self.run_name, self.node_key, self.name)
        # What the SuperNode would go back to if this process died before its reply: that file must stay.
        self._begun_with = self._pointed_to()

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def where(self) -> Literal["memory", "file", "absent"]:
        """Where `Context.state` says the content is. After a restart it knows nothing until `load` was called."""
        record = self._record()
        return "absent" if record is None else "file" if record["where"] == "file" else "memory"

    def load(self) -> Tree | None:
        """What was saved last; None if this name was never saved.

        Raises:
            StateError: it was saved and is now missing or damaged; the message says what, where and what to type.
        """
        record = self._record()
        if record is None:
            return None if self._files is None else self._recover(self._files)
        if record["where"] == "memory":
            content = record["content"]
            assert isinstance(content, bytes)
            return tree_from_bytes(content, source=f"state {self}")
        files, digest = _file_of(record, self._root, str(self))
        return tree_from_bytes(files.read(digest), source=str(files.path(digest)))

    def save(self, tree: Tree) -> None:
        """Remember `tree` under this name instead of what was there.

        In a file, the content the message began with stays beside the new one: whoever holds an earlier
        `Context.state`, a checkpoint or the SuperNode itself, can go back by one.

        Raises:
            ConfigError: something in the tree cannot be stored exactly, or the state folder cannot be written.
        """
        data = tree_to_bytes(tree)
        files = self._files
        if files is None:
            self._store_in_memory(data)
        elif not self._durable and len(data) + self._bytes_of_others() <= self._limit_bytes:
            self._store_in_memory(data)
            kept = () if self._begun_with is None else (self._begun_with,)
            marker = Marker("memory", kept, self._context.run_id)
            if files.marker() != marker:
                files.mark(marker)
                files.keep_only(kept)
        else:
            self._store_in_file(data, files)

    def delete(self) -> None:
        """Forget this name, its files too: the next `load` gives None."""
        self._context.state.pop(self._key, None)
        if self._files is not None:
            self._files.remove()
        self._begun_with = None

    # -- handover ----------------------------------------------------------------------------------------------------

    def export(self) -> bytes:
        """The content with its name, origin and schema version, for `import_` on another node or grid.

        Raises:
            StateError: nothing was saved, or it is missing or damaged.
        """
        content = self.load()
        if self.where == "absent":
            raise StateError(f"state {self} was never saved, there is nothing to hand over; check where == 'absent'")
        return tree_to_bytes(
            {"schema": SCHEMA, "name": self.name, "run": self.run_name, "node": self.node_key, "content": content}
        )

    def import_(self, data: bytes) -> ImportedFrom:
        """Save what another node exported, and tell where it came from.

        Raises:
            StateError: the bytes are damaged, of another schema version, or were exported under another name.
        """
        entry = tree_from_bytes(data, source=f"handover of state {self.name!r}")
        schema = entry.get("schema") if isinstance(entry, dict) else None
        if schema != SCHEMA:
            raise StateError(
                f"handover of state {self.name!r}: schema {schema!r}, this side reads {SCHEMA!r}; "
                "install the same flower-edge version on both sides"
            )
        if entry["name"] != self.name:
            raise StateError(
                f"handover of state {self.name!r}: the bytes are those of {entry['name']!r}; "
                f"import them with NodeState(context, {entry['name']!r})"
            )
        self.save(entry["content"])
        return ImportedFrom(entry["name"], entry["run"], entry["node"])

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return _PREFIX + self.name

    def __str__(self) -> str:
        return f"{self.name!r} of node {self.node_key} in run {self.run_name}"

    def _record(self) -> ConfigRecord | None:
        record = self._context.state.get(self._key)
        if record is None:
            return None
        if not isinstance(record, ConfigRecord) or record.get("schema") != SCHEMA:
            raise StateError(
                f"state {self}: Context.state holds something else under {self._key!r}, expected a record of "
                f"{SCHEMA!r}; was it saved by another version of flower-edge?"
            )
        return record

    def _pointed_to(self) -> str | None:
        record = self._record()
        return str(record["digest"]) if record is not None and record["where"] == "file" else None

    def _bytes_of_others(self) -> int:
        records = self._context.state.config_records.items()
        return sum(
            len(content)
            for key, record in records
            if key.startswith(_PREFIX) and key != self._key and isinstance(content := record.get("content"), bytes)
        )

    def _store_in_memory(self, data: bytes) -> None:
        self._context.state[self._key] = ConfigRecord({"schema": SCHEMA, "where": "memory", "content": data})

    def _store_in_file(self, data: bytes, files: StateFolder) -> None:
        before = self._begun_with
        if before is None and (marker := files.marker()) is not None and marker.files:
            before = marker.files[0]  # after a restart, saved without a load
        digest = files.write(data)
        self._point_at(files, digest, len(data))
        kept = (digest,) if before in (None, digest) else (digest, before)
        files.mark(Marker("file", kept, self._context.run_id))
        files.keep_only(kept)

    def _point_at(self, files: StateFolder, digest: str, size_bytes: int) -> None:
        self._context.state[self._key] = ConfigRecord(
            {
                "schema": SCHEMA,
                "where": "file",
                "file": files.relative(digest),
                "digest": digest,
                "bytes": size_bytes,
            }
        )

    def _recover(self, files: StateFolder) -> Tree | None:
        marker = files.marker()
        if marker is None:
            return None
        if marker.where == "memory":
            raise StateError(
                f"state {self} was saved (in Flower run {marker.flower_run_id}) and was lost with the SuperNode's "
                "memory; pass durable=True to keep it in a file, or call delete() to start afresh"
            )
        for digest in marker.files:
            try:
                data = files.read(digest)
                tree = tree_from_bytes(data, source=str(files.path(digest)))
            except StateError as error:
                log.warning("%s; trying the one before", error)
                continue
            self._point_at(files, digest, len(data))
            self._begun_with = digest
            self.recovered = True
            return tree
        raise StateError(
            f"state {self} was saved in {files.folder} and none of its files {list(marker.files)} is there and whole; "
            "put them back, or call delete() to start afresh"
        )


def _file_of(record: ConfigRecord, root: Path | None, what: str) -> tuple[StateFolder, str]:
    relative = str(record["file"])
    if root is None:
        raise StateError(
            f"state {what} is in the file {relative}, but this node keeps state in {MEMORY!r}; set state-dir to the "
            "folder the run began with"
        )
    return StateFolder.at(root, relative)


def folder_of(context: Context) -> NodeFolder | None:
    """Where a node's files lie unless `NodeState` was told otherwise; None if it can have none there.

    >>> folder_of(Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})) is None
    True
    """
    try:
        root = state_root(context.run_id, context.node_config, context.run_config)
        run_name = run_name_of(context.run_id, context.run_config)
        node_key = node_key_of(context.node_id, context.node_config)
    except ConfigError:  # a name or folder that `NodeState` refuses: nothing was ever written there
        return None
    return None if root is None else NodeFolder(root, run_name, node_key)


def export_files(states: RecordDict | Iterable[RecordDict], root: str | Path) -> Tree:
    """The files that pointers in `Context.state` refer to, for a checkpoint; equal content is held once.

    Args:
        states: the state of one node, or of all of them.
        root: the folder their files are under.

    Returns:
        `{"schema", "files": {path from the root: digest}, "contents": {digest: bytes}}`; as large as the files.

    Raises:
        StateError: a file is missing or damaged; names path, node and run.
    """
    paths: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for state in [states] if isinstance(states, RecordDict) else states:
        for key, record in state.config_records.items():
            if not key.startswith(_PREFIX) or record.get("where") != "file":
                continue
            files, digest = _file_of(record, Path(root), key.removeprefix(_PREFIX))
            paths[files.relative(digest)] = digest
            if digest not in contents:
                contents[digest] = files.read(digest)
    return {"schema": SCHEMA, "files": paths, "contents": contents}


def restore_files(tree: Tree, root: str | Path) -> list[Path]:
    """Put the files of `export_files` under `root`, so that the pointers of that checkpoint are good again.

    They become the newest of their names: a restart of a node right afterwards finds them and not what a run that
    went on after the checkpoint had left.

    Returns:
        The paths written.

    Raises:
        StateError: the tree is not one of `export_files`.
        ConfigError: the folder cannot be written.
    """
    if not isinstance(tree, dict) or tree.get("schema") != SCHEMA:
        raise StateError(f"not the files of a checkpoint; expected what export_files returned, schema {SCHEMA!r}")
    written = []
    for relative, digest in tree["files"].items():
        files, named = StateFolder.at(Path(root), relative)
        if files.write(tree["contents"][digest]) != named:
            raise StateError(f"checkpoint: the content of {relative} is not the one it was saved with")
        files.mark(Marker("file", (named,), 0))
        written.append(files.path(named))
    return written
