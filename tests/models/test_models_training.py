"""What holds for every model, torch or not: learning, cutting a run into calls, carrying arrays about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flower_edge.data import Dataset, load_dataset
from flower_edge.errors import ConfigError, DataError, ModelMismatch
from flower_edge.models import MODELS, NumpyMLP, evaluate, get_arrays, make_model, set_arrays, train
from flower_edge.models.numpy_mlp import train as numpy_train

torch = pytest.importorskip("torch", reason="these models need torch")
pytest.importorskip("sklearn", reason="digits need scikit-learn")

Arrays = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def digits() -> tuple[Dataset, Dataset]:
    return load_dataset("digits")


@pytest.fixture(scope="module")
def digits28() -> tuple[Dataset, Dataset]:
    return load_dataset("digits", size=28)


@pytest.fixture(scope="module")
def text() -> tuple[Dataset, Dataset]:
    return load_dataset("characters")


def data_for(name: str, request: pytest.FixtureRequest) -> tuple[Dataset, Dataset]:
    fixture = {"lenet5": "digits28", "char-transformer": "text"}.get(name, "digits")
    pair: tuple[Dataset, Dataset] = request.getfixturevalue(fixture)
    return pair


def make(name: str, data: Dataset, seed: int = 0) -> Any:
    return make_model(name, input_shape=data.input_shape, num_classes=data.num_classes, seed=seed)


def assert_equal(one: Arrays, other: Arrays) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_n_steps_in_one_call_are_n_steps_in_several_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    data, _ = data_for(name, request)
    x, y = data.x[:30], data.y[:30]  # batches of 8, 8, 8, 6: cuts fall inside and between epochs
    how = {"batch_size": 8, "lr": 0.05, "momentum": 0.9, "proximal": 0.1, "seed": 3}
    whole, cut = make(name, data), make(name, data)
    start = get_arrays(cut)
    result = train(whole, x, y, steps=7, **how)

    velocity: Arrays | None = None
    made, losses, drawn = 0, 0.0, 0
    for steps in (1, 3, 0, 3):
        # A fresh model each time: nothing may be carried but arrays.
        fresh = make(name, data, seed=99)
        set_arrays(fresh, get_arrays(cut))
        part = train(fresh, x, y, steps=steps, first_step=made, velocity=velocity, anchor=start, **how)
        cut, velocity, made = fresh, part.velocity, made + part.steps
        losses, drawn = losses + part.loss * part.examples, drawn + part.examples
    assert_equal(get_arrays(cut), get_arrays(whole))
    assert velocity is not None
    assert_equal(velocity, result.velocity)
    assert (made, drawn) == (result.steps, result.examples) == (7, 8 + 8 + 8 + 6 + 8 + 8 + 8)
    assert losses / drawn == pytest.approx(result.loss)


def test_dropout_follows_seed_and_step_and_leaves_global_randomness_alone(digits: tuple[Dataset, Dataset]) -> None:
    data, _ = digits

    def model() -> Any:
        chain = make("mlp", data)
        return torch.nn.Sequential(chain[:3], torch.nn.Dropout(0.5), chain[3:])

    whole, cut, other = model(), model(), model()
    before = torch.random.get_rng_state()
    train(whole, data.x, data.y, steps=4, lr=0.1, seed=1)
    train(cut, data.x, data.y, steps=2, lr=0.1, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(5)
    train(cut, data.x, data.y, steps=2, lr=0.1, seed=1, first_step=2)
    train(other, data.x, data.y, steps=4, lr=0.1, seed=2)
    assert_equal(get_arrays(cut), get_arrays(whole))
    assert not np.array_equal(get_arrays(other)["2.linear1.weight"], get_arrays(whole)["2.linear1.weight"])


@pytest.mark.parametrize(
    ("name", "steps", "lr", "momentum", "least"),
    [
        ("logistic", 200, 0.1, 0.0, 0.85),
        ("mlp", 300, 0.1, 0.0, 0.88),
        ("numpy-mlp", 300, 0.1, 0.0, 0.88),
        ("cnn", 200, 0.05, 0.9, 0.90),
        ("resnet", 150, 0.1, 0.0, 0.90),
        ("lenet5", 150, 0.02, 0.9, 0.80),
        # The best guess from the last character alone is right 34 % of the time.
        ("char-transformer", 200, 0.1, 0.9, 0.50),
    ],
)
def test_training_learns(
    name: str, steps: int, lr: float, momentum: float, least: float, request: pytest.FixtureRequest
) -> None:
    data, test = data_for(name, request)
    model = make(name, data)
    before = evaluate(model, test.x, test.y)
    result = train(model, data.x, data.y, steps=steps, lr=lr, momentum=momentum)
    after = evaluate(model, test.x, test.y)
    assert before.accuracy < 0.3
    assert after.accuracy > least
    assert after.loss < before.loss
    assert (result.steps, after.examples) == (steps, len(test))
    assert all(np.isfinite(array).all() for array in get_arrays(model).values())


@pytest.mark.parametrize("name", MODELS)
def test_arrays_put_into_another_model_make_it_the_same_model(name: str, request: pytest.FixtureRequest) -> None:
    data, test = data_for(name, request)
    trained, other = make(name, data), make(name, data, seed=1)
    train(trained, data.x, data.y, steps=2)
    arrays = get_arrays(trained)
    assert any(not np.array_equal(arrays[key], array) for key, array in get_arrays(other).items())
    # Averaging gives float64, counters included.
    set_arrays(other, {key: array.astype(np.float64) for key, array in arrays.items()})
    assert_equal(get_arrays(other), arrays)
    assert {a.dtype for a in get_arrays(other).values()} == {a.dtype for a in arrays.values()}
    assert evaluate(other, test.x[:50], test.y[:50]) == evaluate(trained, test.x[:50], test.y[:50])
    first = next(iter(arrays))
    arrays[first][...] = 7.0
    assert not (get_arrays(trained)[first] == 7.0).any()


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_gives_one_model_and_leaves_global_randomness_alone(name: str, request: pytest.FixtureRequest) -> None:
    data, _ = data_for(name, request)
    before = torch.random.get_rng_state()
    one = get_arrays(make(name, data, seed=4))
    torch.rand(3)
    again, other = get_arrays(make(name, data, seed=4)), get_arrays(make(name, data, seed=5))
    torch.random.set_rng_state(before)
    make(name, data, seed=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert_equal(one, again)
    assert any(not np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", MODELS)
def test_arrays_of_another_model_are_refused_by_name(name: str, request: pytest.FixtureRequest) -> None:
    data, _ = data_for(name, request)
    model = make(name, data)
    before = get_arrays(model)
    first, *_ = before
    with pytest.raises(ModelMismatch, match=f"{first} is missing"):
        set_arrays(model, {key: array for key, array in before.items() if key != first})
    with pytest.raises(ModelMismatch, match="stray is unknown"):
        set_arrays(model, {**before, "stray": np.zeros(1)})
    with pytest.raises(ModelMismatch, match=rf"{first} has shape \(3, 1\), expected"):
        set_arrays(model, {**before, first: np.zeros((3, 1))})
    assert_equal(get_arrays(model), before)
    with pytest.raises(ModelMismatch, match="velocity of this model"):
        train(model, data.x, data.y, steps=1, momentum=0.9, velocity={})
    with pytest.raises(ModelMismatch, match="anchor"):
        train(model, data.x, data.y, steps=1, proximal=0.1, anchor={})


@pytest.mark.parametrize("name", ["mlp", "numpy-mlp"])
def test_a_strong_proximal_term_keeps_the_model_near_its_anchor(name: str, digits: tuple[Dataset, Dataset]) -> None:
    data, _ = digits
    start = get_arrays(make(name, data))

    def distance(proximal: float) -> float:
        model = make(name, data)
        train(model, data.x, data.y, steps=40, lr=0.1, proximal=proximal)
        return float(np.sqrt(sum(((after - start[key]) ** 2).sum() for key, after in get_arrays(model).items())))

    free, held, tight = (distance(mu) for mu in (0.0, 1.0, 5.0))
    assert tight < held / 2 < free / 4


@pytest.mark.parametrize("name", ["logistic", "numpy-mlp"])
def test_a_proximal_step_adds_mu_times_the_distance_to_the_anchor(name: str, digits: tuple[Dataset, Dataset]) -> None:
    data, _ = digits
    plain, held = make(name, data), make(name, data)
    start = get_arrays(plain)
    anchor = {key: array + 0.5 for key, array in start.items()}
    train(plain, data.x, data.y, steps=1, lr=0.2)
    train(held, data.x, data.y, steps=1, lr=0.2, proximal=0.3, anchor=anchor)
    for key, array in get_arrays(held).items():
        np.testing.assert_allclose(array - get_arrays(plain)[key], 0.2 * 0.3 * 0.5, rtol=0, atol=1e-6)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=4), st.integers(0, 2**16), st.sampled_from([0.0, 0.9]))
@settings(max_examples=15, deadline=None)
def test_numpy_and_torch_train_alike(sizes: list[int], seed: int, momentum: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(23, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], 23)
    ours = NumpyMLP(sizes, seed)
    theirs = make_model("mlp", input_shape=sizes[:1], num_classes=sizes[-1], seed=0, hidden=sizes[1:-1])
    set_arrays(theirs, ours.arrays())
    how = {"steps": 12, "batch_size": 5, "lr": 0.1, "momentum": momentum, "proximal": 0.05, "seed": seed}
    one, two = train(ours, x, y, **how), train(theirs, x, y, **how)
    assert one.loss == pytest.approx(two.loss, abs=1e-5)
    assert (one.steps, one.examples) == (two.steps, two.examples)
    for key, array in get_arrays(theirs).items():
        np.testing.assert_allclose(ours.arrays()[key], array, rtol=0, atol=1e-5)
        if momentum:
            np.testing.assert_allclose(one.velocity[key], two.velocity[key], rtol=0, atol=1e-5)
    mine, yours = evaluate(ours, x, y), evaluate(theirs, x, y)
    assert mine.loss == pytest.approx(yours.loss, abs=1e-5)
    assert mine.accuracy == yours.accuracy


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_gradients_are_the_slopes_of_the_loss(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = NumpyMLP(sizes, seed)
    x, y = rng.normal(size=(6, sizes[0])), rng.integers(0, sizes[-1], 6)
    arrays = model.arrays()
    _, gradients = model.loss_and_gradients(x, y)
    step = 1e-2

    def loss_at(shift: float, direction: Arrays) -> float:
        model.load({key: array + shift * direction[key] for key, array in arrays.items()})
        return model.loss_and_gradients(x, y)[0]

    def kinks() -> list[bool]:
        return [bool(unit) for a in model._forward(model._flat(x))[1:-1] for unit in (a > 0).ravel()]

    direction = {key: rng.normal(size=array.shape) / 10 for key, array in arrays.items()}
    up = loss_at(step, direction)
    above = kinks()
    down = loss_at(-step, direction)
    if above != kinks():
        return  # a ReLU switched in between: the loss has no slope there
    slope = (up - down) / (2 * step)
    predicted = sum(float((gradients[key] * direction[key]).sum()) for key in arrays)
    assert slope == pytest.approx(predicted, abs=1e-4)


def test_a_diverging_run_ends_in_nan_or_inf_and_raises_nothing(digits: tuple[Dataset, Dataset]) -> None:
    data, _ = digits
    for name in ("mlp", "numpy-mlp"):
        model = make(name, data)
        train(model, data.x * 1e6, data.y, steps=20, lr=1e6)
        assert not all(np.isfinite(array).all() for array in get_arrays(model).values())


@pytest.mark.parametrize("name", ["mlp", "numpy-mlp"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"lr": 0.0}, "lr = 0.0"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"proximal": -0.1}, "proximal = -0.1"),
        ({"epochs": 1}, "give one of the two"),
    ],
)
def test_bad_rates_are_refused_by_value(
    name: str, how: dict[str, Any], message: str, digits: tuple[Dataset, Dataset]
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(make(name, digits[0]), digits[0].x, digits[0].y, steps=1, **how)


def test_data_that_do_not_fit_the_model_are_refused(
    digits: tuple[Dataset, Dataset], text: tuple[Dataset, Dataset]
) -> None:
    mlp = NumpyMLP([3, 2])
    x, y = digits[0].x[:4], digits[0].y[:4]
    with pytest.raises(DataError, match="64 inputs; the model has 3"):
        numpy_train(mlp, x, np.zeros(4, np.int64), steps=1)
    with pytest.raises(DataError, match=r"the model has classes 0\.\.1"):
        numpy_train(mlp, x[:, 0, 0, :3], y + 2, steps=1)
    with pytest.raises(DataError, match="use 'char-transformer'"):
        evaluate(mlp, text[0].x, text[0].y)
    with pytest.raises(DataError, match="sequences need a model for sequences"):
        evaluate(make("mlp", digits[0]), x, np.zeros((4, 3), np.int64))
    for model in (mlp, make("mlp", digits[0])):
        with pytest.raises(DataError, match="0 samples and 0 targets"):
            evaluate(model, x[:0], y[:0])
        with pytest.raises(ConfigError, match="batch_size = 0"):
            evaluate(model, x, y, batch_size=0)


def test_evaluation_leaves_the_model_as_it_was(digits: tuple[Dataset, Dataset]) -> None:
    data, test = digits
    model = make("resnet", data)
    before = get_arrays(model)
    all_at_once = evaluate(model, test.x, test.y, batch_size=1000)
    in_parts = evaluate(model, test.x, test.y, batch_size=7)
    assert model.training
    assert_equal(get_arrays(model), before)
    assert all_at_once.accuracy == in_parts.accuracy
    assert all_at_once.loss == pytest.approx(in_parts.loss, rel=1e-5)


def test_read_only_data_train_without_a_warning(digits: tuple[Dataset, Dataset]) -> None:
    data, _ = digits
    x, y = data.x[:20].copy(), data.y[:20].copy()
    x.flags.writeable = y.flags.writeable = False
    model = make("cnn", data)
    assert train(model, x, y, epochs=2, batch_size=6).steps == 8
    assert evaluate(model, x, y).examples == 20


def test_an_averaged_counter_comes_back_as_the_nearest_whole_number(digits: tuple[Dataset, Dataset]) -> None:
    model = make("resnet", digits[0])
    arrays = get_arrays(model)
    assert arrays["norm.num_batches_tracked"].dtype == np.int64
    set_arrays(model, {**arrays, "norm.num_batches_tracked": np.array(2.7)})
    assert get_arrays(model)["norm.num_batches_tracked"] == 3
