"""A federation whose terminals share training data, for tests of the layer `Shared`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.clients.sharing import share_data, sharing_mod, training_data
from flower_edge.runtime import LocalGrid
from flower_edge.sharing import SetSpec, TrainingSet
from flower_edge.strategies import Layered
from flower_edge.strategies.sharing.shared import Shared
from flower_edge.strategies.sharing.shared_state import SharedState
from flower_edge.wire import arrays_of, record_of

SPEC = SetSpec((3,), classes=8)
START = record_of({"w": np.zeros(3)})
FIRST = 1000


def own_set(context: Context, samples: int = 20, **card: Any) -> TrainingSet:
    """Twenty samples of one class; every number in them tells whose they are."""
    place = int(context.node_config["partition-id"])
    x = np.full((samples, 3), 10.0 * place, np.float32) + np.arange(samples, dtype=np.float32)[:, None] / 100
    return TrainingSet.of(x, np.full(samples, place), classes=8, **card)


def sharing_app(
    own: Callable[[Context], TrainingSet] = own_set,
    policy: str | None = "1",
    before: Callable[[Context, int], None] = lambda context, number: None,
) -> ClientApp:
    """Terminals that move the model to the mean of what they train on, and tell how much that is."""
    app = share_data(ClientApp(mods=[sharing_mod]), own, policy, clock=lambda: 100.0)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before(context, int(message.content["config"]["server-round"]))  # type: ignore[index, arg-type, call-overload]
        data = training_data(context, own(context))
        w = arrays_of(message.content.array_records["arrays"])["w"]
        w = w + 0.5 * (data.x.mean(axis=0) - w)
        metrics = MetricRecord({"num-examples": len(data), "classes": len(np.unique(data.y))})
        return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

    return app


def shared(policy: str | None = "1", **options: Any) -> Shared:
    return Shared(policy, **{"share": 0.1, "spec": SPEC, "clock": lambda: 50.0, **options})


class Seen(FedAvg):
    """FedAvg that keeps its Grid and what each node said it trained on."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.grid: Any = None
        self.trained: list[dict[int, tuple[int, int]]] = []

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: Any, grid: Any) -> Any:
        self.grid = grid
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        replies = list(replies)
        told = {reply.metadata.src_node_id - FIRST: reply.content["metrics"] for reply in replies}
        self.trained.append({node: (m["num-examples"], m["classes"]) for node, m in sorted(told.items())})
        assert all(set(reply.content) == {"arrays", "metrics"} for reply in replies)
        return super().aggregate_train(server_round, replies)


def run(
    layer: Shared, app: ClientApp, rounds: int = 1, nodes: int = 4, wrap: Callable[[Any], Any] = lambda grid: grid
) -> tuple[Seen, SharedState, list[Any]]:
    seen, told = Seen(), []

    class Telling(Shared):
        def events(self, state: SharedState) -> Any:
            found, state = super().events(state)
            told.extend(found)
            return found, state

    layer.__class__ = Telling
    with LocalGrid(app, nodes) as grid:
        Layered(seen, layer).start(wrap(grid), START, num_rounds=rounds)
    state: SharedState = seen.grid.states[0]
    return seen, state, [*told, *state.untold]


def words(events: Sequence[Any], what: str) -> list[str]:
    return [event.text for event in events if event.what == what]
