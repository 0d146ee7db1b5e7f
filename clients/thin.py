"""`thin_client`: a terminal that trains in NumPy alone, for devices of 512 MB: perceptrons, logistic regression, SVMs.

    app = thin_client(lambda context: np.load("samples.npz").values())

One line makes a whole ClientApp: it trains, evaluates, tells its conditions, and keeps to the device's limits. Arrays
have the names and shapes of the torch models "mlp" and "logistic", so it is in one federation with devices that have
torch. Importing this module imports neither torch nor scipy, pandas or scikit-learn.

Nothing here knows a strategy. What the model looks like is in the arrays that come: whole, or a part by width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from numpy.typing import NDArray

from flower_edge.errors import ConfigError, DataError, ModelMismatch, ProtocolError
from flower_edge.models.numpy_mlp import LossName, NumpyMLP, evaluate, train
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.steps.messages import order_of, total_steps
from flower_edge.wire import arrays_of, record_of, server_round_of

from .availability import answer_availability
from .condition_policy import ConditionPolicy
from .conditions import ConditionsMod, Source, answer_conditions
from .measure import measure_conditions
from .policy_mod import PolicyMod
from .properties import answer_properties
from .steps import step_mod

__all__ = ["Settings", "ThinModel", "mlp_of", "thin_client"]

ThinModel = Literal["mlp", "logistic", "svm"]
#: Those of one layer, and what each is called.
_ONE_LAYER: Final = {"logistic": "logistic regression", "svm": "a linear support vector machine"}
#: Samples float [samples, ...] and their classes int64 [samples].
Data = Callable[[Context], Iterable[NDArray[Any]]]
#: Name of the momentum between the slices of a task, in the node's memory.
STATE: Final = "thin-velocity"
#: Config keys, and the setting each is; FedProx writes the last one.
_KEYS: Final = {
    "batch-size": "batch_size",
    "learning-rate": "learning_rate",
    "lr": "learning_rate",
    "momentum": "momentum",
    "weight-decay": "weight_decay",
    "proximal-mu": "proximal",
}


class Settings(NamedTuple):
    """How a thin client trains where the server's train config does not say otherwise.

    Attributes:
        batch_size: samples per step (config key `batch-size`).
        learning_rate: step size (`learning-rate` or `lr`).
        momentum: share of the last step that is kept, in [0, 1) (`momentum`).
        weight_decay: pull of all parameters towards 0 (`weight-decay`).
        proximal: mu of FedProx (`proximal-mu`, as Flower's FedProx writes it).
    """

    batch_size: int = 32
    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0

    def told_by(self, message: Message) -> Settings:
        """These, with what the config of a message says over them.

        Raises:
            ConfigError: a value that is no number.
        """
        told: dict[str, Any] = {}
        for record in message.content.config_records.values():
            for key in _KEYS.keys() & record.keys():
                value, whole = record[key], key == "batch-size"
                if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                    kind = "a whole number" if whole else "a number"
                    raise ConfigError(f"{key} = {value!r} in the train config: expected {kind}")
                told[_KEYS[key]] = value
        return self._replace(**told)


def thin_client(
    data: Data,
    *,
    model: ThinModel = "mlp",
    held_out: Data | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    mods: Iterable[Mod] = (),
    source: Source = measure_conditions,
    policy: ConditionPolicy | None = ConditionPolicy(),  # noqa: B008  (frozen: one for all is one for each)
    time_steps: bool = True,
) -> ClientApp:
    """A ClientApp that trains and evaluates with NumPy alone.

    It answers `train` (`local-steps` of the config, else one pass over the data), `evaluate`, and the questions after
    properties, conditions and availability. The metrics of training are `num-examples`, `train_loss` and `steps`, those
    of evaluation `num-examples`, `loss` and `accuracy`. Tasks may come in slices (`SteppedGrid`), models as parts by
    width (`SubModels`). The order of the samples follows from `seed`, the node's `partition-id` (its node id where it
    has none) and the server's round.

    Args:
        data: gives the samples, float [samples, ...], and their classes, whole numbers [samples]. It is called for
            every message: keep what is slow to load.
        model: "mlp", any number of layers; "logistic", exactly one; or "svm", exactly one with the hinge loss: a linear
            support vector machine, `weight_decay` being 1 / (C samples). How large it is the server says.
        held_out: data to evaluate on; `None` evaluates on `data`.
        settings: of training; the train config goes before them.
        seed: of the order of the samples.
        mods: of your own, before the client's: codecs, for example.
        source: of the conditions.
        policy: the device's limits; `None` has none, and trains whenever it is asked to.
        time_steps: tell the seconds of a training step; leave it out of a simulation that has to repeat.

    Raises:
        ConfigError: an unknown model, or a setting out of its range.

    In answer to a message (as an error reply): `ModelMismatch` for arrays that are no such model, `DataError` for
    samples that do not fit it, `ConfigError` for a train config that cannot be.

    >>> x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> app = thin_client(lambda context: (x, y), model="logistic", policy=None)
    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> start = record_of(NumpyMLP([2, 2]).arrays())
    >>> with LocalGrid(app, nodes=1) as grid:
    ...     (reply,) = grid.send_and_receive([Message(RecordDict({"arrays": start}), 1000, "evaluate")])
    >>> sorted(reply.content["metrics"])
    ['accuracy', 'loss', 'num-examples']
    """
    if model != "mlp" and model not in _ONE_LAYER:
        raise ConfigError(f"thin_client(model={model!r}): expected 'mlp', 'logistic' or 'svm'; others need torch")
    if seed < 0:
        raise ConfigError(f"thin_client(seed={seed}): use 0 or more")
    own, loss = settings or Settings(), _loss_of(model)
    limits = [] if policy is None else [PolicyMod(policy, source)]
    # The policy stands before what it may keep from happening, the conditions behind it: there they time the training.
    app = ClientApp(mods=[*mods, *limits, step_mod, ConditionsMod(source, time_steps=time_steps)])
    answer_properties(app)
    answer_conditions(app, source)
    answer_availability(app, available=limits[0].available if limits else lambda context: True)

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        name, given = _given(message, model)
        x, y = _samples(data, context)
        how, order, (first, steps) = own.told_by(message), order_of(message), _steps(message)
        memory = NodeState(context, STATE)
        goes_on = order is not None and not order.begins
        done = train(
            given,
            x,
            y,
            steps=steps,
            epochs=1 if steps is None else None,
            batch_size=how.batch_size,
            lr=how.learning_rate,
            seed=derive_seed(seed, _who(context), server_round_of(message) or 0),
            momentum=how.momentum,
            proximal=how.proximal,
            weight_decay=how.weight_decay,
            first_step=first,
            velocity=_kept(memory, given) if goes_on and how.momentum else None,
            loss=loss,
        )
        if how.momentum and order is not None:
            memory.save(dict(done.velocity))
        metrics = MetricRecord({"num-examples": done.examples, "train_loss": done.loss, "steps": done.steps})
        return Message(RecordDict({name: record_of(given.arrays()), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate_here(message: Message, context: Context) -> Message:
        _, given = _given(message, model)
        x, y = _samples(held_out or data, context)
        found = evaluate(given, x, y, batch_size=256, loss=loss)
        metrics = MetricRecord({"num-examples": found.examples, "loss": found.loss, "accuracy": found.accuracy})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def mlp_of(arrays: dict[str, NDArray[Any]], model: ThinModel = "mlp") -> NumpyMLP:
    """The model that these arrays are, whatever its size.

    Args:
        arrays: `linear0.weight` [units out, units in], `linear0.bias` [units out], and so on, in any order.
        model: "logistic" and "svm" take one layer only.

    Raises:
        ModelMismatch: other names, shapes that do not follow from one another, or a number that is not finite.

    >>> mlp_of(NumpyMLP([4, 3, 2]).arrays()).sizes
    (4, 3, 2)
    """
    layers = len(arrays) // 2
    names = [f"linear{layer}.{part}" for layer in range(layers) for part in ("weight", "bias")]
    if not layers or set(names) != set(arrays):
        shown = ", ".join(sorted(arrays)[:6]) or "none"
        raise ModelMismatch(
            f"arrays {shown}; a thin client trains linear0.weight, linear0.bias, linear1.weight, ...: "
            "make the server's model with make_model('mlp', ...) or 'logistic'"
        )
    if model in _ONE_LAYER and layers > 1:
        raise ModelMismatch(
            f"a model of {layers} layers came, and this client is for {_ONE_LAYER[model]}; "
            "thin_client(..., model='mlp') takes any number of layers"
        )
    sizes = [np.shape(arrays["linear0.weight"])[-1] if np.ndim(arrays["linear0.weight"]) == 2 else 0]
    for layer in range(layers):
        weight, bias = (np.shape(arrays[f"linear{layer}.{part}"]) for part in ("weight", "bias"))
        if len(weight) != 2 or not weight[0] or not weight[1] or weight[1] != sizes[-1] or bias != weight[:1]:
            raise ModelMismatch(
                f"linear{layer}: weight {weight} and bias {bias} behind {sizes[-1]} units; "
                "expected [units out, units in] and [units out]"
            )
        sizes.append(weight[0])
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ModelMismatch(
                f"{name!r} ({array.dtype}) has numbers that are not finite; the server's model is broken"
            )
    found = NumpyMLP(sizes)
    found.load(arrays)
    return found


def _loss_of(model: ThinModel) -> LossName:
    return "hinge" if model == "svm" else "cross-entropy"


def _given(message: Message, model: ThinModel) -> tuple[str, NumpyMLP]:
    """Name of the record the model came in, and the model."""
    records = message.content.array_records
    if len(records) != 1:
        raise ProtocolError(
            f"the message brings {len(records)} records of arrays; a thin client takes its model in one"
        )
    ((name, record),) = records.items()
    return name, mlp_of(arrays_of(record), model)


def _samples(data: Data, context: Context) -> tuple[NDArray[Any], NDArray[np.int64]]:
    x, y = (np.asarray(part) for part in data(context))
    if y.dtype.kind not in "iu":
        raise DataError(f"classes of type {y.dtype}; a thin client classifies: give whole numbers from 0 on")
    return x, y.astype(np.int64, copy=False)


def _steps(message: Message) -> tuple[int, int | None]:
    """The first step, and how many; `None` is one pass over the data."""
    if (order := order_of(message)) is not None:
        return order.steps.start, len(order.steps)
    found = total_steps(message.content)
    return 0, None if found is None else found[1]


def _kept(memory: NodeState, model: NumpyMLP) -> dict[str, NDArray[Any]]:
    """The momentum of the slice before; at rest where the parameter has another shape now."""
    before = memory.load() or {}
    return {
        name: before[name] if name in before and np.shape(before[name]) == array.shape else np.zeros_like(array)
        for name, array in model.arrays().items()
    }


def _who(context: Context) -> int:
    partition = context.node_config.get("partition-id", context.node_id)
    return int(partition)
