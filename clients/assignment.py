"""`assignment_mod`: a client gives back the stamp of the assignment it answers. Nothing is checked or changed here.

The server's half is `Admitted(echo="required")`: a reply that was made for another run, round or message, and is sent
once more, is then refused.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.runtime.assignment_record import ASSIGNMENT_RECORD

__all__ = ["assignment_mod"]


def assignment_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A Flower mod: `ClientApp(mods=[assignment_mod])`.

    A message without a stamp, and a reply that is an error, pass as they are.
    """
    content = message.content if message.has_content() else RecordDict()
    record = content.config_records.get(ASSIGNMENT_RECORD)
    # Read before the client's function runs, which may change its message.
    told = None if record is None else dict(record.items())
    reply = call_next(message, context)
    if told is None or reply.has_error():
        return reply
    out = RecordDict(dict(reply.content.items()))
    out[ASSIGNMENT_RECORD] = ConfigRecord(told)
    reply.content = out
    return reply
