"""What is known of nodes: a key that lasts, and a row of properties and conditions for each.

For rules and groupings. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.serverapp import Grid

from flower_edge.conditions import Conditions
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.queries import CONDITIONS, ask_nodes
from flower_edge.runtime.wrapped_grid import find

from .hierarchy.cells import place_of

__all__ = ["key_of", "rows_of"]


def key_of(grid: Grid, node_id: int) -> str:
    """A node's `partition-id` where the Grid can tell it, which outlives a resume; else its id."""
    place = place_of(grid, node_id)
    return str(node_id if place is None else place[0])


def rows_of(grid: Grid, nodes: Iterable[int], *, ask: bool) -> dict[int, dict[str, Any]]:
    """Properties of each node by name and, where asked for, its present conditions.

    Args:
        grid: tells static properties where it has a `GridProxy` or `LocalGrid` in its chain.
        nodes: ids.
        ask: send every node a `query.conditions`; what one does not answer, or not well, is absent from its row.
    """
    wanted = list(nodes)
    answers = ask_nodes(grid, wanted, CONDITIONS) if ask else {}
    proxy, local = find(grid, GridProxy), find(grid, LocalGrid)
    rows: dict[int, dict[str, Any]] = {}
    for node in wanted:
        if proxy is not None:
            static = dict(proxy.properties(node))
        else:
            static = {} if local is None else dict(local.context_of(node).node_config)
        rows[node] = {**static, **Conditions.read(answers.get(node)).to_mapping()}
    return rows
