"""A node tells the server what it is: its node config, and what its owner adds.

The server does not know a node's `partition-id` or any other entry of its node config; it asks once, with a message
of type `query.properties` (`GridProxy` in `flower_edge.runtime.grid_proxy`). Nothing here decides what a property
means, and nothing is told that is not in the node config or in `extra`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.errors import ConfigError
from flower_edge.runtime.node_properties import PROPERTIES

__all__ = ["answer_properties"]


def answer_properties(
    app: ClientApp, extra: Callable[[Context], Mapping[str, bool | int | float | str]] | None = None
) -> ClientApp:
    """Register the answer to `query.properties` on `app`, and return `app`.

    The answer is one ConfigRecord `properties`: the node config (`partition-id`, `num-partitions`, …) and, over it,
    what `extra(context)` says at the moment of the question.

    Raises:
        ConfigError: when the question comes and a value is not a bool, int, float or str; the server sees an error
            reply and goes on without this node's properties.

    >>> app = answer_properties(ClientApp(), extra=lambda context: {"battery": 0.8})
    >>> from flower_edge.runtime.grid_proxy import GridProxy
    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> with LocalGrid(app, nodes=2) as local:
    ...     dict(GridProxy(local).properties(1001))
    {'partition-id': 1, 'num-partitions': 2, 'battery': 0.8}
    """

    @app.query(PROPERTIES)
    def properties(message: Message, context: Context) -> Message:
        told = {**context.node_config, **(extra(context) if extra is not None else {})}
        for name, value in told.items():
            if not isinstance(value, bool | int | float | str):
                raise ConfigError(
                    f"property {name!r} is a {type(value).__name__}; tell it as a bool, int, float or str, "
                    "such as float(value)"
                )
        # A NumPy float is a float, but not one that Flower takes.
        plain = {name: float(value) if isinstance(value, float) else value for name, value in told.items()}
        return Message(RecordDict({PROPERTIES: ConfigRecord(dict(plain))}), reply_to=message)

    return app
