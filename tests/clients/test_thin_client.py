"""The thin client: NumPy alone, the torch models' arrays, any strategy, and nothing heavy in the process."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedProx
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.codec import codec_mod
from flower_edge.clients.thin import Settings, ThinModel, mlp_of, thin_client
from flower_edge.codecs import stc
from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError, ModelMismatch
from flower_edge.models import NumpyMLP, evaluate, train
from flower_edge.runtime import LocalGrid, SteppedGrid, ask_nodes, conditions_of
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.strategies import Admitted, Compressed, Layered
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.wire import arrays_of, record_of

SIZES = (6, 8, 3)
#: Kept once per class, as the rule to learn.
RULE = np.random.default_rng(5).normal(size=(6, 3))


def samples(node: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng([9, node]).normal(size=(count, 6)).astype(np.float32)
    return x, (x @ RULE).argmax(axis=1)


def own(context: Context) -> tuple[np.ndarray, np.ndarray]:
    return samples(int(context.node_config["partition-id"]))


def still(context: Context, now_s: float | None) -> Conditions:
    return Conditions(load=0.1, battery=0.9)


def thin(**options: Any) -> ClientApp:
    return thin_client(own, **{"source": still, "time_steps": False, **options})


def order(model: NumpyMLP, kind: str = "train", node: int = 1000, **config: Any) -> Message:
    return Message(RecordDict({"arrays": record_of(model.arrays()), "config": ConfigRecord(config)}), node, kind)


def run(strategy: Any, app: ClientApp, rounds: int = 3, sizes: tuple[int, ...] = SIZES, **config: Any) -> Any:
    start, train_config = record_of(NumpyMLP(sizes, seed=1).arrays()), ConfigRecord({"local-steps": 6, **config})
    random.seed(1)  # Flower samples with it, and the order of a sum is in its last bit
    with LocalGrid(app, nodes=4, raise_errors=True) as grid:
        return strategy.start(grid, start, num_rounds=rounds, train_config=train_config)


def model_of(record: ArrayRecord, sizes: tuple[int, ...] = SIZES) -> NumpyMLP:
    model = NumpyMLP(sizes)
    model.load(arrays_of(record))
    return model


# -- what is loaded --------------------------------------------------------------------------------------------------


def test_importing_and_making_a_thin_client_loads_no_torch_scipy_pandas_or_scikit_learn() -> None:
    script = (
        "import sys; from flower_edge.clients.thin import thin_client; thin_client(lambda context: ([], []));"
        "heavy = ('torch', 'scipy', 'pandas', 'sklearn', 'networkx', 'sqlalchemy', 'ray', 'matplotlib');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- training --------------------------------------------------------------------------------------------------------


def test_a_federation_of_thin_clients_learns() -> None:
    result = run(FedAvg(), thin(), rounds=8)
    x, y = samples(99, 400)
    assert evaluate(model_of(result.arrays), x, y).accuracy > 0.75 > evaluate(NumpyMLP(SIZES, seed=1), x, y).accuracy
    assert set(result.train_metrics_clientapp[1]) == {"train_loss", "steps"}
    assert set(result.evaluate_metrics_clientapp[1]) == {"loss", "accuracy"}


def test_one_seed_gives_one_model_and_another_seed_another() -> None:
    first, again, other = (run(FedAvg(), thin(seed=seed)).arrays for seed in (3, 3, 4))
    assert all(first[name].data == again[name].data for name in first)
    assert any(first[name].data != other[name].data for name in first)


def test_without_local_steps_a_round_is_one_pass_over_the_data() -> None:
    with LocalGrid(thin(settings=Settings(batch_size=16)), nodes=1, serialise=True, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([order(NumpyMLP(SIZES))])
    assert (reply.content["metrics"]["steps"], reply.content["metrics"]["num-examples"]) == (3, 40)


def test_what_the_train_config_says_goes_before_the_settings() -> None:
    def trained(app: ClientApp, **config: Any) -> Any:
        with LocalGrid(app, nodes=1, raise_errors=True) as grid:
            (reply,) = grid.send_and_receive([order(NumpyMLP(SIZES, seed=1), **{"local-steps": 4, **config})])
        return arrays_of(reply.content["arrays"])["linear0.weight"].tobytes()

    told = {"batch-size": 4, "learning-rate": 0.2, "momentum": 0.9, "weight-decay": 0.01, "proximal-mu": 0.1}
    same = Settings(batch_size=4, learning_rate=0.2, momentum=0.9, weight_decay=0.01, proximal=0.1)
    assert trained(thin(), **told) == trained(thin(settings=same))
    for key in told:
        assert trained(thin(), **told) != trained(thin(), **{k: v for k, v in told.items() if k != key}), key
    assert trained(thin(), lr=0.2) == trained(thin(), **{"learning-rate": 0.2})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lr": "fast"}, "lr = 'fast'"),
        ({"batch-size": 2.5}, "batch-size = 2.5"),
        ({"batch-size": True}, "batch-size = True"),
        ({"momentum": 1.5}, "momentum = 1.5"),
        ({"weight-decay": -1.0}, "weight_decay = -1"),
        ({"weight-decay": float("nan")}, "weight_decay = nan"),
        ({"local-steps": -1}, "local-steps = -1"),
    ],
)
def test_a_train_config_that_cannot_be_is_an_error_reply_that_names_it(config: dict[str, Any], said: str) -> None:
    with LocalGrid(thin(), nodes=1) as grid:
        (reply,) = grid.send_and_receive([order(NumpyMLP(SIZES), **{"local-steps": 2, **config})])
    assert said in reply.error.reason


def test_sliced_tasks_end_in_the_same_model_as_whole_ones_with_momentum() -> None:
    app = thin(settings=Settings(momentum=0.9, weight_decay=0.01))
    message = {"local-steps": 7}
    with LocalGrid(app, nodes=1, serialise=True, raise_errors=True) as grid:
        (whole,) = grid.send_and_receive([order(NumpyMLP(SIZES, seed=1), **message)])
        (sliced,) = SteppedGrid(grid, 3, poll_s=0.01).send_and_receive([order(NumpyMLP(SIZES, seed=1), **message)])
    assert all(whole.content["arrays"][name].data == array.data for name, array in sliced.content["arrays"].items())


def test_fedprox_of_flower_is_heard() -> None:
    near, far = (run(FedProx(proximal_mu=mu), thin(), rounds=1).arrays for mu in (5.0, 0.0))
    start = NumpyMLP(SIZES, seed=1).arrays()

    def moved(record: ArrayRecord) -> float:
        return sum(float(np.abs(array - start[name]).sum()) for name, array in arrays_of(record).items())

    assert moved(near) < 0.8 * moved(far)


# -- beside other devices, and behind what is there already ----------------------------------------------------------


def test_thin_and_torch_clients_of_one_federation_end_where_torch_alone_ends() -> None:
    pytest.importorskip("torch")
    from flower_edge.models import get_arrays, make_model, set_arrays

    thin_app = thin(settings=Settings(momentum=0.9, weight_decay=0.01))

    def train_torch(message: Message, context: Context) -> Message:
        model = make_model("mlp", input_shape=(6,), num_classes=3, seed=0, hidden=(8,))
        set_arrays(model, arrays_of(message.content["arrays"]))
        seed = derive_seed(0, int(context.node_config["partition-id"]), message.content["config"]["server-round"])
        done = train(model, *own(context), steps=6, lr=0.1, momentum=0.9, weight_decay=0.01, seed=seed)
        reply = {"num-examples": done.examples, "train_loss": done.loss, "steps": done.steps}
        content = RecordDict({"arrays": record_of(get_arrays(model)), "metrics": MetricRecord(reply)})
        return Message(content, reply_to=message)

    def mixed(message: Message, context: Context) -> Message:
        return (thin_app if int(context.node_config["partition-id"]) % 2 else train_torch)(message, context)

    def merged(trains: Callable[[Message, Context], Message]) -> ArrayRecord:
        app = ClientApp()
        app.train()(trains)
        found: ArrayRecord = run(FedAvg(fraction_evaluate=0.0), app).arrays
        return found

    alone, together = merged(train_torch), merged(mixed)
    assert list(alone) == list(together)
    for name, array in arrays_of(alone).items():
        np.testing.assert_allclose(arrays_of(together)[name], array, atol=2e-6, err_msg=name)


@pytest.mark.parametrize(("model", "hidden"), [("mlp", (8,)), ("logistic", ())])
def test_gradients_are_those_of_the_torch_model_of_the_same_name(model: str, hidden: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    from flower_edge.models import get_arrays, make_model

    zoo: Any = make_model(model, input_shape=(6,), num_classes=3, seed=2, **({"hidden": hidden} if hidden else {}))
    ours = mlp_of(get_arrays(zoo), "logistic" if model == "logistic" else "mlp")
    x, y = samples(0)
    torch.nn.functional.cross_entropy(zoo(torch.tensor(x)), torch.tensor(y)).backward()
    _, gradients = ours.loss_and_gradients(x, y)
    assert set(gradients) == {name for name, _ in zoo.named_parameters()}
    for name, parameter in zoo.named_parameters():
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), atol=1e-6, err_msg=name)


def test_each_thin_client_trains_the_width_it_was_given() -> None:
    widths = {"0": 1.0, "1": 0.5, "2": 0.25, "3": 1.0}
    result = run(SubModels(FedAvg(fraction_evaluate=0.0), mlp_groups(SIZES), assign=widths), thin(), rounds=8)
    x, y = samples(99, 400)
    assert evaluate(model_of(result.arrays), x, y).accuracy > 0.7


def test_codecs_and_the_gate_work_around_a_thin_client() -> None:
    plain = run(Layered(FedAvg(), Admitted()), thin(), rounds=2)
    coded = run(Layered(FedAvg(), Admitted(), Compressed(stc(0.5))), thin(mods=[codec_mod]), rounds=2)
    assert {name: a.shape for name, a in plain.arrays.items()} == {name: a.shape for name, a in coded.arrays.items()}
    assert any(plain.arrays[name].data != coded.arrays[name].data for name in plain.arrays)


def test_it_answers_what_servers_ask_and_tells_its_conditions_with_each_training_reply() -> None:
    with LocalGrid(thin(), nodes=2, serialise=True, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([order(NumpyMLP(SIZES), **{"local-steps": 1})])
        assert conditions_of(reply) == Conditions(load=0.1, battery=0.9)
        assert ask_nodes(grid, [1001], "conditions") == {1001: {"load": 0.1, "battery": 0.9}}
        assert ask_nodes(grid, [1001], "available") == {1001: {"available": True, "requests": False}}
        assert GridProxy(grid).properties(1001)["partition-id"] == 1


def test_evaluation_takes_the_held_out_data_where_there_are_some() -> None:
    with LocalGrid(thin(held_out=lambda context: samples(7, 25)), nodes=1, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([order(NumpyMLP(SIZES, seed=1), "evaluate")])
    found = evaluate(NumpyMLP(SIZES, seed=1), *samples(7, 25))
    assert dict(reply.content["metrics"]) == {"num-examples": 25, "loss": found.loss, "accuracy": found.accuracy}


# -- what comes ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), min_size=2, max_size=5), st.integers(0, 9))
@settings(max_examples=30)
def test_a_model_of_any_size_is_read_off_its_arrays_in_any_order(sizes: list[int], seed: int) -> None:
    model = NumpyMLP(sizes, seed)
    shuffled = dict(sorted(model.arrays().items(), key=lambda entry: hash((seed, entry[0]))))
    found = mlp_of(shuffled)
    assert found.sizes == model.sizes
    assert all(np.array_equal(array, found.arrays()[name]) for name, array in model.arrays().items())


GOOD = NumpyMLP(SIZES).arrays()


@pytest.mark.parametrize(
    ("arrays", "model", "said"),
    [
        ({}, "mlp", "arrays none"),
        ({"conv1.weight": np.zeros((2, 2))}, "mlp", "conv1.weight; a thin client trains linear0.weight"),
        ({**GOOD, "linear7.weight": np.zeros((1, 1))}, "mlp", "linear7.weight"),
        (GOOD, "logistic", "2 layers came"),
        ({**GOOD, "linear1.bias": np.zeros(4)}, "mlp", r"linear1: weight \(3, 8\) and bias \(4,\)"),
        ({**GOOD, "linear1.weight": np.zeros((3, 9))}, "mlp", "behind 8 units"),
        ({**GOOD, "linear0.weight": np.zeros(6)}, "mlp", r"linear0: weight \(6,\)"),
        ({**GOOD, "linear0.weight": np.zeros((8, 0))}, "mlp", r"weight \(8, 0\)"),
        ({**GOOD, "linear0.bias": np.full(8, np.nan, np.float32)}, "mlp", "'linear0.bias' .* not finite"),
        ({**GOOD, "linear0.bias": np.zeros(8, complex)}, "mlp", "complex128"),
    ],
)
def test_arrays_that_are_no_such_model_are_refused_with_the_reason(
    arrays: dict[str, np.ndarray], model: ThinModel, said: str
) -> None:
    with pytest.raises(ModelMismatch, match=said):
        mlp_of(arrays, model)


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected 'mlp', 'logistic' or 'svm'"):
        thin_client(own, model="lenet5")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed=-1"):
        thin_client(own, seed=-1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((np.zeros((4, 5), np.float32), np.zeros(4, np.int64)), "5 inputs; the model has 6"),
        ((np.zeros((4, 6), np.float32), np.zeros(4)), "classes of type float64"),
        ((np.zeros((4, 6), np.float32), np.full(4, 3)), "targets 3..3; the model has classes 0..2"),
        ((np.zeros((0, 6), np.float32), np.zeros(0, np.int64)), "no samples"),
    ],
)
def test_data_that_do_not_fit_are_an_error_reply_that_says_so(data: Any, said: str) -> None:
    with LocalGrid(thin_client(lambda context: data, source=still), nodes=1) as grid:
        (reply,) = grid.send_and_receive([order(NumpyMLP(SIZES), **{"local-steps": 2})])
    assert said in reply.error.reason


def test_two_records_of_arrays_are_refused() -> None:
    arrays = record_of(GOOD)
    with LocalGrid(thin(), nodes=1) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict({"a": arrays, "b": arrays}), 1000, "train")])
    assert "brings 2 records of arrays" in reply.error.reason
