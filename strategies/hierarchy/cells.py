"""Which terminals belong to which edge: functions from a Grid to cells. Nothing here trains or sends.

A cell function is called before every cloud round with the Grid and the round, and answers with the node ids of each
cell by name. Write your own: `lambda grid, round: {"edge-0": [...], "edge-1": [...]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import find

__all__ = ["Cells", "blocks", "by_property", "place_of"]

Cells = Callable[[Grid, Round], Mapping[str, list[int]]]


def blocks(count: int, *, prefix: str = "edge") -> Cells:
    """Cells of equal size, in the order of the nodes; sizes differ by at most one.

    Where the Grid tells each node's `partition-id` and `num-partitions` (`GridProxy`, `LocalGrid`), a node stays in
    its cell whoever else comes and goes. Elsewhere the nodes that are there are dealt anew.

    Args:
        count: how many cells, at least 1.
        prefix: cells are called `<prefix>-0`, `<prefix>-1`, …

    Raises:
        ConfigError: `count` below 1.
    """
    if type(count) is not int:
        raise ConfigError(f"count = {count!r}: a whole number of cells")
    if count < 1:
        raise ConfigError(f"count = {count}: there is at least one cell")

    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        nodes = list(grid.get_node_ids())
        places = [place_of(grid, node) for node in nodes]
        known = [place for place in places if place is not None]
        if len(known) == len(nodes) and len({total for _, total in known}) == 1:
            numbers, total = [number for number, _ in known], known[0][1]
        else:
            numbers, total = list(range(len(nodes))), len(nodes)
        found: dict[str, list[int]] = {}
        for i, part in enumerate(np.array_split(np.arange(total), count)):
            members = set(part.tolist())
            found[f"{prefix}-{i}"] = [node for node, k in zip(nodes, numbers, strict=True) if k in members]
        return found

    return cells


def place_of(grid: Grid, node: int) -> tuple[int, int] | None:
    """A node's `partition-id` and `num-partitions`, where the Grid can tell."""
    if (proxy := find(grid, GridProxy)) is not None:
        config: Mapping[str, object] = proxy.properties(node)
    elif (local := find(grid, LocalGrid)) is not None:
        config = local.context_of(node).node_config
    else:
        return None
    number, total = config.get("partition-id"), config.get("num-partitions")
    return (number, total) if type(number) is int and type(total) is int and 0 <= number < total else None


def by_property(name: str = "cell") -> Cells:
    """Cells by what every node says of itself in its node config, as `GridProxy` asked once.

    Raises (when called):
        ConfigError: the Grid is not behind a `GridProxy`, or a node does not have that property.
    """

    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        proxy = find(grid, GridProxy)
        if proxy is None:
            raise ConfigError(f"cells by the property {name!r} need node properties; start on GridProxy(grid)")
        found: dict[str, list[int]] = {}
        for node in grid.get_node_ids():
            value = proxy.properties(node).get(name)
            if value is None:
                raise ConfigError(
                    f"node {node} has no property {name!r}; set it in its node config, "
                    "and register answer_properties(app) on the client"
                )
            found.setdefault(str(value), []).append(node)
        return dict(sorted(found.items()))

    return cells
