"""Support vector machines: values that a federation learns need not be a network's. Hinge loss, thin client, gossip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients import gossip_mod
from flower_edge.clients.thin import Settings, thin_client
from flower_edge.conditions import Conditions
from flower_edge.control import Equal
from flower_edge.errors import ConfigError, ModelMismatch
from flower_edge.models import NumpyMLP, evaluate
from flower_edge.models import numpy_mlp as mlp
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.strategies import Gossip
from flower_edge.wire import arrays_of, record_of

CLASSES, FEATURES, LAMBDA = 3, 4, 0.02
CENTRES = np.random.default_rng(1).normal(scale=2.5, size=(CLASSES, FEATURES))


def samples(node: int, count: int = 60, classes: tuple[int, ...] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds that overlap a little."""
    rng = np.random.default_rng([4, node])
    y = rng.choice(np.array(classes), count).astype(np.int64)
    return (CENTRES[y] + rng.normal(size=(count, FEATURES))).astype(np.float32), y


def objective(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """What a linear support vector machine minimises, in float64 and by the definition."""
    z = x.astype(float) @ weight.T + bias
    worst = [max(z[i, k] + (k != y[i]) for k in range(CLASSES)) - z[i, y[i]] for i in range(len(y))]
    return float(LAMBDA / 2 * ((weight**2).sum() + (bias**2).sum()) + np.mean(worst))


# -- the loss --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(FEATURES, CLASSES), (FEATURES, 5, CLASSES)]))
def test_its_gradient_is_that_of_differences(seed: int, sizes: tuple[int, ...]) -> None:
    model, (x, y) = NumpyMLP(sizes, seed=seed), samples(seed, 6)
    loss, gradients = model.loss_and_gradients(x, y, loss="hinge")
    rng = np.random.default_rng(seed)
    way = {name: rng.choice([-1.0, 1.0], array.shape) for name, array in model.arrays().items()}
    start, h = model.arrays(), 1e-3

    def at(t: float) -> float:
        model.load({name: start[name] + t * way[name] for name in start})
        return model.loss_and_gradients(x, y, loss="hinge")[0]

    slope = sum(float((gradients[name] * way[name]).sum()) for name in start)
    # Convex between kinks: the slope lies between those to either side, wherever one of the samples passes its margin.
    right, left = (at(h) - loss) / h, (loss - at(-h)) / h
    if len(sizes) == 2:
        assert left - 2e-2 <= slope <= right + 2e-2
    else:
        assert slope == pytest.approx((left + right) / 2, abs=max(0.05, abs(right - left)))


def test_who_is_outside_of_the_margin_has_no_say() -> None:
    model = NumpyMLP([2, 2])
    model.load({"linear0.weight": np.eye(2), "linear0.bias": np.zeros(2)})
    x, y = np.array([[1.5, 0.0], [0.0, 1.0], [3.0, 2.5]], np.float32), np.array([0, 1, 0])
    loss, gradients = model.loss_and_gradients(x, y, loss="hinge")
    assert loss == pytest.approx(0.5 / 3)  # the third is right, by 0.5 instead of 1
    np.testing.assert_allclose(gradients["linear0.bias"], [-1 / 3, 1 / 3])
    assert evaluate(model, x, y).accuracy == 1.0
    assert mlp.evaluate(model, x, y, loss="hinge").loss == pytest.approx(loss)


def test_one_layer_reaches_the_optimum_of_a_known_solver() -> None:
    svm = pytest.importorskip("sklearn.svm", reason="the solver to compare with is scikit-learn's")
    x, y = samples(7, 120)
    solver = svm.LinearSVC(
        C=1 / (LAMBDA * len(y)), multi_class="crammer_singer", max_iter=50_000, tol=1e-6, random_state=0
    ).fit(x.astype(float), y)
    best = objective(solver.coef_, solver.intercept_, x, y)
    model, done = NumpyMLP([FEATURES, CLASSES]), 0
    for lr, steps in [(0.5, 200), (0.1, 400), (0.02, 600), (0.005, 800)]:
        mlp.train(
            model, x, y, steps=steps, batch_size=len(y), lr=lr, weight_decay=LAMBDA, loss="hinge", first_step=done
        )
        done += steps
    found = objective(model.arrays()["linear0.weight"], model.arrays()["linear0.bias"], x, y)
    assert best - 1e-6 <= found <= 1.01 * best


def test_another_loss_is_refused_by_name() -> None:
    model, (x, y) = NumpyMLP([FEATURES, CLASSES]), samples(0)
    with pytest.raises(ConfigError, match=r"loss = 'squared': expected one of cross-entropy, hinge"):
        mlp.train(model, x, y, steps=1, loss="squared")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="loss = 'squared'"):
        mlp.evaluate(model, x, y, loss="squared")  # type: ignore[arg-type]


# -- on devices ------------------------------------------------------------------------------------------------------


def still(context: Context, now_s: float | None) -> Conditions:
    return Conditions(load=0.1, battery=0.9)


def thin(classes: Any = lambda node: (0, 1, 2), **options: Any) -> Any:
    def own(context: Context) -> tuple[np.ndarray, np.ndarray]:
        node = int(context.node_config["partition-id"])
        return samples(node, classes=classes(node))

    told = {"model": "svm", "source": still, "time_steps": False, "settings": Settings(weight_decay=LAMBDA), **options}
    return thin_client(own, **told)


def right(record: Any) -> float:
    model = NumpyMLP([FEATURES, CLASSES])
    model.load(arrays_of(record))
    return evaluate(model, *samples(99, 600)).accuracy


START = record_of(NumpyMLP([FEATURES, CLASSES], seed=2).arrays())
STEPS = ConfigRecord({"local-steps": 5})


def test_a_federation_of_support_vector_machines_learns_and_tells_its_own_loss() -> None:
    with LocalGrid(thin(), nodes=4, serialise=True, raise_errors=True) as grid:
        result = FedAvg().start(grid, START, num_rounds=10, train_config=STEPS)
    assert right(result.arrays) > 0.85 > right(START)
    model = NumpyMLP([FEATURES, CLASSES])
    model.load(arrays_of(result.arrays))
    losses = [mlp.evaluate(model, *samples(node), loss="hinge").loss for node in range(4)]
    assert result.evaluate_metrics_clientapp[10]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_machines_that_each_know_two_classes_of_three_learn_the_third_from_their_neighbours() -> None:
    def two(node: int) -> tuple[int, int]:
        return (node % 3, (node + 1) % 3)

    strategy = Gossip(Equal(), final="averaging", fraction_evaluate=0.0)
    with LocalGrid(thin(two, mods=[gossip_mod]), nodes=3, raise_errors=True) as grid:
        together = strategy.start(RoundClock(grid), START, 12, train_config=STEPS).arrays
    assert right(together) > 0.85
    for node in range(3):
        alone = NumpyMLP([FEATURES, CLASSES], seed=2)
        mlp.train(alone, *samples(node, classes=two(node)), steps=60, weight_decay=LAMBDA, loss="hinge")
        assert right(record_of(alone.arrays())) < 0.75


def test_a_machine_of_several_layers_is_refused_with_what_to_take() -> None:
    deep = record_of(NumpyMLP([FEATURES, 5, CLASSES]).arrays())
    with LocalGrid(thin(), nodes=1, raise_errors=True) as grid, pytest.raises(ModelMismatch, match="support vector"):
        FedAvg(min_train_nodes=1, min_available_nodes=1).start(grid, deep, num_rounds=1)
    with pytest.raises(ConfigError, match="'mlp', 'logistic' or 'svm'"):
        thin(model="tree")
