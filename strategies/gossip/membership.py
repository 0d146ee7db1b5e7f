"""Who belongs to a gossiping group: when its environment is defined anew, and of whom.

Somebody who comes takes part from the next round on, somebody who has been away for long is given up, and a worker
that is back under another node id (a restarted SuperNode) is who its `partition-id` says. Nothing here sends a model.

Source: [1] ¶35.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING

from flwr.serverapp import Grid

from flower_edge.errors import NotEnoughNodes, ProtocolError
from flower_edge.topology.world import World

from .environment import Environment, numbered

if TYPE_CHECKING:
    from .group import Group

__all__ = ["Membership"]

log = getLogger("flwr.edge")


@dataclass(frozen=True)
class Membership:
    """Chooses workers.

    Attributes:
        workers: chooses them among the nodes of the Grid; None for all.
        world: whose nodes they are; None where everybody hears everybody and nothing is modelled.
        away_rounds: for how many rounds a worker may be off the Grid before it is given up.
    """

    workers: Callable[[Grid, Sequence[int]], list[int]] | None
    world: World | None
    away_rounds: int

    @property
    def places(self) -> int | None:
        """How many workers there can be; None for any number."""
        return None if self.world is None else self.world.topology.nodes

    def first(self, grid: Grid, present: Sequence[int]) -> Environment:
        """The environment before the first round.

        Raises:
            ProtocolError: nobody is there.
            ConfigError: more nodes than the world has.
        """
        nodes = list(present) if self.workers is None else self.workers(grid, present)
        if not nodes:
            raise ProtocolError(
                "no worker is on the grid; start the ClientApps, and wait for them: GridProxy(grid, expected_nodes=15)"
            )
        return Environment.define(grid, numbered(grid, nodes, self.places), self.world)

    def changed(self, group: Group, grid: Grid, present: Sequence[int], *, afresh: bool = False) -> Environment | None:
        """A new environment, where somebody came who should take part, or a worker has been away for too long.

        `afresh`: all begin from one model now, and nothing is on its way to be mixed. Then it costs nothing to go on
        without those who were silent in the last round, too; in the midst of their rounds it would cost the packets.
        """
        env, there = group.env, set(present)
        patience = 1 if afresh and self.workers is None else self.away_rounds
        rows_there = {i for node, i in env.index.items() if node in there}
        away = {i for i in range(len(env.numbers)) if i not in rows_there and group.silent_rounds.get(i, 0) >= patience}
        came = [node for node in present if node not in env.index] if self.workers is None else []
        if not came and not away:
            return None
        if self.workers is None:
            kept = [node for node, i in env.index.items() if i not in away]
            nodes = kept + came
        else:
            try:
                nodes = self.workers(grid, present)
            except NotEnoughNodes as error:
                log.warning("\tthe group goes on without those that have gone: %s", error)
                for i in away:
                    group.silent_rounds[i] = 0
                return None
        if not nodes:
            return None
        known: Mapping[int, int] = env.by_node
        return Environment.define(grid, numbered(grid, nodes, self.places, known), self.world)
