"""`submodel`: one line of a train function; a federation of three widths learns what no node can learn alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from flower_edge.clients.submodel import statistics_reply, submodel, submodel_order
from flower_edge.data import load_dataset, make_partition
from flower_edge.errors import ModelMismatch, NobodyContributed, ProtocolError, WireError
from flower_edge.models import NumpyMLP, evaluate, get_arrays, make_model, set_arrays, train
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies.provision.statistics import with_statistics
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.submodels.order import SUBMODEL_RECORD, SubmodelOrder
from flower_edge.wire import arrays_of, record_of

SIZES = (64, 32, 10)
RATES = {str(number): (1.0, 0.5, 0.25)[number % 3] for number in range(6)}


def message_of(*records: dict[str, Any], order: dict[str, Any] | None = None) -> Message:
    content: dict[str, Any] = {f"arrays{place}": record_of(arrays) for place, arrays in enumerate(records)}
    if order is not None:
        content[SUBMODEL_RECORD] = ConfigRecord(order)
    with LocalGrid(ClientApp(), 1):  # a message is one of a run
        return Message(RecordDict(content), 1, "train")


def test_a_message_of_any_strategy_brings_the_whole_model() -> None:
    given = NumpyMLP(SIZES, seed=3)
    model = NumpyMLP(SIZES)
    got = submodel(message_of(given.arrays()), model)
    assert got is not model
    assert got.sizes == SIZES
    assert all(np.array_equal(a, given.arrays()[name]) for name, a in got.arrays().items())
    assert submodel_order(message_of(given.arrays())) is None


def test_what_is_no_part_of_the_model_or_no_order_is_refused() -> None:
    with pytest.raises(ProtocolError, match="2 records of arrays"):
        submodel(message_of({}, {}), NumpyMLP(SIZES))
    with pytest.raises(ModelMismatch, match="same options"):
        submodel(message_of(NumpyMLP((64, 32, 9)).arrays()), NumpyMLP(SIZES))
    good = SubmodelOrder(0.5).to_values()
    with pytest.raises(WireError, match="depth = None, expected a int; install the same version"):
        submodel_order(message_of({}, order={name: value for name, value in good.items() if name != "depth"}))
    for wrong, wanted in (
        ({"depth": -1}, "depth -1"),
        ({"rate": "half"}, "rate = 'half'"),
        ({"rate": 2.0}, "none we know"),
        ({"how": "x"}, "'x'"),
    ):
        with pytest.raises(WireError, match=wanted):
            submodel_order(message_of({}, order={**good, **wrong}))


class _Shallow(nn.Module):
    """Two layers and two heads; of depth 1 it has the first of each."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(depth))

    def at_depth(self, depth: int) -> _Shallow:
        return _Shallow(depth)


def test_a_model_with_exits_is_given_as_deep_as_the_message_says() -> None:
    shallow = get_arrays(_Shallow(1))
    got = submodel(message_of(shallow, order=SubmodelOrder(1.0, depth=1).to_values()), _Shallow())
    assert list(got.state_dict()) == list(shallow)
    assert all(np.array_equal(get_arrays(got)[name], array) for name, array in shallow.items())
    whole = submodel(message_of(get_arrays(_Shallow()), order=SubmodelOrder(1.0).to_values()), _Shallow())
    assert len(whole.layers) == 2


def test_a_depth_for_a_model_without_exits_says_what_to_write() -> None:
    model = NumpyMLP(SIZES)
    with pytest.raises(ProtocolError, match=r"depth 1, and NumpyMLP has no exits; .* depth_model\(model, example"):
        submodel(message_of(model.arrays(), order=SubmodelOrder(1.0, depth=1).to_values()), model)


def test_three_widths_learn_digits_better_than_any_node_alone() -> None:
    inside, outside = load_dataset("digits", seed=0)
    parts = make_partition("classes-per-node", inside.y, 6, k=4, seed=0)
    app = ClientApp()

    def fit(model: NumpyMLP, number: int, seed: int, epochs: int) -> None:
        rows = parts[number]
        train(model, inside.x[rows], inside.y[rows], epochs=epochs, batch_size=16, lr=0.1, seed=seed)

    @app.train()
    def train_(message: Message, context: Context) -> Message:
        number, round_ = int(context.node_config["partition-id"]), message.content["config"]["server-round"]  # type: ignore[index, call-overload]
        model = submodel(message, NumpyMLP(SIZES))
        fit(model, number, 10 * int(round_) + number, 1)
        metrics = MetricRecord({"num-examples": len(parts[number])})
        return Message(RecordDict({"arrays": record_of(model.arrays()), "metrics": metrics}), reply_to=message)

    strategy = SubModels(FedAvg(fraction_evaluate=0.0), mlp_groups(SIZES), assign=RATES)
    with LocalGrid(app, 6) as grid:
        found = strategy.start(grid, record_of(NumpyMLP(SIZES).arrays()), num_rounds=15).arrays
    together = NumpyMLP(SIZES)
    together.load(arrays_of(found))
    alone = []
    for number in range(6):
        model = NumpyMLP((64, int(32 * RATES[str(number)]), 10))
        fit(model, number, 0, 15)
        alone.append(evaluate(model, outside.x, outside.y).accuracy)
    assert evaluate(together, outside.x, outside.y).accuracy > max(alone) + 0.2


def _normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def _normed_app(samples: dict[int, np.ndarray]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train_(message: Message, context: Context) -> Message:
        x = samples[int(context.node_config["partition-id"])]
        model = submodel(message, _normed())
        train(model, x, (x[:, 0] > 0).astype(np.int64), steps=3, batch_size=8, lr=0.1)
        metrics = MetricRecord({"num-examples": len(x)})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    @app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        return statistics_reply(message, _normed(), samples[int(context.node_config["partition-id"])], batch_size=8)

    return app


def test_running_statistics_stay_in_training_and_are_taken_at_the_end() -> None:
    rng = np.random.default_rng(0)
    samples = {n: rng.normal(n, 2.0, size=(16, 4)).astype(np.float32) for n in range(2)}
    torch.manual_seed(0)
    whole = _normed()
    groups = width_groups(whole, torch.randn(2, 4))
    with LocalGrid(_normed_app(samples), 2) as grid:
        strategy = SubModels(FedAvg(fraction_evaluate=0.0), groups, assign={"0": 1.0, "1": 0.5})
        trained = strategy.start(grid, record_of(get_arrays(whole)), num_rounds=2).arrays
        done = arrays_of(with_statistics(grid, trained))
    before = arrays_of(trained)
    assert before["1.running_mean"].tolist() == [0.0] * 8
    assert before["1.running_var"].tolist() == [1.0] * 8
    layer = before["0.weight"], before["0.bias"]
    means = [np.mean(samples[n] @ layer[0].T + layer[1], axis=0) for n in range(2)]
    assert np.allclose(done["1.running_mean"], np.mean(means, axis=0), atol=1e-4)
    assert all(np.array_equal(done[name], array) for name, array in before.items() if "running" not in name)


def test_statistics_that_nobody_can_tell_are_an_error() -> None:
    app = ClientApp()
    with LocalGrid(app, 2) as grid, pytest.raises(NobodyContributed, match="2 nodes were asked for statistics"):
        with_statistics(grid, record_of(get_arrays(_normed())))


def test_statistics_that_would_spoil_the_model_are_left_out() -> None:
    app, start = ClientApp(), get_arrays(_normed())
    told = {name: np.asarray(array) for name, array in start.items() if "running" in name}

    @app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        mean, variance = told["1.running_mean"] + 1.0, told["1.running_var"] * (-1.0 if place == 1 else 1.0)
        arrays = record_of({"1.running_mean": mean, "1.running_var": variance})
        if place == 2:
            arrays["1.running_var"] = Array("float32", (8,), "numpy.ndarray", b"not an npy file")
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 5})})
        return Message(content, reply_to=message)

    with LocalGrid(app, 3) as grid:
        done = arrays_of(with_statistics(grid, record_of(start)))
    assert done["1.running_mean"].tolist() == [1.0] * 8
    assert done["1.running_var"].tolist() == [1.0] * 8


def test_the_zoos_models_come_back_as_wide_as_they_were_sent() -> None:
    model = make_model("lenet5", input_shape=(1, 28, 28), num_classes=10, seed=0)
    small: Any = submodel(message_of(get_arrays(model)), model)
    set_arrays(small, get_arrays(model))
    assert list(ArrayRecord(small.state_dict())) == list(get_arrays(model))
