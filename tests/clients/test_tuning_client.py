"""The terminal's half of tuning: what was proposed, what is reported, and a federation without gradients."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from toy import initial_model, toy_app

from flower_edge.clients.tuning import proposed, report
from flower_edge.data.digits import load_digits
from flower_edge.errors import ConfigError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder
from flower_edge.strategies import Layer, Layered
from flower_edge.strategies.tuned import Tuned
from flower_edge.tuning import HYPERPARAMETER_RECORD, PROPOSED_KEY, Count, LogScale, local_search
from flower_edge.wire import arrays_of, record_of


def message(content: RecordDict) -> Message:
    with LocalGrid(toy_app(), 1):
        return Message(content, 1000, "train")


def test_only_what_the_server_tunes_is_a_proposal() -> None:
    config = ConfigRecord({"server-round": 3, "lr": 0.1, "momentum": 0.9, PROPOSED_KEY: ["lr"]})
    assert proposed(message(RecordDict({"arrays": initial_model(), "config": config}))) == {"lr": 0.1}


@pytest.mark.parametrize(
    "config",
    [{}, {"lr": 0.1}, {"lr": 0.1, PROPOSED_KEY: "lr"}, {PROPOSED_KEY: ["lr"]}, {"lr": b"x", PROPOSED_KEY: ["lr"]}],
    ids=str,
)
def test_where_nothing_is_proposed_nothing_is_read(config: dict[str, Any]) -> None:
    assert proposed(message(RecordDict({"config": ConfigRecord(config)}))) == {}
    assert proposed(message(RecordDict())) == {}


def test_an_error_has_no_proposal() -> None:
    with LocalGrid(toy_app(), 1):
        assert proposed(Message(Error(2, "no"), reply_to=message(RecordDict()))) == {}


def test_a_report_leaves_the_content_it_was_given_as_it_is() -> None:
    content = RecordDict({"arrays": initial_model(), "metrics": MetricRecord({"num-examples": 3})})
    told = report(content, {"lr": np.float64(0.1)}, score=1)
    assert list(content) == ["arrays", "metrics"]
    assert list(told) == ["arrays", "metrics", HYPERPARAMETER_RECORD]
    assert dict(told.config_records[HYPERPARAMETER_RECORD].items()) == {"lr": 0.1, "validation-score": 1.0}
    with pytest.raises(ConfigError, match="finite"):
        report(content, {"lr": 0.1}, score=float("inf"))


# -- without gradients -----------------------------------------------------------------------------------------------

TERMINALS = 3


def noisy_share(terminal: int) -> tuple[Any, Any]:
    """Digits of one terminal, of whose labels three in ten are drawn anew."""
    digits, _ = load_digits(seed=0)
    rng = np.random.default_rng(terminal)
    x, y = digits.x.reshape(len(digits), -1)[terminal::6], digits.y[terminal::6].copy()
    wrong = rng.random(len(y)) < 0.3
    y[wrong] = rng.integers(0, 10, wrong.sum())
    return x, y


def federate(make: Any, layer: Layer[Any], first: ArrayRecord, rounds: int, tmp_path: Any) -> tuple[Any, list[Any]]:
    """The model in the end, and what was proposed after each round; `make` fits one trial: (values, x, y) -> model."""
    app = ClientApp()
    shares = [noisy_share(terminal) for terminal in range(TERMINALS)]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        terminal = int(context.node_config["partition-id"])
        config = message.content.config_records["config"]
        rng = np.random.default_rng([terminal, int(config["server-round"])])  # type: ignore[arg-type]
        x, y = shares[terminal]
        held = rng.permutation(len(y)) < len(y) // 4
        kinds = {name: kind for name, kind in layer.kinds.items() if name in proposed(message)}  # type: ignore[attr-defined]

        def try_one(values: dict[str, Any]) -> float:
            return float(make(values, x[~held], y[~held]).score(x[held], y[held]))

        found = local_search(proposed(message), kinds, try_one, rng)
        model = make(dict(found.values), x, y)
        arrays = {"coef": getattr(model, "coef_", np.zeros(1)), "intercept": getattr(model, "intercept_", np.zeros(1))}
        content = RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord({"num-examples": len(y)})})
        return Message(report(content, found.values, found.score), reply_to=message)

    random.seed(1)
    with LocalGrid(app, TERMINALS) as grid, RunFolder.create("tuning", config={}, seed=1, root=tmp_path) as folder:
        strategy = Layered(FedAvg(fraction_evaluate=0.0), layer)
        arrays = strategy.start(grid, first, num_rounds=rounds, run=folder).arrays
        events = [row.values for row in folder.rows("event")]
    assert [event["reports"] for event in events] == [TERMINALS] * rounds
    return arrays_of(arrays), events


def test_the_k_of_a_k_nn_grows_where_labels_are_wrong(tmp_path: Any) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")

    def make(values: dict[str, Any], x: Any, y: Any) -> Any:
        return neighbors.KNeighborsClassifier(values["k"]).fit(x, y)

    empty = record_of({"coef": np.zeros(1), "intercept": np.zeros(1)})
    _, events = federate(make, Tuned({"k": Count(1, 31, step=2)}, {"k": 1}), empty, 4, tmp_path)
    k = events[-1]["tuned_k"]
    _, test = load_digits(seed=0)
    flat, right = test.x.reshape(len(test), -1)[:150], test.y[:150]

    def accuracy(k: int) -> float:
        models = [make({"k": k}, *noisy_share(terminal)) for terminal in range(TERMINALS)]
        return float(np.mean([model.score(flat, right) for model in models]))

    assert k > 1
    assert accuracy(k) > accuracy(1) + 0.08


def test_a_linear_models_regularisation_is_tuned_beside_its_coefficients(tmp_path: Any) -> None:
    linear = pytest.importorskip("sklearn.linear_model")

    def make(values: dict[str, Any], x: Any, y: Any) -> Any:
        return linear.RidgeClassifier(alpha=values["alpha"]).fit(x, y)

    def tuned() -> Tuned:
        return Tuned({"alpha": LogScale(1e-4, 1e3, step=8.0)}, {"alpha": 1e-3})

    zero = record_of({"coef": np.zeros((10, 64)), "intercept": np.zeros(10)})
    arrays, events = federate(make, tuned(), zero, 6, tmp_path)
    assert arrays["coef"].shape == (10, 64)
    assert events[-1]["tuned_alpha"] > 0.01
