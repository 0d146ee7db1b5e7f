"""Terminals of several depths make one model: full depth is FedAvg, and what nobody holds stays."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from flower_edge.clients.submodel import submodel
from flower_edge.models import get_arrays, make_model
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import SubModels
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.depth_torch import DepthModel, depth_model
from flower_edge.submodels.depth_training_torch import train_exits
from flower_edge.submodels.sizes import Size
from flower_edge.wire import arrays_of, record_of

EXAMPLE = torch.zeros(2, 6)


@lru_cache(maxsize=1)
def deep() -> DepthModel:
    """Three exits; nobody changes it."""
    model = make_model("mlp", input_shape=(6,), num_classes=3, seed=0, hidden=(8, 8))
    assert not isinstance(model, DepthModel)
    return depth_model(model, EXAMPLE, 3)  # type: ignore[arg-type]


def data_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one node."""
    x = np.random.default_rng(50 + number).normal(size=(20 + 4 * number, 6)).astype(np.float32)
    return x, x[:, :3].argmax(axis=1).astype(np.int64)


def run(strategy: Strategy, rounds: int = 2, sent: dict[int, list[str]] | None = None) -> tuple[Any, list[Any]]:
    """The arrays after a run of four nodes, and what each of them sent back in the last round, by node."""
    app = ClientApp()
    replies: dict[int, Any] = {}

    @app.train()
    def train_(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        model = submodel(message, deep())
        if sent is not None:
            sent[number] = list(model.state_dict())
        x, y = data_of(number)
        train_exits(model, x, y, steps=3, batch_size=8, lr=0.1, seed=number)
        replies[number] = (len(x), get_arrays(model))
        metrics = MetricRecord({"num-examples": len(x)})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    random.seed(3)
    with LocalGrid(app, 4) as grid:
        result = strategy.start(grid, record_of(get_arrays(deep())), num_rounds=rounds)
    return arrays_of(result.arrays), [replies[number] for number in range(4)]


def _same(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", [FedAvg, FedAdam])
@pytest.mark.parametrize("assign", [1.0, Size(depth=3), Size()])
def test_full_depth_for_all_is_the_strategy_alone_bit_for_bit(kind: type[FedAvg], assign: Any) -> None:
    alone, _ = run(kind(fraction_evaluate=0.0))
    around, _ = run(SubModels(kind(fraction_evaluate=0.0), None, assign=assign, depths=deep().depths()))
    assert _same(alone, around)


def test_each_node_is_sent_its_depth_and_each_array_is_the_mean_of_those_that_hold_it() -> None:
    depths = deep().depths()
    held = {0: 1, 1: 2, 2: 2, 3: 1}
    sent: dict[int, list[str]] = {}
    assign = {str(number): Size(depth=depth) for number, depth in held.items()}
    found, replies = run(SubModels(FedAvg(fraction_evaluate=0.0), None, assign=assign, depths=depths), 1, sent)
    begun = get_arrays(deep())
    assert all(sent[number] == list(depths.names(depth)) for number, depth in held.items())
    for name in depths.names(0):
        of = [reply for number, reply in enumerate(replies) if name in depths.names(held[number])]
        if of:
            total = sum(count for count, _ in of)
            mean = sum(count / total * arrays[name].astype(np.float64) for count, arrays in of)
            np.testing.assert_allclose(found[name], mean, rtol=1e-6, atol=1e-7)
        else:
            assert name in ("linear2.weight", "linear2.bias")  # depth 3 was nobody's
            assert np.array_equal(found[name], begun[name])


def test_width_and_depth_mix() -> None:
    model = deep()
    groups = width_groups(model, EXAMPLE)
    assign = {"0": Size(0.5, 1), "1": Size(0.25, 2), "2": Size(0.5), "3": Size(1.0, 3)}
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), groups, assign=assign, depths=model.depths())
    found, replies = run(strategy)
    assert {name: array.shape for name, array in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert replies[0][1]["linear0.weight"].shape == (4, 6)
    assert replies[1][1]["exits.relu1.linear.weight"].shape == (3, 2)
    assert replies[2][1]["linear2.weight"].shape == (3, 4)
    assert "linear1.weight" not in replies[0][1]
    begun = get_arrays(model)
    assert all(not np.array_equal(found[name], begun[name]) for name in found)
