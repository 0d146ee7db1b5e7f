"""Three nodes, each with Flower's state and Runtime API of a SuperNode, and an executor process of `flower-edge node`.

The executors are started and replaced by its pool; what a SuperLink would bring to a node is handed to it here, and its
replies are taken from it. Nothing here strikes anybody.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_points import Plan, can_mount, small_disk
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supernode.start_client_internal import _insert_message
from warm_cases import add_run, app_fab, runtime_api, state_factory

from flower_edge.runtime import GridProxy
from flower_edge.runtime.flower_private import drop_identity, empty_run, ensure_identity, set_metadata
from flower_edge.runtime.flower_private_reply import whole_reply
from flower_edge.runtime.warm.pool import ExecutorPool
from flower_edge.runtime.warm.settings import WarmSettings

__all__ = ["FIRST_ID", "Nodes", "worker_nodes"]

NODES, RUN_ID, FIRST_ID = 3, 7, 1000

#: Counts its rounds on the disk; strikes itself where its plan says so.
CLIENT = """
import threading
from pathlib import Path
import flwr.supernode.runtime.run_clientapp as program
from fault_points import Plan
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flower_edge.clients import answer_properties
from flower_edge.runtime.node_state import NodeState

app = answer_properties(ClientApp())
plans = []
turn = threading.Lock()
stock_push, stock_output = program.push_objects, program.push_task_output

def push_objects(objects, push, **options):
    def pushed(*part, **named):
        # One after the other: the first is through when it strikes, and no other one is.
        with turn:
            done = push(*part, **named)
            for plan in plans:
                plan.here("mid_transfer")
            return done
    stock_push(objects, pushed, **options)

def push_task_output(**options):
    for plan in plans:
        plan.here("after_ack")
    stock_output(**options)

program.push_objects, program.push_task_output = push_objects, push_task_output

@app.train()
def train(message, context):
    plans[:] = [Plan(Path(str(context.node_config["plan"])))]
    memory = NodeState(context, "rounds", durable=True)
    seen = int(memory.load() or 0) + 1
    memory.save(seen)
    partition = int(context.node_config["partition-id"])
    w = message.content["arrays"]["w"].numpy() + 1.0 + partition
    metrics = MetricRecord({"num-examples": 10 + partition, "seen": seen})
    return Message(RecordDict({"arrays": ArrayRecord({"w": Array(w)}), "metrics": metrics}), reply_to=message)
"""


class Node:
    """A SuperNode's state, its Runtime API, and the pool of its executors, in a thread as in a SuperNode."""

    def __init__(self, number: int, stack: ExitStack) -> None:
        self.id = FIRST_ID + number
        factory = state_factory(self.id)
        self.state = factory.state()
        self.pool = ExecutorPool(stack.enter_context(runtime_api(factory)), WarmSettings())
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.outbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        stack.callback(self.close)

    @property
    def pid(self) -> int:
        """Of its executor."""
        return self.pool.executors[0].pid

    @property
    def idle(self) -> bool:
        """Whether it has an executor that stands by."""
        return any(executor.ready and executor.claim is None for executor in self.pool.executors)

    def _work(self) -> None:
        while not self._closing:
            if not self.inbox.empty():
                message = self.inbox.get()
                _insert_message(message, self.state, self.state.object_store)
                fab_hash = self.state.get_run(RUN_ID).fab_hash
                self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=RUN_ID, fab_hash=fab_hash)
                self.pool.stored(self.state)
            if whole_reply(self.state):
                for reply in self.state.get_messages_legacy(is_reply=True):
                    self.outbox.put(self._sent(reply))
            self.pool.look(0.02)
        self.pool.close()

    def _sent(self, reply: Message) -> Message:
        """A reply as it would come to the server."""
        answer = reply
        if not reply.has_error():
            store, whole = self.state.object_store, reply.metadata.message_id
            wanted = [tree.object_id for tree in iterate_object_tree(store.get_object_tree(whole))]
            answer = inflate_object_from_contents(whole, {name: store.get(name) for name in wanted})
        set_metadata(answer, src_node_id=self.id)
        self.state.delete_messages(message_ids=[reply.metadata.message_id, reply.metadata.reply_to_message_id])
        self.state.object_store.delete(reply.metadata.message_id)
        return answer

    def close(self) -> None:
        self._closing = True
        self._thread.join(60)


class Nodes(Grid):
    """What a SuperLink is between a server and its nodes: messages to them, replies from them."""

    def __init__(self, nodes: list[Node], disk: Path, plan: Plan) -> None:
        self.nodes, self.disk, self.plan = nodes, disk, plan
        self._replies: dict[str, Message] = {}
        self._run = empty_run(RUN_ID)

    def set_run(self, run: Any) -> None:
        self._run = run

    @property
    def run(self) -> Any:
        return self._run

    def create_message(self, *positional: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [node.id for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            set_metadata(message, message_id=message.object_id)
            ids.append(message.metadata.message_id)
            self.nodes[message.metadata.dst_node_id - FIRST_ID].inbox.put(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for node in self.nodes:
            while not node.outbox.empty():
                reply = node.outbox.get()
                self._replies[reply.metadata.reply_to_message_id] = reply
        return [self._replies.pop(one) for one in list(message_ids) if one in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return GridProxy(self).send_and_receive(messages, timeout=timeout)


@contextmanager
def worker_nodes(folder: Path) -> Iterator[Nodes]:
    """Started once for all cases; what node 0 remembers lies on a small disk where there can be one."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("FLWR_HOME", str(folder / "home"))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        stack.callback(drop_identity) if ensure_identity(RUN_ID) else None
        disk = stack.enter_context(small_disk(folder / "disk", 400, needed=can_mount()))
        plan = Plan(folder / "plan.json")
        fab = app_fab(folder, "counts", CLIENT)
        nodes = [Node(number, stack) for number in range(NODES)]
        for number, node in enumerate(nodes):
            where = disk if number == 0 else folder / f"disk-{number}"
            told = {"partition-id": number, "num-partitions": NODES, "state-dir": str(where)}
            told["plan"] = str(plan.path if number == 0 else folder / "never.json")
            add_run(node.state, RUN_ID, fab, told, {"run-name": "faults"})
        yield Nodes(nodes, disk, plan)
