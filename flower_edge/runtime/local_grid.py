"""`LocalGrid`: a Flower `Grid` that runs real `ClientApp`s in this process.

For tests, notebooks, sweeps and as the edge tier inside a ClientApp. It is a Grid and nothing more: strategies,
layers and proxies do not know it from Flower's own. No sockets, no Ray, no message store; a message costs what the
client function costs.

What a client may rely on: `Context.state` is kept per node; a node handles one message at a time, in the order
they were pushed; records are the client's own (changing them in place changes nothing at the sender's); a call that
fails changes nothing in `Context`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from logging import getLogger
from types import TracebackType
from typing import Any, Literal, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from ..errors import ConfigError
from ..wire import copy_content, round_trip
from .client_call import AppSource, check_pickles, reason_of, run_client
from .client_pool import ClientPool
from .error_codes import CLIENT_RAISED, NODE_UNAVAILABLE
from .faults import Fault, FaultScript
from .flower_private import borrowed_identity, clone_message, drop_identity, empty_run, ensure_identity, set_metadata
from .generators import derive_seed, kept_generators, seeded_call
from .local_node import Job, LocalNode

__all__ = ["LocalGrid"]

log = getLogger(__name__)

Config = Mapping[str, bool | int | float | str]


class LocalGrid(Grid):
    """Runs a `ClientApp` for any number of nodes, in process.

    Args:
        app: the `ClientApp`, or a function that makes one. The process pool needs one that pickles: an app whose
            functions are defined at the top of a module, or such a function.
        nodes: how many (each gets `partition-id` and `num-partitions`, as in Flower's simulation), or one node
            config per node.
        run_config: the run config every client sees in its `Context`.
        seed: seeds the global generators of `random`, NumPy and torch for each client call, from (seed, node,
            its nth message); the caller's own streams are not disturbed. With a thread pool they are not seeded:
            global generators are shared by all threads, and clients that want to repeat exactly use generators of
            their own. `send_and_receive`, this grid's and that of a `GridProxy` around it, gives the caller's streams
            back; `push_messages` and `pull_messages` by themselves do not, and a client still running after a
            timeout goes on drawing. A server that must repeat there takes another pool, or does not sample with
            global generators: `Hierarchical(seed=...)`.
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
        first_node_id: id of the first node; the others follow. Grids that are joined need different ones.

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
        first_node_id: int = FIRST_NODE_ID,
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
        self._pool = pool
        self._serialise = serialise
        self._script = FaultScript.of(script)
        for fault in self._script.faults:
            if not 0 <= fault.node < len(nodes):
                raise ConfigError(
                    f"a fault for node {fault.node}: nodes are counted from 0 to {len(nodes) - 1} here, "
                    "by their place; their ids are not meant"
                )
        self._raise_errors = raise_errors
        if first_node_id < 2:
            raise ConfigError(f"first_node_id = {first_node_id}: expected 2 or more; 1 is the server's own")
        # Grids that are joined have their nodes, and so their messages, apart; see `JoinedGrid`.
        self._apart = first_node_id - self.FIRST_NODE_ID
        self._run = empty_run(run_id)
        self._nodes = {
            first_node_id + i: LocalNode(
                partition=i,
                context=Context(
                    run_id=run_id,
                    node_id=first_node_id + i,
                    node_config=dict(config),
                    state=RecordDict(),
                    run_config=dict(run_config or {}),
                ),
            )
            for i, config in enumerate(nodes)
        }
        self._jobs: dict[str, Job] = {}
        self._pushed = 0
        self._clients = None if pool == "sequential" else ClientPool(pool, workers)
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
        return [self._push(message).message_id for message in messages]

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

        Silent nodes are not waited for: in process it is known that nothing more can come. Replies that come after
        the timeout are dropped.
        """
        if not self.shares_generators:
            return self._exchange(messages, timeout)
        messages = list(messages)
        with kept_generators():
            return self._exchange(messages, timeout)

    def _exchange(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        jobs: list[Job] = []
        try:
            # One after the other: a caller's generator may build each message only when the one before has run.
            for message in messages:
                jobs.append(self._push(message))
            return self._wait_for(jobs, timeout)
        finally:
            self._drop(jobs)

    def _wait_for(self, jobs: list[Job], timeout: float | None) -> list[Message]:
        ids = [job.message_id for job in jobs]
        end_s = None if timeout is None else time.monotonic() + timeout
        replies: dict[str, Message] = {}
        while True:
            for reply in self.pull_messages(ids):
                replies[reply.metadata.reply_to_message_id] = reply
            with self._changed:
                open_jobs = [self._jobs[i] for i in ids if i in self._jobs]
                now_s = time.monotonic()
                if not open_jobs or (end_s is not None and now_s >= end_s):
                    break
                due = [job.due_s for job in open_jobs if job.reply is not None]
                wake_s = min([*due, *([end_s] if end_s is not None else [])], default=now_s + 1.0)
                if len(due) == len(open_jobs) or wake_s > now_s:
                    self._changed.wait(timeout=max(0.0, wake_s - now_s))
        if missing := [job.node.partition for job in jobs if job.message_id not in replies]:
            log.warning("no reply from nodes %s within %s s", missing, timeout)
        return [replies[i] for i in ids if i in replies]

    # -- more than a Grid ------------------------------------------------------------------------------------------

    @property
    def most_nodes(self) -> int:
        """How many nodes there can ever be: those the Grid was made of, also while some are offline."""
        return len(self._nodes)

    @property
    def shares_generators(self) -> bool:
        """Whether clients draw from the caller's global generators, so that an exchange must give them back."""
        return self._pool == "threads"

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
            "nodes": {str(node.partition): node.state_dict() for node in self._nodes.values()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Files that `NodeState` has made since then stay; see `resume_from`.

        Raises:
            ConfigError: the state is that of a grid with other nodes.
        """
        nodes = self._nodes_of(state)
        self._pushed = state["pushed"]
        for node, saved in nodes:
            node.load_state_dict(saved)

    def resume_from(self, state: Mapping[str, Any]) -> None:
        """`load_state_dict` for a run that was stopped: what it left on disk for these nodes is removed first.

        Else a node that had saved nothing when the checkpoint was taken would find what it saved afterwards. Only
        for a grid whose nodes have their folders to themselves: the terminals of an edge in a ClientApp may share
        one with an edge.

        Raises:
            ConfigError: the state is that of a grid with other nodes; nothing is removed.
        """
        for node, _ in self._nodes_of(state):
            node.forget_files()
        self.load_state_dict(state)

    def _nodes_of(self, state: Mapping[str, Any]) -> list[tuple[LocalNode, Any]]:
        own = {str(node.partition): node for node in self._nodes.values()}
        if set(own) != set(state["nodes"]):
            raise ConfigError(
                f"state of {len(state['nodes'])} nodes for a grid of {len(own)}; build the grid as the first run did"
            )
        return [(own[name], saved) for name, saved in state["nodes"].items()]

    def close(self) -> None:
        """End the pool, wait for what runs, and give back the task identity. Safe to call twice."""
        with self._changed:
            for node in self._nodes.values():
                node.waiting.clear()
        if self._clients is not None:
            self._clients.close()
        with self._changed:
            # What had not begun never will: a grid that is used again starts with free nodes.
            for node in self._nodes.values():
                node.busy = False
            self._jobs = {name: job for name, job in self._jobs.items() if job.reply is not None}
            self._changed.notify_all()
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

    def _node(self, node_id: int) -> LocalNode:
        try:
            return self._nodes[node_id]
        except KeyError:
            known = f"{min(self._nodes)} to {max(self._nodes)}" if self._nodes else "none"
            raise ConfigError(f"node id {node_id} is not on this grid; its ids are {known}") from None

    def _push(self, message: Message) -> Job:
        with self._changed:
            self._pushed += 1
            order = self._pushed
        message_id = f"{self._run.run_id:016x}{self._apart % 2**64:016x}{order:032x}"
        set_metadata(message, message_id=message_id, run_id=self._run.run_id, src_node_id=1)
        node = self._nodes.get(message.metadata.dst_node_id)
        if node is None or not node.online:
            # As Flower does: the message is taken, and answered for the node that is not there.
            job = Job(order, message_id, message, node or LocalNode(-1, Context(0, 0, {}, RecordDict(), {})), 0, None)
            job.reply = self._error(job, NODE_UNAVAILABLE, "node is not on the grid")
            self._jobs[message_id] = job
            return job
        delivered = clone_message(message, copy_content(message.content))
        if self._serialise:
            delivered = round_trip(delivered)
        node.handled += 1
        job = Job(order, message_id, delivered, node, node.handled, self._script.at(node.partition, node.handled))
        if job.fault is not None and job.fault.kind == "silent":
            return job  # not kept: nothing can come of it
        with self._changed:
            self._jobs[message_id] = job
        try:
            self._begin(job)
        except BaseException:
            self._drop([job])
            raise
        return job

    def _drop(self, jobs: Iterable[Job]) -> None:
        with self._changed:
            for job in jobs:
                self._jobs.pop(job.message_id, None)

    def _begin(self, job: Job) -> None:
        fault = job.fault
        if fault is not None and fault.kind != "late":
            if fault.kind == "drop-out":
                job.node.online = False
                job.reply = self._error(job, NODE_UNAVAILABLE, fault.reason)
            else:
                job.reply = self._error(job, CLIENT_RAISED, fault.reason)
            return
        if self._pool == "sequential":
            self._finish(job, self._call_here(job))
            return
        with self._changed:
            job.node.waiting.append(job)
            if job.node.busy:
                return
            job.node.busy = True
        self._go_on(job.node)

    def _call_here(self, job: Job) -> tuple[Message, Context]:
        with borrowed_identity(), seeded_call(derive_seed(self._seed, job.node.key, job.nth)):
            return run_client(self._app, job.message, job.node.context, None, self._raise_errors)

    def _go_on(self, node: LocalNode) -> None:
        """Give the pool the node's next message, if there is one."""
        while True:
            with self._changed:
                job = node.waiting.popleft() if node.waiting else None
                node.busy = job is not None
                self._changed.notify_all()
            if job is None:
                return
            try:
                self._submit(job)
                return
            except Exception as error:  # no process can be started, say
                self._answer(job, self._error(job, CLIENT_RAISED, reason_of(error)))

    def _submit(self, job: Job) -> None:
        assert self._clients is not None
        seed = derive_seed(self._seed, job.node.key, job.nth) if self._pool == "processes" else None
        call = partial(run_client, self._app, job.message, job.node.context, seed)
        self._clients.submit(call, partial(self._done, job))

    def _done(self, job: Job, outcome: tuple[Message, Context] | BaseException) -> None:
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            self._finish(job, outcome)
        except BaseException as error:
            # A worker that died, a context that does not pickle, a client that raised what is no Exception: here
            # nobody would hear of it, and without a reply its caller would wait for ever.
            self._answer(job, self._error(job, CLIENT_RAISED, reason_of(error)))
        self._go_on(job.node)

    def _finish(self, job: Job, result: tuple[Message, Context]) -> None:
        reply, context = result
        set_metadata(reply, message_id=f"{job.message_id[:32]}{job.order:031x}r")
        if self._serialise:
            try:
                reply, context.state = round_trip(reply), round_trip(context.state)
            except Exception as error:
                if self._raise_errors:
                    raise
                reason = f"the reply or the node's state does not travel ({reason_of(error)})"
                # The node keeps what it remembered before, as after any other error.
                reply, context = self._error(job, CLIENT_RAISED, reason), job.node.context
        elif reply.has_content():
            reply = clone_message(reply, copy_content(reply.content))
        job.node.context = context
        self._answer(job, reply)

    def _answer(self, job: Job, reply: Message) -> None:
        job.due_s = time.monotonic() + (job.fault.delay_s if job.fault else 0.0)
        job.reply = reply

    def _error(self, job: Job, code: int, reason: str) -> Message:
        reply = Message(Error(code=code, reason=reason), reply_to=job.message)
        set_metadata(reply, message_id=f"{job.message_id[:32]}{job.order:031x}r")
        return reply
