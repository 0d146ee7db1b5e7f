"""`submodel`: the model a node was given, whole or smaller, out of the whole one that its program makes.

`model = submodel(message, make_model(...))` is the one line of a train function that differs from Flower's own: it
returns a model that is as deep and as wide as the arrays in the message and holds them. What is sent back is
`get_arrays(model)`, as always. Nothing here trains, and nothing is traced: shapes say all there is to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from flower_edge.errors import DataError, ProtocolError
from flower_edge.submodels.classes import CLASSES_RECORD, classes_to_values
from flower_edge.submodels.narrowed import narrowed
from flower_edge.submodels.order import SUBMODEL_RECORD, SubmodelOrder
from flower_edge.wire import arrays_of, record_of

__all__ = ["statistics_reply", "submodel", "submodel_order", "with_classes"]

Model = TypeVar("Model")


def submodel_order(message: Message) -> SubmodelOrder | None:
    """What the server says of the part it sent; `None` where it says nothing, which is the whole model.

    Raises:
        WireError: a record that is not what it should be.
    """
    record = message.content.config_records.get(SUBMODEL_RECORD)
    return None if record is None else SubmodelOrder.from_values(dict(record.items()))


def submodel(message: Message, model: Model) -> Model:
    """The model that this message asks to be trained or evaluated.

    Args:
        message: from `SubModels`, or any other: then it is the whole model.
        model: the whole one, a torch module or a `NumpyMLP`; it is not changed, and its numbers do not matter. Where
            some nodes have fewer layers it is one with exits: it has `at_depth(depth)`, as of `depth_model`.

    Returns:
        A copy with the message's arrays. While it trains, layers that are narrower divide their outputs by the rate,
        and BatchNorm keeps its running statistics as they are, where the strategy was told so.

    Raises:
        ProtocolError: not one record of arrays, or a depth for a model without exits.
        ModelMismatch: arrays that are not those of a part of this model.

    >>> from flower_edge.models import make_model
    >>> small = make_model("numpy-mlp", input_shape=(4,), num_classes=2, seed=0, hidden=(3,))
    >>> from flwr.clientapp import ClientApp
    >>> from flower_edge.runtime.local_grid import LocalGrid
    >>> with LocalGrid(ClientApp(), nodes=1):
    ...     message = Message(RecordDict({"arrays": record_of(small.arrays())}), 1, "train")
    >>> submodel(message, make_model("numpy-mlp", input_shape=(4,), num_classes=2, seed=0, hidden=(8,))).sizes
    (4, 3, 2)
    """
    records = list(message.content.array_records.values())
    if len(records) != 1:
        raise ProtocolError(f"the message brings {len(records)} records of arrays; a sub-model comes as one")
    order = submodel_order(message)
    if order is not None and order.depth:
        model = _at_depth(model, order.depth)
    return narrowed(model, arrays_of(records[0]), order)


def statistics_reply(message: Message, model: Any, x: NDArray[Any], *, batch_size: int = 64) -> Message:
    """The answer to `query.statistics`: BatchNorm's statistics of the model in the message, on these samples.

    Write `@app.query("statistics")` over a function that returns it; the server's half is `with_statistics`.

    Args:
        message: brings the model.
        model: the whole one, a torch module; it is not changed.
        x: the node's samples, [samples, ...].
        batch_size: samples at a time.

    Raises:
        DataError: fewer than two samples.
        ProtocolError, ModelMismatch: as `submodel`.
    """
    from flower_edge.submodels.statistics_torch import batch_statistics

    found = batch_statistics(submodel(message, model), x, batch_size=batch_size)
    metrics = MetricRecord({"num-examples": len(x)})
    content = RecordDict({"arrays": record_of(found), "metrics": metrics, "config": ConfigRecord()})
    return Message(content, reply_to=message)


def with_classes(content: RecordDict, y: NDArray[np.integer[Any]]) -> RecordDict:
    """The content of a reply that tells the server which classes the node has trained on: `SubModels(class_rows=...)`.

    Rows of other classes are then not merged from it. Which classes a node has is told in the clear.

    Args:
        content: of the reply; it is added to, and comes back.
        y: the node's targets, whole numbers of any shape.

    Raises:
        DataError: targets that are not whole numbers from 0 on.

    >>> with_classes(RecordDict(), np.array([7, 2, 7]))["flower-edge.classes"]
    {'classes': [2, 7]}
    """
    targets = np.asarray(y)
    if targets.dtype.kind not in "iu" or (targets.size and targets.min() < 0):
        raise DataError(f"targets of {targets.dtype}: expected whole numbers from 0 on, one for each sample")
    content[CLASSES_RECORD] = ConfigRecord(classes_to_values(targets))
    return content


def _at_depth(model: Model, depth: int) -> Model:
    at_depth: Callable[[int], Model] | None = getattr(model, "at_depth", None)
    if not callable(at_depth):
        raise ProtocolError(
            f"the message asks for depth {depth}, and {type(model).__name__} has no exits; make the model as the "
            "server does: submodel(message, depth_model(model, example, exits)), from flower_edge.submodels.depth_torch"
        )
    return at_depth(depth)
