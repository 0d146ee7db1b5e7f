"""A terminal says whether it is available, and may ask by itself to take part.

The two ways of joining that need its word ([4] ¶45-46: asked whether it is available; asking by itself); taken
automatically (¶44), it is not asked at all. A Flower node cannot send first: its own request waits on the node until
the edge next looks, with a message of type `query.available`. Nothing here decides who takes part.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.queries import AVAILABLE

__all__ = ["answer_availability", "request_to_join", "requests_to_join", "withdraw_request"]

#: Name of the standing request in the node's memory.
STATE = "join-request"


def request_to_join(context: Context) -> None:
    """Ask to take part, from any function of the ClientApp; stands until it is withdrawn."""
    NodeState(context, STATE).save({"requests": True})


def withdraw_request(context: Context) -> None:
    """Take the request back; without one nothing happens."""
    NodeState(context, STATE).delete()


def requests_to_join(context: Context) -> bool:
    """Whether a request stands.

    >>> context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
    >>> request_to_join(context); requests_to_join(context)
    True
    >>> withdraw_request(context); requests_to_join(context)
    False
    """
    return NodeState(context, STATE).load() is not None


def answer_availability(
    app: ClientApp,
    available: Callable[[Context], bool] = lambda context: True,
    requested: Callable[[Context], bool] = requests_to_join,
) -> ClientApp:
    """Register the answer to `query.available` on `app`, and return `app`.

    The answer is one ConfigRecord `available` with `available`, what the terminal says when it is asked, and
    `requests`, whether it asks by itself. A terminal that asks is available, whatever else it says.

    Args:
        app: the terminal's app.
        available: whether the terminal would take part now.
        requested: whether it asks to; default: whether `request_to_join` was called and not taken back.

    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> from flower_edge.runtime.queries import ask_nodes
    >>> app = answer_availability(ClientApp(), lambda context: context.node_config["partition-id"] == 0)
    >>> with LocalGrid(app, nodes=2) as grid:
    ...     ask_nodes(grid, [1000, 1001], "available")
    {1000: {'available': True, 'requests': False}, 1001: {'available': False, 'requests': False}}
    """

    @app.query(AVAILABLE)
    def answer(message: Message, context: Context) -> Message:
        requests = bool(requested(context))
        told = {"available": requests or bool(available(context)), "requests": requests}
        return Message(RecordDict({AVAILABLE: ConfigRecord(dict(told))}), reply_to=message)

    return app
