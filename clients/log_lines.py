"""`logging_mod`: log lines of a client say which run, round and node they are about. Nothing is sent anywhere."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.runtime.call_log import about_call
from flower_edge.telemetry import log_context, log_to_json
from flower_edge.telemetry.json_lines import wanted_by_environment

__all__ = ["logging_mod"]


def logging_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """The first mod of a `ClientApp`: with `FLOWER_EDGE_LOG=json` its lines are JSON, with run, round and node.

    The run is Flower's number of it, all that a node knows. Without the variable, lines stay as they are.

    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp(mods=[logging_mod])
    """
    if wanted_by_environment():
        log_to_json()
    with log_context(run=message.metadata.run_id, **about_call(message, context)):
        return call_next(message, context)
