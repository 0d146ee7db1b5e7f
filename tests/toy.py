"""A small real federation for tests: NumPy clients that learn, and every strategy Flower has.

The clients draw from generators seeded by (partition, server-round), so a run repeats on any Grid and in any process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

DIMENSION = 6


def initial_model(dtype: Any = np.float32) -> ArrayRecord:
    """A linear model: weights and bias, not zero."""
    rng = np.random.default_rng(0)
    return ArrayRecord(
        {
            "weight": Array(rng.normal(size=(DIMENSION,)).astype(dtype)),
            "bias": Array(np.zeros((1,), dtype)),
        }
    )


def _data(partition: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(100 + partition)
    x = rng.normal(size=(20 + 3 * partition, DIMENSION)) + 0.2 * partition
    y = x @ np.arange(1.0, DIMENSION + 1) + 0.5 + rng.normal(scale=0.1, size=len(x))
    return x, y


def _server_round(message: Message) -> int:
    return int(message.content["config"]["server-round"])  # type: ignore[index, arg-type, call-overload]


def toy_app(mods: list[Any] | None = None) -> ClientApp:
    """A ClientApp that trains a linear model by SGD on the node's own data, and counts its calls in its state."""
    app = ClientApp()

    @app.train(mods=mods or [])
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}  # type: ignore[union-attr]
        weight, bias = arrays["weight"].astype(np.float64), arrays["bias"].astype(np.float64)
        x, y = _data(partition)
        calls = context.state.get("calls")
        count = int(calls["n"]) if isinstance(calls, ConfigRecord) else 0  # type: ignore[arg-type]
        # The node's memory enters the result: a run that loses it ends with another model.
        rng = np.random.default_rng([partition, _server_round(message), count])
        for _ in range(5):
            batch = rng.choice(len(x), size=8, replace=False)
            error = x[batch] @ weight + bias - y[batch]
            weight -= 0.02 * (x[batch].T @ error) / len(batch)
            bias -= 0.02 * error.mean()
        context.state["calls"] = ConfigRecord({"n": count + 1})
        loss = float(np.mean((x @ weight + bias - y) ** 2))
        record = ArrayRecord(
            {
                "weight": Array(weight.astype(arrays["weight"].dtype)),
                "bias": Array(bias.astype(arrays["bias"].dtype)),
            }
        )
        metrics = MetricRecord({"num-examples": len(x), "train_loss": loss})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        x, y = _data(int(context.node_config["partition-id"]))
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}  # type: ignore[union-attr]
        error = x @ arrays["weight"] + arrays["bias"] - y
        metrics = MetricRecord({"num-examples": len(x), "loss": float(np.mean(error**2))})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def empty_trees() -> ArrayRecord:
    """What Flower's XGBoost strategies start from."""
    return ArrayRecord([np.frombuffer(b"", dtype=np.uint8)])


def tree_app() -> ClientApp:
    """A ClientApp in the shape of Flower's XGBoost examples: JSON boosters, one new tree a round."""
    app = ClientApp()

    def booster(partition: int, server_round: int, before: bytes) -> bytes:
        tree = {"id": 0, "leaf": round(float(np.random.default_rng([partition, server_round]).normal()), 6)}
        if before:
            model = json.loads(before)
            inner = model["learner"]["gradient_booster"]["model"]
            tree["id"] = len(inner["trees"])
        else:
            inner = {"gbtree_model_param": {"num_trees": "0", "num_parallel_tree": "1"}, "trees": [], "tree_info": []}
            inner["iteration_indptr"] = [0]
            model = {"learner": {"gradient_booster": {"model": inner}}}
        return json.dumps(_with_tree(model, tree)).encode()

    def _with_tree(model: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
        inner = model["learner"]["gradient_booster"]["model"]
        inner["trees"] = [tree]
        inner["tree_info"] = [0]
        inner["gbtree_model_param"]["num_trees"] = "1"
        inner["iteration_indptr"] = [0, 1]
        return model

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before = message.content["arrays"]["0"].numpy().tobytes()  # type: ignore[index, union-attr, call-overload]
        grown = booster(int(context.node_config["partition-id"]), _server_round(message), before)
        record = ArrayRecord([np.frombuffer(grown, dtype=np.uint8)])
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        size = len(message.content["arrays"]["0"].numpy())  # type: ignore[index, union-attr, call-overload]
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "size": size})}), reply_to=message)

    return app


Case = tuple[Callable[[], Strategy], Callable[[], ClientApp], Callable[[], ArrayRecord]]


def flower_strategies(nodes: int = 6, fraction: float = 0.5, minimum: int = 2) -> dict[str, Case]:
    """Every strategy in `flwr.serverapp.strategy`, with the client and the model it needs."""
    common: dict[str, Any] = {
        "fraction_train": fraction,
        "fraction_evaluate": fraction,
        "min_train_nodes": minimum,
        "min_evaluate_nodes": minimum,
        "min_available_nodes": minimum,
    }
    sampled = max(int(nodes * fraction), minimum)

    def dp(kind: str, **options: Any) -> Callable[[], Strategy]:
        return lambda: getattr(flower, kind)(flower.FedAvg(**common), **options)

    fixed = {"noise_multiplier": 0.1, "clipping_norm": 5.0, "num_sampled_clients": sampled}
    adaptive = {"noise_multiplier": 0.1, "num_sampled_clients": sampled}
    cases: dict[str, Case] = {
        name: (lambda name=name: getattr(flower, name)(**common), toy_app, initial_model)  # type: ignore[misc]
        for name in ("FedAvg", "FedMedian", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi", "Krum", "MultiKrum")
    }
    cases["FedAvgM"] = (lambda: flower.FedAvgM(**common, server_momentum=0.9), toy_app, initial_model)
    cases["FedTrimmedAvg"] = (lambda: flower.FedTrimmedAvg(**common, beta=0.1), toy_app, initial_model)
    cases["FedProx"] = (lambda: flower.FedProx(**common, proximal_mu=0.1), toy_app, initial_model)
    cases["Bulyan"] = (lambda: flower.Bulyan(**common), toy_app, initial_model)
    cases["QFedAvg"] = (
        lambda: flower.QFedAvg(client_learning_rate=0.1, train_loss_key="train_loss", **common),
        toy_app,
        initial_model,
    )
    cases["FedXgbBagging"] = (lambda: flower.FedXgbBagging(**common), tree_app, empty_trees)
    cases["FedXgbCyclic"] = (
        lambda: flower.FedXgbCyclic(min_available_nodes=minimum),
        tree_app,
        empty_trees,
    )
    for side, mods in (("Server", (None, None)), ("Client", (fixedclipping_mod, adaptiveclipping_mod))):
        for (kind, options), mod in zip((("Fixed", fixed), ("Adaptive", adaptive)), mods, strict=True):
            app = (lambda mod=mod: toy_app([mod])) if mod else toy_app  # type: ignore[misc]
            cases[f"DifferentialPrivacy{side}Side{kind}Clipping"] = (
                dp(f"DifferentialPrivacy{side}Side{kind}Clipping", **options),
                app,
                initial_model,
            )
    return cases


def same_model(one: ArrayRecord, other: ArrayRecord) -> bool:
    """Equal names, dtypes, shapes and bytes."""
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and one[name].numpy().tobytes() == other[name].numpy().tobytes()
        for name in one
    )
