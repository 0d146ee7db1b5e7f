"""`edge_app`: a ClientApp that is an edge. It runs rounds of its own strategy with its own terminals.

In simulation the terminals run in process on a `LocalGrid`. The edge's strategy, its layers and its terminals'
memory are kept in `NodeState` between the centre's messages, because any process may handle the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ProtocolError, ResumeError
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.runtime.edge_rounds import EdgeRounds
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.node_state import NodeState

__all__ = ["edge_app"]

NodeConfig = Mapping[str, bool | int | float | str]


def edge_app(
    terminals: ClientApp,
    edge: Callable[[str], Strategy],
    members: Callable[[str, Context], Sequence[NodeConfig]],
    *,
    seed: int = 0,
    mods: Sequence[Any] = (),
) -> ClientApp:
    """A ClientApp that answers a `Hierarchical` centre as one of its edges.

    Args:
        terminals: the ClientApp its terminals run.
        edge: makes the inner strategy from the cell's name; pass the function that `CellTier` would get.
        members: node configs of the cell's terminals, from the cell's name and this edge's context. Give them the
            `partition-id` and `num-partitions` they would have in one flat federation.
        seed: of the `LocalGrid` the terminals run on.
        mods: Flower mods around the edge's own functions, for the hop to the centre.
    """
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        order = message.content.config_records.get(EDGE_RECORD)
        if order is None:
            raise ProtocolError(f"an edge is driven by Hierarchical; this message has no {EDGE_RECORD!r} record")
        cell = str(order["cell"])
        memory = NodeState(context, f"edge-{cell}")
        # What terminals remember travels in the edge's own memory; files of theirs could be another edge's.
        nodes = [{"state-dir": ":memory:", **config} for config in members(cell, context)]
        with LocalGrid(terminals, nodes, run_config=context.run_config, seed=seed, run_id=context.run_id) as grid:
            rounds = EdgeRounds(cell, edge(cell), grid)
            try:
                rounds.state_dict()
            except ResumeError as error:
                raise ProtocolError(f"an edge in a ClientApp is made anew for every message: {error}") from None
            saved = memory.load()
            if isinstance(saved, dict):
                rounds.load_state_dict(saved["edge"])
                grid.load_state_dict(saved["terminals"])
            reply = rounds.handle(message)
            memory.save({"edge": rounds.state_dict(), "terminals": grid.state_dict()})
        return reply

    app.train(mods=list(mods))(handle)
    app.evaluate(mods=list(mods))(handle)
    return app
