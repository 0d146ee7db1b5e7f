"""`expected_nodes`: how many nodes a federation will have, by what its first node says of itself.

In Flower's simulation nodes register one by one, and each knows the number of all. A ServerApp that has to know it
before its first round (data divided, terminals placed, edges formed) asks here; `GridProxy` then waits for them.
"""

from __future__ import annotations

from flwr.serverapp import Grid

from ..errors import ConfigError, NotEnoughNodes
from .grid_proxy import GridProxy

__all__ = ["expected_nodes"]


def expected_nodes(grid: Grid, *, join_timeout_s: float = 180.0) -> int:
    """The `num-partitions` of the first node that comes: of its node config, or what the simulation gives it.

    Args:
        grid: Flower's own, or any other; nothing stays around it.
        join_timeout_s: for at most so long a first node is waited for, and then so long for its answer: a simulation
            on a busy machine takes a minute to start its workers.

    Raises:
        NotEnoughNodes: no node came, or the first one told nothing.
        ConfigError: it told no `num-partitions` that is a whole number from 1 on.

    >>> from flower_edge.clients import answer_properties
    >>> from flower_edge.runtime import LocalGrid
    >>> from flwr.clientapp import ClientApp
    >>> with LocalGrid(answer_properties(ClientApp()), nodes=3) as grid:
    ...     expected_nodes(grid)
    3
    """
    with GridProxy(grid, expected_nodes=1, join_timeout_s=join_timeout_s) as first:
        node_id = next(iter(first.get_node_ids()))
        told = first.properties(node_id)
    if not told:
        raise NotEnoughNodes(
            f"node {node_id} told nothing about itself: its ClientApp fails, or is not wrapped in "
            "flower_edge.clients.answer_properties, as its log says; or it needs more than the "
            f"{join_timeout_s:g} s of join_timeout_s"
        )
    count = told.get("num-partitions")
    if type(count) is not int or count < 1:
        raise ConfigError(
            f"node {node_id} says num-partitions={count!r}: expected how many nodes there are; start each with it in "
            "its node config: flower-supernode --node-config 'partition-id=0 num-partitions=12'"
        )
    return count
