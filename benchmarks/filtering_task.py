"""What gate, filter and rewards are measured on: digits, a 64-32-10 perceptron in NumPy, nodes with their own shares.

The 1,797 digits are dealt into three: 360 for testing, which nobody but the benchmark sees, 287 that the edge holds
out for its own tests, and 1,150 that the nodes have. The federation is a real one: ClientApps on a `LocalGrid`,
Flower's strategies, the layers around them. Nothing here attacks or filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from flower_edge.data.digits import load_digits
from flower_edge.data.partition import dirichlet
from flower_edge.models.numpy_mlp import NumpyMLP, evaluate, train
from flower_edge.models.results import EvalResult

__all__ = [
    "CLASSES",
    "NODES",
    "ROUNDS",
    "SIZES",
    "Shares",
    "accuracy_on_test",
    "arrays_of",
    "client_app",
    "equal_shares",
    "first_model",
    "held_out_score",
    "score_on_test",
    "uneven_shares",
]

NODES: Final = 20
ROUNDS: Final = 30
SIZES: Final = (64, 32, 10)
CLASSES: Final = 10
#: Local training, chosen once for FedAvg without an attack.
STEPS: Final = 10
BATCH: Final = 32
LEARNING_RATE: Final = 0.4
_HELD_OUT_SHARE: Final = 0.2
_LEAST: Final = 8


@dataclass(frozen=True, eq=False)
class Shares:
    """The data of a federation: x float32 [samples, 64], y int64 [samples].

    Attributes:
        nodes: x and y of each node.
        held_out: x and y that the edge has for its own tests.
        test: x and y of nobody.
        seed: of which it was dealt, and of everything the nodes draw.
    """

    nodes: tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...]
    held_out: tuple[NDArray[np.float32], NDArray[np.int64]]
    test: tuple[NDArray[np.float32], NDArray[np.int64]]
    seed: int

    @property
    def sizes(self) -> dict[str, int]:
        """Samples by the node's key, as text: what an operator enrols it with."""
        return {str(node): len(y) for node, (_, y) in enumerate(self.nodes)}


def uneven_shares(alpha: float, seed: int, nodes: int = NODES) -> Shares:
    """Every class is divided by Dirichlet(alpha), each node has at least 8 samples."""
    (x, y), held_out, test = _dealt(seed)
    parts = dirichlet(y, nodes, alpha=alpha, min_size=_LEAST, seed=seed).indices
    return Shares(tuple((x[part], y[part]) for part in parts), held_out, test, seed)


def equal_shares(noise: Sequence[float], seed: int) -> Shares:
    """Equally many samples of all classes at every node, of which a share has another label, drawn at random.

    Args:
        noise: by node, the share of wrong labels, 0 to 1.
        seed: of the deal.
    """
    (x, y), held_out, test = _dealt(seed)
    rng = np.random.default_rng([seed, 5])
    order = rng.permutation(len(y))
    size = len(y) // len(noise)
    dealt = []
    for node, share in enumerate(noise):
        part = order[node * size : (node + 1) * size]
        labels = y[part].copy()
        wrong = rng.permutation(size)[: round(share * size)]
        labels[wrong] = (labels[wrong] + rng.integers(1, CLASSES, len(wrong))) % CLASSES
        dealt.append((x[part], labels))
    return Shares(tuple(dealt), held_out, test, seed)


@cache
def _dealt(seed: int) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
    training, test = load_digits(seed=seed)
    x, y = training.x.reshape(len(training), -1), training.y
    held = round(_HELD_OUT_SHARE * len(y))
    order = np.random.default_rng([seed, 3]).permutation(len(y))
    own, rest = order[:held], order[held:]
    return (x[rest], y[rest]), (x[own], y[own]), (test.x.reshape(len(test), -1), test.y)


# -- the model -------------------------------------------------------------------------------------------------------


def first_model(seed: int) -> ArrayRecord:
    """A new model."""
    return ArrayRecord({name: Array(array) for name, array in NumpyMLP(SIZES, seed).arrays().items()})


def arrays_of(record: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """A model's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def _scored(arrays: Mapping[str, NDArray[Any]], data: tuple[NDArray[Any], NDArray[Any]]) -> EvalResult:
    model = NumpyMLP(SIZES)
    with np.errstate(all="ignore"):  # a model that was lost is scored, too
        model.load(arrays)
        return evaluate(model, *data)


def held_out_score(shares: Shares, arrays: Mapping[str, NDArray[Any]]) -> EvalResult:
    """What a model does on the edge's own data."""
    return _scored(arrays, shares.held_out)


def score_on_test(shares: Shares, arrays: Mapping[str, NDArray[Any]]) -> EvalResult:
    """What a model does on the test set."""
    return _scored(arrays, shares.test)


def accuracy_on_test(shares: Shares, arrays: Mapping[str, NDArray[Any]]) -> float:
    """Per cent of the test set that a model gets right."""
    return 100.0 * score_on_test(shares, arrays).accuracy


# -- the nodes -------------------------------------------------------------------------------------------------------


def client_app(shares: Shares, flipped: frozenset[int] = frozenset()) -> ClientApp:
    """The nodes' app: ten steps of SGD on their own data.

    Args:
        shares: the data.
        flipped: nodes whose labels are turned around, 9 - y: the attack on the data.
    """
    app = ClientApp()

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        round_ = int(message.content["config"]["server-round"])  # type: ignore[arg-type]
        model = NumpyMLP(SIZES)
        with np.errstate(all="ignore"):  # what an attack has left may be anything
            model.load(arrays_of(message.content["arrays"]))  # type: ignore[arg-type]
            x, y = shares.nodes[node]
            labels = CLASSES - 1 - y if node in flipped else y
            draws = int(np.random.default_rng([shares.seed, round_, node]).integers(2**31))
            done = train(model, x, labels, steps=STEPS, batch_size=BATCH, lr=LEARNING_RATE, seed=draws)
        record = ArrayRecord({name: Array(array) for name, array in model.arrays().items()})
        metrics = MetricRecord({"num-examples": len(y), "train_loss": done.loss if np.isfinite(done.loss) else 0.0})
        return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return app
