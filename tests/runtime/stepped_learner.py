"""A learner, and a grid that counts its messages, for the tests of step-bounded training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result

from flower_edge.clients.steps import request, step_mod, steps_of
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.steps.decisions import Decide
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.wire import arrays_of, record_of

START = {"w": np.array([0.5, -1.0, 2.0], dtype=np.float32), "b": np.zeros(1, dtype=np.float32)}
BATCH = 8

# What terminals ask for, by (partition, step) after which they ask; read by the app below, which has no other input.
Wishes = dict[tuple[int, int], str]


def learner(wishes: Wishes | None = None, mods: Sequence[Any] = (step_mod,)) -> ClientApp:
    """Least squares by SGD with momentum; batches are drawn by absolute step, momentum is the node's own memory."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config: dict[str, Any] = dict(message.content.config_records["config"])
        partition, round = int(context.node_config["partition-id"]), config.get("server-round", 0)
        model = arrays_of(message.content.array_records["arrays"])
        memory, steps = NodeState(context, "momentum"), steps_of(message)
        speed = memory.load() if steps.start else None
        speed = {name: np.zeros_like(array) for name, array in model.items()} if speed is None else speed
        done, loss, asks = 0, 0.0, None
        for step in steps:
            rng = np.random.default_rng([partition, round, step])
            x = rng.standard_normal((BATCH, 3), dtype=np.float32)
            error = x @ model["w"] + model["b"] - (x.sum(axis=1) + partition)
            loss += float(np.mean(error**2))
            for name, gradient in (("w", x.T @ error / BATCH), ("b", error.mean(keepdims=True))):
                speed[name] = np.float32(0.9) * speed[name] - np.float32(config.get("lr", 0.05)) * gradient
                model[name] = model[name] + speed[name]
            done += 1
            if asks := (wishes or {}).get((partition, step + 1)):
                break
        memory.save(speed)
        metrics: dict[str, Any] = {"num-examples": done * BATCH, "steps": done, "train_loss": loss / max(done, 1)}
        content = RecordDict({"arrays": record_of(model), "metrics": MetricRecord(metrics)})
        return Message(request(content, asks, load=0.9) if asks else content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=message)

    return app


class Counting(WrappedGrid):
    """Passes everything on and keeps the config of every message."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.sent: list[tuple[int, dict[str, Any], int]] = []
        self.ids: list[str] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            config = dict(message.content.config_records.get("config", ConfigRecord()))
            self.sent.append((message.metadata.dst_node_id, config, len(message.content.array_records)))
        ids = list(self.inner.push_messages(messages))
        self.ids += ids
        return ids

    def steps(self, node_id: int) -> list[tuple[int, int]]:
        return [(c["step-start"], c["step-stop"]) for node, c, _ in self.sent if node == node_id and "step-start" in c]


def order_to(node_id: int, steps: int = 10, **config: Any) -> Message:
    records = RecordDict({"arrays": record_of(START), "config": ConfigRecord({"local-steps": steps, **config})})
    return Message(records, node_id, "train")


def model_of(reply: Message) -> bytes:
    assert len(reply.content.array_records) == 1, "exactly one record of arrays, as a strategy checks"
    (record,) = reply.content.array_records.values()
    return b"".join(array.data for array in record.values())


def asked(
    decide: Decide | None = None,
    *,
    messages: Callable[[], list[Message]] = lambda: [order_to(1000)],
    wishes: Wishes | None = None,
    nodes: int = 3,
    size: int = 4,
    script: Iterable[Fault] = (),
    **options: Any,
) -> tuple[list[Message], SteppedGrid, Counting]:
    """One exchange over a stepped grid: the replies, the grid, and the grid inside that has seen every slice."""
    with LocalGrid(learner(wishes), nodes=nodes, script=script) as local:
        counting = Counting(local)
        grid = SteppedGrid(counting, size, decide, poll_s=0.002, **options)
        sent = messages()
        replies = list(grid.send_and_receive(sent, timeout=30))
        known = {message.metadata.message_id for message in sent}
        assert {reply.metadata.reply_to_message_id for reply in replies} <= known
        return replies, grid, counting


def alone(steps: int, node: int = 1000, **config: Any) -> Message:
    """The reply of a node asked for so many steps in one message."""
    with LocalGrid(learner(), nodes=node - 999) as local:
        (reply,) = local.send_and_receive([order_to(node, steps, **config)])
        return reply


def federation(
    steps_per_message: int | None, pool: Literal["sequential", "threads"], serialise: bool, wishes: Wishes | None = None
) -> tuple[Result, SteppedGrid | None]:
    with LocalGrid(learner(wishes), nodes=4, pool=pool, serialise=serialise) as local:
        grid = None if steps_per_message is None else SteppedGrid(local, steps_per_message, poll_s=0.002)
        result = FedAvg(fraction_evaluate=0.5).start(
            grid=grid or local,
            initial_arrays=record_of(START),
            num_rounds=3,
            timeout=60,
            train_config=ConfigRecord({"local-steps": 7, "lr": 0.05}),
        )
        return result, grid


def final(result: Result) -> bytes:
    return b"".join(array.data for array in result.arrays.values())
