"""`LocalGrid`: a Flower `Grid` that runs real `ClientApp`s in this process.

For tests, notebooks, sweeps and as the edge tier inside a ClientApp. It is a Grid and nothing more: strategies,
layers and proxies do not know it from Flower's own. No sockets, no Ray, no message store; a message costs what the
client function costs.

What a client may rely on: `Context.state` is kept per node; a node handles one message at a time, in the order
they were pushed; records are the client's own (changing them in place changes nothing at the sender's).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from ..errors import ConfigError
from ..wire import copy_content, records_from_tree, records_to_tree, round_trip
from .client_call import CLIENT_RAISED, AppSource, check_pickles, reason_of, run_client
from .faults import Fault, FaultScript
from .flower_private import borrowed_identity, clone_message, drop_identity, empty_run, ensure_identity, set_metadata
from .generators import derive_seed, generator_state, restore_generators, seeded_call
from .node_state import export_files, restore_files
from .node_state_files import state_root

__all__ = ["LocalGrid"]

log = getLogger(__name__)

#: Flower's error code for a node that is gone.
NODE_UNAVAILABLE = 5

Config = Mapping[str, bool | int | float | str]


@dataclass
class _Node:
    """One node: its identity, its memory, and what waits for it."""

    partition: int
    context: Context
    online: bool = True
    handled: int = 0
    busy: bool = False
    waiting: deque[_Job] = field(default_factory=deque)

    @property
    def key(self) -> int | str:
        """What seeds are derived from: the same terminal draws the same numbers on whichever grid it is."""
        value = self.context.node_config.get("partition-id", self.partition)
        return value if isinstance(value, int | str) else self.partition


@dataclass
class _Job:
    """One message on its way through a node."""

    order: int
    message: Message
    node: _Node
    nth: int
    fault: Fault | None
    reply: Message | None = None
    due_s: float = 0.0
    silent: bool = False
    future: Future[tuple[Message, Context]] | None = None


class LocalGrid(Grid):
    """Runs a `ClientApp` for any number of nodes, in process.

    Args:
        app: the `ClientApp`, or a function that makes one. The process pool needs one that pickles: an app whose
            functions are defined at the top of a module, or such a function.
        nodes: how many (each gets `partition-id` and `num-partitions`, as in Flower's simulation), or one node
            config per node.
        run_config: the run config every client sees in its `Context`.
        seed: seeds the global generators of `random`, NumPy and torch for each client call, from (seed, node,
            its nth message); the caller's own streams are not disturbed. With a thread pool, global generators are
            shared by all threads: the caller's streams are given back when `send_and_receive` returns, but clients
            that want to repeat exactly use generators of their own.
        pool: `sequential`, `threads` or `processes`. Replies come back in the order the messages were pushed,
            whichever pool ran them.
        workers: size of the pool.
        serialise: every message and reply, and the state of every node, goes through Flower's own serialisation,
            so that what would not travel fails here: the sender's raises, a client's is answered with an error.
            Otherwise records are rebuilt over the same immutable bytes.
        script: faults to inject, see `Fault`.
        raise_errors: raise what a client raised here and now instead of answering with an error, as a notebook wants;
            sequential only.
        run_id: the run id that messages carry.

    Usable as a context manager; `close` ends the pool. Inside a running ClientApp it leaves Flower's process-global
    task identity as it found it.

    >>> from flwr.clientapp import ClientApp
    >>> app = ClientApp()
    >>> @app.query()
    ... def query(message: Message, context: Context) -> Message:
    ...     return Message(RecordDict(), reply_to=message)
    >>> with LocalGrid(app, nodes=3) as grid:
    ...     ids = list(grid.get_node_ids())
    ...     replies = list(grid.send_and_receive([Message(RecordDict(), i, "query") for i in ids]))
    >>> ids, [reply.metadata.src_node_id for reply in replies]
    ([1000, 1001, 1002], [1000, 1001, 1002])
    """

    FIRST_NODE_ID = 1000

    def __init__(
        self,
        app: AppSource,
        nodes: int | Sequence[Config],
        *,
        run_config: Config | None = None,
        seed: int = 0,
        pool: Literal["sequential", "threads", "processes"] = "sequential",
        workers: int = 2,
        serialise: bool = False,
        script: Iterable[Fault] = (),
        raise_errors: bool = False,
        run_id: int = 1,
    ) -> None:
        if isinstance(nodes, int):
            if nodes < 0:
                raise ConfigError(f"nodes = {nodes}: expected 0 or more")
            nodes = [{"partition-id": i, "num-partitions": nodes} for i in range(nodes)]
        if pool not in ("sequential", "threads", "processes"):
            raise ConfigError(f"pool = {pool!r}: expected 'sequential', 'threads' or 'processes'")
        if workers < 1:
            raise ConfigError(f"workers = {workers}: expected 1 or more")
        if raise_errors and pool != "sequential":
            raise ConfigError(f"raise_errors needs pool='sequential', got {pool!r}: a pool has nobody to raise to")
        if pool == "processes":
            check_pickles(app)
        self._app = app
        self._seed = seed
        self._pool: Literal["sequential", "threads", "processes"] = pool
        self._workers = workers
        self._serialise = serialise
        self._script = FaultScript.of(script)
        self._raise_errors = raise_errors
        self._run = empty_run(run_id)
        self._nodes = {
            self.FIRST_NODE_ID + i: _Node(
                partition=i,
                context=Context(
                    run_id=run_id,
                    node_id=self.FIRST_NODE_ID + i,
                    node_config=dict(config),
                    state=RecordDict(),
                    run_config=dict(run_config or {}),
                ),
            )
            for i, config in enumerate(nodes)
        }
        self._jobs: dict[str, _Job] = {}
        self._pushed = 0
        self._executor: Executor | None = None
        self._changed = threading.Condition()
        self._gave_identity = ensure_identity(run_id)

    # -- Flower's Grid ---------------------------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        """Set the run information shown by `run`."""
        self._run = run

    @property
    def run(self) -> Any:
        """Run information."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A new message; `Message(content, dst_node_id, message_type)` does the same."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Ids of the nodes on the grid, by partition id."""
        return [node_id for node_id, node in self._nodes.items() if node.online]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand messages to their nodes. A sequential grid runs them before it returns."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there, each given once, in the order their messages were pushed."""
        now_s = time.monotonic()
        with self._changed:
            wanted = [(i, self._jobs[i]) for i in message_ids if i in self._jobs]
            ready = [(i, job) for i, job in wanted if job.reply is not None and job.due_s <= now_s]
            for message_id, _ in ready:
                del self._jobs[message_id]
        replies = [job.reply for _, job in sorted(ready, key=lambda entry: entry[1].order)]
        return [reply for reply in replies if reply is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and wait for their replies, in the order the messages were given.

        Silent nodes are not waited for: in process it is known that nothing more can come.
        """
        if self._pool != "threads":
            return self._exchange(messages, timeout)
        messages = list(messages)
        before = generator_state()
        try:
            return self._exchange(messages, timeout)
        finally:
            restore_generators(before)

    def _exchange(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        # One after the other: a caller's generator may build each message only when the one before has run.
        ids = list(self.push_messages(messages))
        end_s = None if timeout is None else time.monotonic() + timeout
        replies: dict[str, Message] = {}
        while True:
            for reply in self.pull_messages(ids):
                replies[reply.metadata.reply_to_message_id] = reply
            with self._changed:
                open_jobs = [self._jobs[i] for i in ids if i in self._jobs and not self._jobs[i].silent]
                now_s = time.monotonic()
                if not open_jobs or (end_s is not None and now_s >= end_s):
                    break
                due = [job.due_s for job in open_jobs if job.reply is not None]
                wake_s = min([*due, *([end_s] if end_s is not None else [])], default=now_s + 1.0)
                if len(due) == len(open_jobs) or wake_s > now_s:
                    self._changed.wait(timeout=max(0.0, wake_s - now_s))
        if missing := [self._jobs[i].node.partition for i in ids if i in self._jobs]:
            log.warning("no reply from nodes %s within %s s", missing, timeout)
        return [replies[i] for i in ids if i in replies]

    # -- more than a Grid ------------------------------------------------------------------------------------------

    def partition_of(self, node_id: int) -> int:
        """A node's place in the list given at the start."""
        return self._node(node_id).partition

    def context_of(self, node_id: int) -> Context:
        """A node's own `Context`; its state is the node's memory."""
        return self._node(node_id).context

    def disconnect(self, node_id: int) -> None:
        """Take a node off the grid: it is not listed, and messages to it answer "node unavailable"."""
        self._node(node_id).online = False

    def connect(self, node_id: int) -> None:
        """Put a node back on the grid, with the memory it had."""
        self._node(node_id).online = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: every node's memory, files of `NodeState` included, and counters.

        Outstanding messages are not part of it.
        """
        return {
            "pushed": self._pushed,
            "nodes": {
                str(node.partition): {
                    "state": records_to_tree(node.context.state),
                    "handled": node.handled,
                    "online": node.online,
                    "files": self._files(node),
                }
                for node in self._nodes.values()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ConfigError: the state is that of a grid with other nodes.
        """
        own = {str(node.partition): node for node in self._nodes.values()}
        if set(own) != set(state["nodes"]):
            raise ConfigError(
                f"state of {len(state['nodes'])} nodes for a grid of {len(own)}; build the grid as the first run did"
            )
        self._pushed = state["pushed"]
        for name, saved in state["nodes"].items():
            own[name].context.state = records_from_tree(saved["state"])
            own[name].handled, own[name].online = saved["handled"], saved["online"]
            root = _state_root(own[name].context)
            if saved["files"] is not None and root is not None:
                restore_files(saved["files"], root)

    def _files(self, node: _Node) -> Any:
        root = _state_root(node.context)
        return None if root is None else export_files(node.context.state, root)

    def close(self) -> None:
        """End the pool, wait for what runs, and give back the task identity. Safe to call twice."""
        with self._changed:
            for node in self._nodes.values():
                node.waiting.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
        if self._gave_identity:
            drop_identity()
            self._gave_identity = False

    def __enter__(self) -> Self:
        if not self._gave_identity:
            self._gave_identity = ensure_identity(self._run.run_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- one message -----------------------------------------------------------------------------------------------

    def _node(self, node_id: int) -> _Node:
        try:
            return self._nodes[node_id]
        except KeyError:
            known = f"{min(self._nodes)} to {max(self._nodes)}" if self._nodes else "none"
            raise ConfigError(f"node id {node_id} is not on this grid; its ids are {known}") from None

    def _push(self, message: Message) -> str:
        with self._changed:
            self._pushed += 1
            order = self._pushed
        message_id = f"{self._run.run_id:016x}{order:048x}"
        set_metadata(message, message_id=message_id, run_id=self._run.run_id, src_node_id=1)
        node = self._nodes.get(message.metadata.dst_node_id)
        if node is None or not node.online:
            # As Flower does: the message is taken, and answered for the node that is not there.
            job = _Job(order, message, node or _Node(-1, Context(0, 0, {}, RecordDict(), {})), 0, None)
            job.reply = self._error(message, order, NODE_UNAVAILABLE, "node is not on the grid")
            self._jobs[message_id] = job
            return message_id
        delivered = clone_message(message, copy_content(message.content))
        if self._serialise:
            delivered = round_trip(delivered)
        node.handled += 1
        job = _Job(order, delivered, node, node.handled, self._script.at(node.partition, node.handled))
        with self._changed:
            self._jobs[message_id] = job
        self._begin(job)
        return message_id

    def _begin(self, job: _Job) -> None:
        fault = job.fault
        if fault is not None and fault.kind != "late":
            if fault.kind == "silent":
                job.silent = True
            elif fault.kind == "drop-out":
                job.node.online = False
                job.reply = self._error(job.message, job.order, NODE_UNAVAILABLE, fault.reason)
            else:
                job.reply = self._error(job.message, job.order, CLIENT_RAISED, fault.reason)
            return
        if self._pool == "sequential":
            self._finish(job, self._call_here(job))
            return
        with self._changed:
            if job.node.busy:
                job.node.waiting.append(job)
                return
            job.node.busy = True
        self._submit(job)

    def _call_here(self, job: _Job) -> tuple[Message, Context]:
        with borrowed_identity(), seeded_call(derive_seed(self._seed, job.node.key, job.nth)):
            return run_client(self._app, job.message, job.node.context, None, self._raise_errors)

    def _submit(self, job: _Job) -> None:
        seed = derive_seed(self._seed, job.node.key, job.nth) if self._pool == "processes" else None
        call = partial(run_client, self._app, job.message, job.node.context, seed)
        with self._changed:
            try:
                job.future = self._ready_executor().submit(call)
            except BrokenExecutor:  # a client took its worker process down; the others go on in a new pool
                self._executor = None
                job.future = self._ready_executor().submit(call)
        job.future.add_done_callback(lambda future: self._done(job, future))

    def _ready_executor(self) -> Executor:
        if self._executor is None:
            if self._pool == "threads":
                self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="local-grid")
            else:
                self._executor = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        return self._executor

    def _done(self, job: _Job, future: Future[tuple[Message, Context]]) -> None:
        if future.cancelled():
            return
        try:
            result = future.result()
        except Exception as error:  # a worker that died, or a context that does not pickle
            result = self._error(job.message, job.order, CLIENT_RAISED, reason_of(error)), job.node.context
        self._finish(job, result)
        with self._changed:
            following = job.node.waiting.popleft() if job.node.waiting else None
            job.node.busy = following is not None
            self._changed.notify_all()
        if following is not None:
            self._submit(following)

    def _finish(self, job: _Job, result: tuple[Message, Context]) -> None:
        reply, context = result
        set_metadata(reply, message_id=f"{self._run.run_id:016x}{job.order:047x}r")
        if self._serialise:
            try:
                reply, context.state = round_trip(reply), round_trip(context.state)
            except Exception as error:
                if self._raise_errors:
                    raise
                reason = f"the reply or the node's state does not travel ({reason_of(error)})"
                reply = self._error(job.message, job.order, CLIENT_RAISED, reason)
        elif reply.has_content():
            reply = clone_message(reply, copy_content(reply.content))
        job.node.context = context
        job.due_s = time.monotonic() + (job.fault.delay_s if job.fault else 0.0)
        job.reply = reply

    def _error(self, message: Message, order: int, code: int, reason: str) -> Message:
        reply = Message(Error(code=code, reason=reason), reply_to=message)
        set_metadata(reply, message_id=f"{self._run.run_id:016x}{order:047x}r")
        return reply


def _state_root(context: Context) -> Path | None:
    return state_root(context.run_id, context.node_config, context.run_config)
