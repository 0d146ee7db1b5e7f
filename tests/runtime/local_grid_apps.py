"""ClientApps for the tests of `LocalGrid`, made by functions at the top of a module, as the process pool needs them."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.runtime.local_grid import LocalGrid


def ask(grid: LocalGrid, kind: str = "query", content: RecordDict | None = None, times: int = 1) -> list[Message]:
    """Send one message (or more) to every node and return the replies."""
    nodes = list(grid.get_node_ids())
    content = RecordDict() if content is None else content
    return list(grid.send_and_receive([Message(content, node, kind) for _ in range(times) for node in nodes]))


def numbers(replies: list[Message], name: str) -> list[float]:
    """One metric of every reply."""
    return [
        value for reply in replies if isinstance(value := reply.content.metric_records["metrics"][name], int | float)
    ]


def reply_with(message: Message, **metrics: float) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({**metrics})}), reply_to=message)


def counting_app() -> ClientApp:
    """Answers with its place and how many messages it has had, from its own state."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        before = context.state.config_records["seen"]["n"] if "seen" in context.state else 0
        assert isinstance(before, int)
        count = before + 1
        context.state["seen"] = ConfigRecord({"n": count})
        return reply_with(message, place=int(context.node_config["partition-id"]), count=count)

    return app


def uneven_app() -> ClientApp:
    """The first nodes are the slowest, so that replies are ready in another order than the messages were pushed."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        time.sleep(0.02 * (int(context.node_config["num-partitions"]) - place))
        return reply_with(message, place=place)

    return app


def drawing_app() -> ClientApp:
    """Draws from the process-global generators."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return reply_with(message, python=random.random(), numpy=float(np.random.random()))

    return app


def vandal_app() -> ClientApp:
    """Changes everything it is given, in place."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        arrays = message.content.array_records["arrays"]
        assert isinstance(arrays, ArrayRecord)
        before = float(arrays["w"].numpy()[0])
        arrays["w"].data = b"scribbled"
        arrays["more"] = ArrayRecord([np.zeros(1)])["0"]
        items = message.content.config_records["config"]["list"]
        assert isinstance(items, list)
        items.clear()
        message.content.config_records["config"]["text"] = "scribbled"
        del message.content["metrics"]
        context.run_config["lr"] = 99.0
        return reply_with(message, before=before)

    return app


def overlap_app() -> ClientApp:
    """Tells whether another call for the same node was running at the same time, and with how many nodes at once."""
    app = ClientApp()
    lock = threading.Lock()
    running: dict[int, int] = {}

    @app.query()
    def query(message: Message, context: Context) -> Message:
        with lock:
            running[context.node_id] = running.get(context.node_id, 0) + 1
        time.sleep(0.01)
        with lock:
            same, nodes = running[context.node_id], sum(1 for count in running.values() if count)
            running[context.node_id] -= 1
        step = message.content.config_records["config"]["step"]
        seen: Any = context.state.config_records["steps"]["list"] if "steps" in context.state else []
        context.state["steps"] = ConfigRecord({"list": [*seen, step]})
        return reply_with(message, same=same, nodes=nodes)

    return app


def deadly_app() -> ClientApp:
    """Node 0 takes its process down."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            os._exit(3)
        return reply_with(message, place=1)

    return app


def raising_app() -> ClientApp:
    """Node 1 raises."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise OSError("disk full")
        return reply_with(message, place=int(context.node_config["partition-id"]))

    return app


def untravelling_app() -> ClientApp:
    """Node 1 answers with a number that no message can carry, node 2 keeps one in its state."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        if place == 2:
            context.state["big"] = ConfigRecord({"n": 2**70})
        return reply_with(message, n=2**70 if place == 1 else place)

    return app


def nesting_app(pool: Literal["sequential", "threads"] = "sequential") -> ClientApp:
    """An edge: it runs three nodes of its own for every message and answers with the sum of what they say."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        with LocalGrid(counting_app, 3, seed=4, pool=pool, run_id=context.run_id) as grid:
            places = numbers(ask(grid), "place")
        return reply_with(message, total=sum(places))

    return app


def nesting_threads_app() -> ClientApp:
    """The same with threads inside."""
    return nesting_app("threads")
