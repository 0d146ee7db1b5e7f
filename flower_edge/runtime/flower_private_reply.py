"""Whether a node's reply is whole, and what becomes of one that never will be. Private parts of Flower's SuperNode.

In flwr 1.41 a ClientApp's process tells its SuperNode of a reply first, and brings the reply's objects one by one then.
The SuperNode passes on what it was told of and waits for every object, without end: a process that is killed in between
leaves a node that never takes another message, and half a reply at the SuperLink. So the reply is looked for here until
all of it is there; when nobody can bring the rest any more, it becomes the error that Flower makes of a dead process.

Touched are `msg_store` with its lock, the object store, and `_store_error_replies` of a SuperNode's state. Where a
release has moved them, every reply counts as whole, and the SuperNode does as it does.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

__all__ = ["give_up_half_replies", "whole_reply"]

_STATE: Final = "flwr.supernode.nodestate.in_memory_nodestate"
#: Of a task that is not over, in Flower's words.
_AT_WORK: Final = ("pending", "starting", "running")


def whole_reply(state: Any) -> bool:
    """Whether a reply is there that can be passed on; one that nobody brings the rest of is made an error first."""
    if not _known(state):
        return True
    # Asking for tasks is what makes Flower look for claims that have expired. Asked before the replies are looked at: a
    # task that was over by then has brought all that it will bring.
    at_work = {task.run_id for task in state.get_tasks(statuses=_AT_WORK)}
    replies = _replies(state)
    half = [message for message in replies if not _whole(state, message)]
    over = {message.metadata.run_id for message in half} - at_work
    for run_id in over:
        give_up_half_replies(state, run_id)
    if over:
        state._store_error_replies(over, importlib.import_module(_STATE).CLIENT_APP_CRASHED_ERROR)
    return bool(over) or len(half) < len(replies)


def give_up_half_replies(state: Any, run_id: int) -> None:
    """Whoever was bringing a reply of this run is gone: what there is of it is not passed on."""
    if not _known(state):
        return
    for message in _replies(state):
        if message.metadata.run_id == run_id and not _whole(state, message):
            state.delete_messages(message_ids=[message.metadata.message_id])
            state.object_store.delete(message.metadata.message_id)


def _known(state: Any) -> bool:
    names = ("msg_store", "lock_msg_store", "object_store", "get_tasks", "delete_messages", "_store_error_replies")
    return all(hasattr(state, name) for name in names) and hasattr(
        importlib.import_module(_STATE), "CLIENT_APP_CRASHED_ERROR"
    )


def _replies(state: Any) -> list[Any]:
    """Those that have not been passed on."""
    with state.lock_msg_store:
        entries = list(state.msg_store.values())
    return [entry.message for entry in entries if entry.message.metadata.reply_to_message_id and not entry.is_retrieved]


def _whole(state: Any, message: Any) -> bool:
    store = state.object_store
    try:
        waiting = [store.get_object_tree(message.metadata.message_id)]
    except Exception:  # the message comes first, what belongs to it then
        return False
    while waiting:
        tree = waiting.pop()
        if not store.get(tree.object_id):
            return False
        waiting += tree.children
    return True
