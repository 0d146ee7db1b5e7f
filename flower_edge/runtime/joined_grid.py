"""`JoinedGrid`: the nodes of several Grids on one, so that an edge server may itself be a worker ([1] ¶55).

    grid = GridProxy(JoinedGrid(flower_grid, server_worker(app, 15, num_partitions=16)))

Each message goes to the Grid its node is on. Nothing here knows times, properties or rounds: proxies and clocks go
around the whole, not around a part. Not thread-safe: one caller at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ..errors import ConfigError, NestingError, ResumeError
from .client_call import AppSource
from .local_grid import Config, LocalGrid
from .wrapped_grid import WrappedGrid, grid_state, load_grid_state

__all__ = ["SERVER_NODE_ID", "JoinedGrid", "server_worker"]

#: Id of the node that `server_worker` makes: neither of a `LocalGrid` that says nothing, nor one Flower would draw.
SERVER_NODE_ID = 2


class JoinedGrid(Grid):
    """All nodes of several Grids; the first is the main one, whose run this is.

    Args:
        grid, others: where nodes are: Flower's own Grids and `LocalGrid`s, or such joined. They stay open when this is
            no longer used.
        poll_s: seconds between two looks for replies of nodes that are not in this process.
        sleep, clock: how time passes, in seconds.

    For `chain` and `find` it is the innermost grid: they do not look into its parts, of which each knows some nodes
    only. Checkpoints hold the state of all parts.

    Raises:
        ConfigError: `poll_s` is not above 0.
        NestingError: a proxy or clock inside, or the same grid twice; it says the right order.

    >>> from flwr.app import Context
    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @app.query()
    ... def query(message: Message, context: Context) -> Message:
    ...     return Message(RecordDict(), reply_to=message)
    >>> with LocalGrid(app, nodes=2) as workers, server_worker(app, 2, num_partitions=3) as own:
    ...     grid = JoinedGrid(workers, own)
    ...     ids = list(grid.get_node_ids())
    ...     replies = grid.send_and_receive([Message(RecordDict(), i, "query") for i in ids])
    >>> ids, [reply.metadata.src_node_id for reply in replies]
    ([1000, 1001, 2], [1000, 1001, 2])
    """

    def __init__(
        self,
        grid: Grid,
        *others: Grid,
        poll_s: float = 0.1,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not poll_s > 0:
            raise ConfigError(f"poll_s = {poll_s}: expected more than 0 s")
        grids = (grid, *others)
        if proxies := [type(one).__name__ for one in grids if isinstance(one, WrappedGrid)]:
            raise NestingError(
                f"JoinedGrid around {proxies[0]}, which would know a part of the nodes; "
                f"write {proxies[0]}(JoinedGrid(...), ...)"
            )
        if len({id(one) for one in grids}) < len(grids):
            raise NestingError("JoinedGrid of a grid and itself; leave the second one out")
        self.grids: tuple[Grid, ...] = grids
        self._poll_s, self._sleep, self._clock = poll_s, sleep, clock
        self._home: dict[int, Grid] = {}
        self._pushed_to: dict[str, Grid] = {}

    # -- Flower's Grid ---------------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Set the run information of all parts."""
        for grid in self.grids:
            grid.set_run(run)

    @property
    def run(self) -> Any:
        """Run information of the main grid."""
        return self.grids[0].run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message; `Message(content, dst_node_id, message_type)` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of all nodes, those of the main grid first.

        Raises:
            ConfigError: two grids have a node of the same id.
        """
        listed = [(node_id, grid) for grid in self.grids for node_id in grid.get_node_ids()]
        here: dict[int, Grid] = {}
        for node_id, grid in listed:
            if here.setdefault(node_id, grid) is not grid:
                raise ConfigError(
                    f"node id {node_id} is on two of the joined grids, a {type(here[node_id]).__name__} and a "
                    f"{type(grid).__name__}; give one of them other ids: LocalGrid(..., first_node_id=5000)"
                )
        # A node that went off its grid is still that grid's: it answers for it.
        self._home.update(here)
        return list(dict.fromkeys(node_id for node_id, _ in listed))

    def get_nodes(self) -> Iterable[Any]:
        """Flower's information on those nodes."""
        return list(chain.from_iterable(grid.get_nodes() for grid in self.grids))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, those to nodes of other processes first; ids in the order of the messages."""
        messages = list(messages)
        batches = self._batches(messages)
        taken: dict[int, str] = {}
        for grid in sorted(batches, key=_in_process):
            taken |= self._push(grid, batches[grid], messages)
        return [taken[place] for place in sorted(taken)]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived, each given once; those of one grid in that grid's own order."""
        by_grid: dict[Grid, list[str]] = {}
        for message_id in message_ids:
            by_grid.setdefault(self._pushed_to.get(message_id, self.grids[0]), []).append(message_id)
        replies: list[Message] = []
        for grid in (grid for grid in self.grids if grid in by_grid):
            came = list(grid.pull_messages(by_grid[grid]))
            for reply in came:
                self._pushed_to.pop(reply.metadata.reply_to_message_id, None)
            replies += came
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies, for at most `timeout` seconds, all parts together.

        Nodes of other processes get theirs first, so that all work at the same time. Replies of nodes in this process
        come first, in the order of their messages; then the others, as they arrive.
        """
        messages = list(messages)
        batches = self._batches(messages)
        if len(batches) == 1:
            (grid,) = batches
            return list(grid.send_and_receive(messages, timeout=timeout))
        end_s = math.inf if timeout is None else self._clock() + timeout
        waiting: dict[str, None] = {}
        for grid, places in batches.items():
            if not _in_process(grid):
                waiting |= dict.fromkeys(self._push(grid, places, messages).values())
        try:
            here: dict[str, Message] = {}
            for grid, places in batches.items():
                if _in_process(grid):
                    left_s = None if timeout is None else max(0.0, end_s - self._clock())
                    came = grid.send_and_receive([messages[place] for place in places], timeout=left_s)
                    here |= {reply.metadata.reply_to_message_id: reply for reply in came}
            replies = [here[m.metadata.message_id] for m in messages if m.metadata.message_id in here]
            return replies + self._wait_for(waiting, end_s)
        finally:
            for message_id in waiting:
                self._pushed_to.pop(message_id, None)

    def _wait_for(self, waiting: dict[str, None], end_s: float) -> list[Message]:
        replies: list[Message] = []
        open_ids = dict(waiting)
        while open_ids:
            for reply in self.pull_messages(list(open_ids)):
                if reply.metadata.reply_to_message_id in open_ids:
                    del open_ids[reply.metadata.reply_to_message_id]
                    replies.append(reply)
            left_s = end_s - self._clock()
            if not open_ids or left_s <= 0:
                break
            self._sleep(min(self._poll_s, left_s))
        return replies

    def _batches(self, messages: list[Message]) -> dict[Grid, list[int]]:
        """The places of the messages, by the grid their node is on."""
        if any(message.metadata.dst_node_id not in self._home for message in messages):
            self.get_node_ids()
        batches: dict[Grid, list[int]] = {}
        for place, message in enumerate(messages):
            # A node nobody has: the main grid answers for it, as it would alone.
            home = self._home.get(message.metadata.dst_node_id, self.grids[0])
            batches.setdefault(home, []).append(place)
        return batches

    def _push(self, grid: Grid, places: list[int], messages: list[Message]) -> dict[int, str]:
        """Push to one grid; the ids of those it took, by place."""
        batch = [messages[place] for place in places]
        ids = list(grid.push_messages(batch))
        if len(ids) < len(batch):
            # Flower's HTTP Grid leaves out what it did not take.
            kept = [(place, m.metadata.message_id) for place, m in zip(places, batch, strict=True)]
            taken = {place: message_id for place, message_id in kept if message_id in set(ids)}
        else:
            taken = dict(zip(places, ids, strict=True))
        self._pushed_to |= dict.fromkeys(taken.values(), grid)
        return taken

    # -- more than a Grid ------------------------------------------------------------------------------------------

    @property
    def shares_generators(self) -> bool:
        """Whether clients of a part draw from the caller's global generators; see `LocalGrid`."""
        return any(getattr(grid, "shares_generators", False) for grid in self.grids)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the state of every part that has one."""
        return {"grids": [grid_state(grid) for grid in self.grids]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: the state is that of other grids.
        """
        self._check(state)
        for grid, saved in zip(self.grids, state["grids"], strict=True):
            for one in saved.values():
                grid.load_state_dict(one)  # type: ignore[attr-defined]

    def resume_from(self, state: Mapping[str, Any]) -> None:
        """`load_state_dict` for a run that was stopped; each part clears away what that run has left outside.

        Raises:
            ResumeError: the state is that of other grids; nothing is removed.
        """
        self._check(state)
        for grid, saved in zip(self.grids, state["grids"], strict=True):
            load_grid_state(grid, saved)

    def _check(self, state: Mapping[str, Any]) -> None:
        own, saved = [sorted(grid_state(grid)) for grid in self.grids], [sorted(one) for one in state["grids"]]
        if own != saved:
            raise ResumeError(
                f"the checkpoint was made on {len(saved)} joined grids {saved}, this run joins {len(own)}: {own}; "
                "join the same ones in the same order"
            )


def server_worker(
    app: AppSource,
    partition_id: int,
    num_partitions: int,
    *,
    run_config: Config | None = None,
    seed: int = 0,
    run_id: int = 1,
    node_id: int = SERVER_NODE_ID,
) -> LocalGrid:
    """A grid with one node in this process: the server as a worker, to be joined with the others' grid.

    It draws the same numbers as the node with that `partition-id` on a `LocalGrid` of all.

    Args:
        app: the same `ClientApp` as the other workers', or a function that makes one.
        partition_id, num_partitions: its place among all workers, itself included; the others' node configs say the
            same number of partitions if their data are to be split by it.
        run_config, seed, run_id: see `LocalGrid`.
        node_id: its id on the grid.

    Raises:
        ConfigError: `partition_id` is not one of the partitions.
    """
    if not 0 <= partition_id < num_partitions:
        raise ConfigError(f"partition_id = {partition_id}: expected 0 to {num_partitions - 1}, one of num_partitions")
    config: Config = {"partition-id": partition_id, "num-partitions": num_partitions}
    return LocalGrid(app, [config], run_config=run_config, seed=seed, run_id=run_id, first_node_id=node_id)


def _in_process(grid: Grid) -> bool:
    """Whether it is known when nothing more can come."""
    if isinstance(grid, JoinedGrid):
        return all(map(_in_process, grid.grids))
    return isinstance(grid, LocalGrid)
