"""One node of a `LocalGrid`: who it is, what it remembers, and the messages on their way through it.

Nothing here calls a client, waits or locks; the grid does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Message

from ..wire import records_from_tree, records_to_tree
from .faults import Fault
from .node_state import export_files, folder_of, restore_files

__all__ = ["Job", "LocalNode"]


@dataclass
class LocalNode:
    """One node: its identity, its memory, and what waits for it.

    Attributes:
        partition: its place in the list the grid was given.
        context: its own, with its memory.
        online: whether it is listed and can be reached.
        handled: messages it was given so far.
        busy: whether a pool runs a message of it now; the next ones wait.
        waiting: those.
    """

    partition: int
    context: Context
    online: bool = True
    handled: int = 0
    busy: bool = False
    waiting: deque[Job] = field(default_factory=deque)

    @property
    def key(self) -> int | str:
        """What seeds are derived from: the same terminal draws the same numbers on whichever grid it is."""
        value = self.context.node_config.get("partition-id", self.partition)
        return value if isinstance(value, int | str) else self.partition

    def state_dict(self) -> dict[str, Any]:
        """Its memory, files of `NodeState` included, and its counters."""
        folder = folder_of(self.context)
        return {
            "state": records_to_tree(self.context.state),
            "handled": self.handled,
            "online": self.online,
            "files": None if folder is None else export_files(self.context.state, folder.root),
        }

    def forget_files(self) -> None:
        """Remove all that `NodeState` has put on disk for this node in this run."""
        folder = folder_of(self.context)
        if folder is not None:
            folder.remove(folder.names())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Files it does not know of stay: see `forget_files`."""
        self.context.state = records_from_tree(state["state"])
        self.handled, self.online = state["handled"], state["online"]
        folder = folder_of(self.context)
        if state["files"] is not None and folder is not None:
            restore_files(state["files"], folder.root)


@dataclass
class Job:
    """One message on its way through a node.

    Attributes:
        order: its number among all messages pushed.
        message_id: what a reply is pulled by.
        message: what the node is handed.
        nth: its number among the messages of this node, from 1.
        fault: what the script says happens to it.
        reply: once it is there.
        due_s: when the reply may be pulled, on the monotonic clock.
    """

    order: int
    message_id: str
    message: Message
    node: LocalNode
    nth: int
    fault: Fault | None
    reply: Message | None = None
    due_s: float = 0.0
