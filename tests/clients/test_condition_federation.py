"""Thin, torch, warm, hot and empty devices in one federation: who declines is no failure, and claims earn nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum

from flower_edge.clients.condition_policy import ConditionPolicy
from flower_edge.clients.conditions import ConditionsMod
from flower_edge.clients.policy_mod import PolicyMod
from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.clients.thin import thin_client
from flower_edge.conditions import Conditions
from flower_edge.errors import NobodyAdmitted
from flower_edge.models import EvalResult, NumpyMLP, evaluate, get_arrays, make_model, set_arrays, train
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.runtime import LocalGrid
from flower_edge.selection import Pipeline
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import Admitted, Hierarchical, Layered, Selected, blocks
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.wire import arrays_of, record_of

FINE = Conditions(load=0.1, battery=0.9, charging=False, temperature_c=50.0, memory_free_bytes=10**9)
RULE = np.random.default_rng(5).normal(size=(6, 3))
SIZES = (6, 8, 3)


def samples(node: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([9, node]).normal(size=(count, 6)).astype(np.float32)
    return x, (x @ RULE).argmax(axis=1)


def own(context: Context) -> tuple[np.ndarray, np.ndarray]:
    return samples(int(context.node_config["partition-id"]))


def device(context: Context, now_s: float | None) -> Conditions:
    """Devices 0 to 3 are fine, 4 is warm, 5 is hot, 6 has an empty battery."""
    node = int(context.node_config["partition-id"])
    return replace(FINE, **{4: {"temperature_c": 72.5}, 5: {"temperature_c": 85.0}, 6: {"battery": 0.05}}.get(node, {}))


def devices(limits: ConditionPolicy | None, source: Any = device) -> ClientApp:
    """Thin ones, and two (0 and 1) with torch."""
    thin = thin_client(own, source=source, policy=limits, time_steps=False)
    mods = [] if limits is None else [PolicyMod(limits, source)]
    app = ClientApp()
    with_torch = ClientApp(mods=[*mods, step_mod, ConditionsMod(source, time_steps=False)])

    @with_torch.train()
    def train_torch(message: Message, context: Context) -> Message:
        model = make_model("mlp", input_shape=(6,), num_classes=3, seed=0, hidden=(8,))
        set_arrays(model, arrays_of(message.content["arrays"]))
        done = train(model, *own(context), steps=len(steps_of(message)), lr=0.1)
        metrics = MetricRecord({"num-examples": done.examples, "train_loss": done.loss, "steps": done.steps})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        return (with_torch if int(context.node_config["partition-id"]) < 2 else thin)(message, context)

    @app.evaluate()
    def evaluate_here(message: Message, context: Context) -> Message:
        return thin(message, context)

    @app.query("conditions")
    def conditions_here(message: Message, context: Context) -> Message:
        return thin(message, context)

    return app


def start(strategy: Any, app: ClientApp, rounds: int = 3, nodes: int = 7) -> Any:
    random.seed(1)
    with LocalGrid(app, nodes=nodes) as grid:
        return strategy.start(
            grid,
            record_of(NumpyMLP(SIZES, seed=1).arrays()),
            num_rounds=rounds,
            train_config=ConfigRecord({"local-steps": 8}),
        )


def accuracy(record: ArrayRecord) -> float:
    model = NumpyMLP(SIZES)
    model.load(arrays_of(record))
    return evaluate(model, *samples(99, 400)).accuracy


STRATEGIES: dict[str, Any] = {
    "FedAvg": FedAvg,
    "FedAdam": lambda: FedAdam(eta=0.05),
    "Krum": lambda: Krum(num_malicious_nodes=1),
    "Layered": lambda: Layered(FedAvg(), Admitted(most_examples=400)),
    "Selected": lambda: Layered(FedAvg(), Selected(Pipeline(6), seed=1)),
    "by conditions": lambda: Layered(FedAvg(), Selected(Pipeline(4, eligible="battery >= 0.3"), seed=1)),
    "Hierarchical": lambda: Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_thin_torch_warm_hot_and_empty_devices_are_one_federation_that_learns(name: str) -> None:
    pytest.importorskip("torch")
    before = accuracy(record_of(NumpyMLP(SIZES, seed=1).arrays()))
    result = start(STRATEGIES[name](), devices(ConditionPolicy()), rounds=4)
    assert accuracy(result.arrays) > before + 0.2


def test_a_declined_device_weighs_nothing_and_the_rest_is_merged_as_if_it_were_not_there() -> None:
    pytest.importorskip("torch")
    bare = {"fraction_evaluate": 0.0}
    with_all = start(FedAvg(**bare), devices(ConditionPolicy()), rounds=2).arrays
    without = start(FedAvg(**bare), devices(ConditionPolicy()), rounds=2, nodes=5).arrays
    for name, array in arrays_of(with_all).items():
        np.testing.assert_allclose(array, arrays_of(without)[name], atol=1e-6)


def test_rounds_that_everybody_declines_leave_the_model_as_it_was_and_three_in_a_row_end_the_run() -> None:
    rounds_run = [0]

    def cool_at_first(context: Context, now_s: float | None) -> Conditions:
        return FINE if rounds_run[0] < 1 else replace(FINE, temperature_c=90.0)

    def result(rounds: int) -> dict[str, np.ndarray]:
        def count(number: int, arrays: ArrayRecord) -> None:
            rounds_run[0] = number

        count(0, ArrayRecord())
        app = thin_client(own, source=cool_at_first, time_steps=False)
        random.seed(1)
        with LocalGrid(app, nodes=3) as grid:
            arrays = record_of(NumpyMLP(SIZES, seed=1).arrays())
            layered = Layered(FedAvg(fraction_evaluate=0.0))
            return arrays_of(layered.start(grid, arrays, num_rounds=rounds, evaluate_fn=count).arrays)

    one, three = result(1), result(3)
    assert one
    assert all(np.array_equal(array, three[name]) for name, array in one.items())
    with pytest.raises(NobodyAdmitted, match="it is 90 C hot"):
        result(4)


def test_nobody_is_paid_by_what_it_claims_of_itself(tmp_path: Any) -> None:
    pytest.importorskip("torch")

    def paid(source: Any, name: str) -> dict[str, int]:
        def measure(arrays: Any) -> EvalResult:
            model = NumpyMLP(SIZES)
            model.load(arrays)
            return evaluate(model, *samples(99, 100))

        with RewardBook(tmp_path / f"{name}.sqlite") as book:
            layer = Rewarded(
                measure, budget=Budget(1_000_000), book=book, run="r", enrolled=Enrolment(most_examples=400), seed=3
            )
            start(
                Layered(FedAvg(fraction_evaluate=0.0), layer), devices(ConditionPolicy(None), source), rounds=2, nodes=4
            )
            return dict(book.balances())

    boasting = Conditions(load=0.0, cpu_count=65_536, battery=1.0, charging=True, up_bps=1e15, memory_free_bytes=10**18)
    assert paid(lambda context, now_s: boasting, "boasting") == paid(lambda context, now_s: Conditions(), "silent")


def test_who_declines_is_not_paid_and_takes_nothing_from_the_others(tmp_path: Any) -> None:
    pytest.importorskip("torch")
    with RewardBook(tmp_path / "book.sqlite") as book:
        layer = Rewarded(lambda arrays: _score(arrays), budget=Budget(1_000_000), book=book, run="r", seed=3)
        start(Layered(FedAvg(fraction_evaluate=0.0), layer), devices(ConditionPolicy()), rounds=2)
        balances = dict(book.balances())
    assert balances.get("5", 0) == balances.get("6", 0) == 0
    assert sum(balances.values()) > 0


def _score(arrays: Any) -> EvalResult:
    model = NumpyMLP(SIZES)
    model.load(arrays)
    return evaluate(model, *samples(99, 100))
