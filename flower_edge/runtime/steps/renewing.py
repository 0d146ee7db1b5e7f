"""The message a node goes on with after a `Renew`: the one it had, with other records in it.

Nothing here sends or decides: `work` puts what is left of the task behind the collecting of what is done.
"""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message

from ...errors import ConfigError
from ...wire import copy_content
from ..flower_private import clone_message
from .task import SlicedTask

__all__ = ["go_on_from", "renewed"]


def renewed(task: SlicedTask, records: Mapping[str, ArrayRecord | ConfigRecord]) -> Message:
    """A task's message with these records, config values that were changed, and the number of steps it has now.

    Raises:
        ConfigError: arrays under a name that did not come with the message, a name of records of another kind, or
            another number of steps.
    """
    content = copy_content(task.original.content)
    for key, value in task.changed.items():
        content.config_records[task.record][key] = value
    for name, record in records.items():
        there = content.get(name)
        if there is None and isinstance(record, ArrayRecord):
            raise ConfigError(
                f"Renew: array record {name!r} did not come with the message, which has "
                f"{', '.join(map(repr, content.array_records)) or 'none'}; give the new model the name of the old one"
            )
        if there is not None and type(there) is not type(record):
            raise ConfigError(
                f"Renew: record {name!r} is of type {type(there).__name__} in the message and would become "
                f"{type(record).__name__}; give it another name"
            )
        if isinstance(record, ConfigRecord) and record.get(task.steps_key, task.total) != task.total:
            raise ConfigError(
                f"Renew: {task.steps_key} = {record[task.steps_key]!r} in record {name!r}, and the task has "
                f"{task.total}; leave it out, or use Change({{{task.steps_key!r}: ...}}) first"
            )
        content[name] = record
    config = content.config_records[task.record]
    if config.get(task.steps_key) != task.total:
        # The record is the policy's own, which may use it again.
        content[task.record] = ConfigRecord({**config, task.steps_key: task.total})
    return clone_message(task.original, content)


def go_on_from(after: SlicedTask, before: SlicedTask) -> None:
    """`after` makes the steps that `before` has not made, on the same node."""
    after.first = after.done = before.done
    after.renewals = before.renewals + 1
    after.answered = before.answered or before.made > 0
    after.tried = before.tried
    after.sent_s = before.sent_s
    after.as_made = before.as_made or before.original
