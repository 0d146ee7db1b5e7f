"""Replies that came after their round: kept until their cell exchanges again and their node can be reached.

Nothing here waits or decides; `work` brings them in, `grid` hands them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from ...wire import copy_content, records_from_tree, records_to_tree
from ..flower_private import clone_message, set_metadata
from .messages import LATE_RECORD
from .task import SlicedTask

__all__ = ["Late", "late_reply"]


@dataclass(frozen=True)
class Late:
    """A reply that is there and has not been handed out.

    Attributes:
        key: id of the message it answers.
        cell: the edge whose model it began with.
        round: the strategy's round in which it began.
        node_id: who made it.
        steps: how many it made.
        reply: with the record `flower-edge.late`.
    """

    key: str
    cell: str
    round: int
    node_id: int
    steps: int
    reply: Message

    def to_tree(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        meta = self.reply.metadata
        return {
            "key": self.key,
            "cell": self.cell,
            "round": self.round,
            "node_id": self.node_id,
            "steps": self.steps,
            "type": meta.message_type,
            "group": meta.group_id,
            "content": records_to_tree(self.reply.content),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Late:
        """Inverse of `to_tree`."""
        asked = Message(RecordDict(), tree["node_id"], tree["type"], group_id=tree["group"])
        set_metadata(asked, message_id=tree["key"])
        reply = Message(records_from_tree(tree["content"]), reply_to=asked)
        return cls(tree["key"], tree["cell"], tree["round"], tree["node_id"], tree["steps"], reply)


def late_reply(task: SlicedTask, whole: Message) -> Late:
    """The reply to a task that nobody waits for any more, marked as such."""
    content = copy_content(whole.content)
    content[LATE_RECORD] = ConfigRecord({"base-round": task.round, "cell": task.crew.cell, "steps": task.made})
    return Late(task.key, task.crew.cell, task.round, task.node_id, task.made, clone_message(whole, content))


def split(late: Iterable[Late], wanted: Callable[[Late], bool]) -> tuple[list[Late], list[Late]]:
    """Those that are wanted now, and the others, each in the order in which they came."""
    told = [(entry, wanted(entry)) for entry in late]
    return [entry for entry, yes in told if yes], [entry for entry, yes in told if not yes]
