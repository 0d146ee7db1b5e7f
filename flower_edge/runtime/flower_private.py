"""Flower's private names of messages and runs, feature-checked at import. Only `runtime/` imports this module.

What is touched in flwr 1.41, and what happens where a release has moved it:

- `flwr.supercore.task_identity.TaskIdentity`, the process-global that `Message(content, dst_node_id, type)` reads.
  No fall-back is possible: building an instruction message without it raises inside Flower itself.
- `flwr.supercore.run.Run`, the type of the public `Grid.run`. Fall-back: a plain object with a `run_id`.
- underscore keys of `Metadata` (id, source and run of a message have no public setter, Flower writes them so, too).
- `flwr.serverapp.strategy.multikrum.select_multikrum`, the selection inside Krum and MultiKrum, so that a filter can
  use it without a strategy. No fall-back: whoever asks for it is told.
- the `metadata=` keyword of `Message`, which copies a message without losing its time to live and group.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from flwr.app import Error, Message, RecordDict

from ..errors import LaunchError

try:
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:  # pragma: no cover - another Flower release
    raise LaunchError(
        "flower-edge drives flwr 1.41; this flwr has moved TaskIdentity. Install 'flwr>=1.41,<1.42'"
    ) from error

try:
    from flwr.supercore.run import Run
except ImportError:  # pragma: no cover - another Flower release
    Run = None  # type: ignore[assignment,misc]

try:
    from flwr.serverapp.strategy.multikrum import select_multikrum as _select_multikrum
except ImportError:  # pragma: no cover - another Flower release
    _select_multikrum = None  # type: ignore[assignment]

__all__ = [
    "borrowed_identity",
    "clone_message",
    "drop_identity",
    "empty_run",
    "ensure_identity",
    "error_in_place",
    "select_multikrum",
    "set_metadata",
]

# How many grids live on the identity given here. It is counted, because grids may overlap in time and in threads.
_holders = 0
_holders_lock = threading.Lock()


def _read_identity() -> tuple[Any, Any, Any]:
    return TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id


def _write_identity(task_id: Any, run_id: Any, node_id: Any) -> None:
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = task_id, run_id, node_id


def ensure_identity(run_id: int) -> bool:
    """Give this process a task identity if it has none, so that messages can be built.

    True if it is one that was given here, by this call or by one not undone yet: then call `drop_identity` at the end.
    """
    global _holders
    with _holders_lock:
        if None not in _read_identity() and not _holders:
            return False
        if not _holders:
            _write_identity(1, run_id, 1)
        _holders += 1
        return True


def drop_identity() -> None:
    """Undo one `ensure_identity`; the last one leaves the process without an identity, as it was before the first."""
    global _holders
    with _holders_lock:
        _holders -= 1
        if not _holders:
            _write_identity(None, None, None)


@contextmanager
def borrowed_identity() -> Iterator[None]:
    """Whatever happens to the process-global identity inside, outside it is what it was."""
    before = _read_identity()
    try:
        yield
    finally:
        _write_identity(*before)


def set_metadata(message: Message, **values: Any) -> None:
    """Write metadata that has no public setter: `message_id`, `src_node_id`, `run_id`, …"""
    for name, value in values.items():
        key = f"_{name}"
        if key not in message.metadata.__dict__:  # pragma: no cover - another Flower release
            raise LaunchError(f"this flwr has no message metadata {name!r}; install 'flwr>=1.41,<1.42'")
        message.metadata.__dict__[key] = value


def clone_message(message: Message, content: RecordDict | None = None) -> Message:
    """A message of its own with the same metadata, time to live and group included, and other content if given."""
    metadata = copy.copy(message.metadata)
    if message.has_error():
        return Message(error=message.error, metadata=metadata)  # type: ignore[call-overload,no-any-return]
    chosen = message.content if content is None else content
    return Message(content=chosen, metadata=metadata)  # type: ignore[call-overload,no-any-return]


def error_in_place(reply: Message, code: int, reason: str) -> Message:
    """An error reply with the metadata of another reply, to go on instead of it."""
    error, metadata = Error(code=code, reason=reason), copy.copy(reply.metadata)
    return Message(error=error, metadata=metadata)  # type: ignore[call-overload,no-any-return]


def empty_run(run_id: int) -> Any:
    """The run information a Grid must show."""
    return SimpleNamespace(run_id=run_id) if Run is None else Run.create_empty(run_id)


def select_multikrum(contents: list[RecordDict], malicious: int, keep: int) -> list[RecordDict]:
    """Those of these contents that Flower's MultiKrum merges.

    Args:
        contents: each with one record of arrays of the same shapes.
        malicious: how many of them may be wrong.
        keep: how many are selected.

    Raises:
        LaunchError: this Flower has moved it.
    """
    if _select_multikrum is None:  # pragma: no cover - another Flower release
        raise LaunchError("this flwr has no select_multikrum; install 'flwr>=1.41,<1.42'")
    return _select_multikrum(contents, malicious, keep)
