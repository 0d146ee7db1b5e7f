"""`bridge_app`: a ClientApp that hands the centre's messages to the edge's own federation, on the same host.

The edge is a ServerApp that goes on from round to round on a SuperLink of its own, see `edge_server` in
`flower_edge.strategies`; it listens on this machine's loopback address. Between the two go bytes, never a pickle, and
only to whoever knows the key in the bridge's folder. Nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.runtime.bridge.caller import ask_edge
from flower_edge.runtime.bridge.messages import FRAME_BYTES
from flower_edge.runtime.bridge.place import BridgePlace, bridge_folder
from flower_edge.runtime.edge_messages import EDGE_RECORD, Order
from flower_edge.runtime.node_state_files import run_name_of

from .properties import answer_properties

__all__ = ["bridge_app"]


def bridge_app(*, patience_s: float = math.inf, frame_bytes: int = FRAME_BYTES, mods: Sequence[Any] = ()) -> ClientApp:
    """The ClientApp of an edge host, for `Hierarchical(tier=BridgeTier())` at the centre.

    The bridge's folder is `bridge` in the SuperNode's node config, else the environment variable FLOWER_EDGE_BRIDGE.
    The edge is called by `cell` in the node config.

    Args:
        patience_s: the most to wait for the edge, its restarts included; the time the centre gives it is never
            exceeded. Afterwards the centre gets an error, and goes on with the other edges.
        frame_bytes: the longest reply of the edge taken, in bytes.
        mods: Flower mods around it, for the hop to the centre.

    Raises:
        ConfigError: a number that cannot be meant.
    """
    if not patience_s > 0:
        raise ConfigError(f"patience_s = {patience_s!r}: expected seconds, more than 0")
    app = answer_properties(ClientApp())

    def handle(message: Message, context: Context) -> Message:
        record = message.content.config_records.get(EDGE_RECORD)
        if record is None:
            raise ProtocolError(
                f"an edge is driven by Hierarchical(tier=BridgeTier()); this message has no {EDGE_RECORD!r} record"
            )
        order, kind = Order.read(record), message.metadata.message_type
        within_s = order.timeout_s * (max(1, order.edge_rounds) if kind == "train" else 1)
        content = ask_edge(
            BridgePlace(bridge_folder(context.node_config, context.run_config)),
            kind,
            run_name_of(context.run_id, context.run_config),
            message.content,
            within_s=min(within_s, patience_s),
            frame_bytes=frame_bytes,
        )
        return Message(content, reply_to=message)

    app.train(mods=list(mods))(handle)
    app.evaluate(mods=list(mods))(handle)
    return app
