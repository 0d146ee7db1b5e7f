"""Many updates as one reply: their weighted mean, made without a model per node.

    model = Σ_v (W_v / W) x_v + Σ_i (w_i / W) u_i        W_v: of the replies against version v

For a strategy that takes a weighted mean this is what it would have made of the single replies, but for rounding, in
O(Σ k) for sparse updates. The one reply says whom it stands for, see `FOLDED_RECORD`. Nothing here decodes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from flower_edge.codecs.aggregate import Aggregator
from flower_edge.codecs.model_form import layout_of
from flower_edge.codecs.model_update import Model, moved
from flower_edge.errors import NestingError, WireError
from flower_edge.runtime.codec_messages import FOLDED_RECORD
from flower_edge.runtime.strategy_state import innermost
from flower_edge.wire import record_of, weight_of

from .uplink import Read

__all__ = ["check_folds", "foldable", "folded"]

#: Flower's strategies that take the weighted mean of models and nothing else of single replies.
_FOLD = (flower.FedAvg, flower.FedAvgM, flower.FedAdagrad, flower.FedAdam, flower.FedYogi, flower.FedProx)


def check_folds(strategy: Strategy) -> None:
    """Refuse a strategy that needs single replies.

    Raises:
        NestingError: names it.
    """
    core = innermost(strategy)
    # The nearest of Flower's own: a subclass of somebody's own is taken to merge as that does.
    kind = next((one for one in type(core).__mro__ if one.__module__.startswith("flwr.")), None)
    if core is not strategy or hasattr(strategy, "tier") or (kind is not Strategy and kind not in _FOLD):
        name = type(strategy).__name__
        raise NestingError(
            f"Compressed(fold=True) under {name}, which looks at single replies; leave fold out, "
            "or take a strategy of weighted means such as FedAvg or FedAdam"
        )


def foldable(read: Read, key: str) -> bool:
    """Whether a reply is an update with a weight; others go on by themselves."""
    if read.update is None or len(read.reply.content.metric_records) != 1:
        return False
    try:
        return 0 < weight_of(read.reply, key) < math.inf
    except WireError:
        return False


def folded(reads: list[Read], key: str) -> Message:
    """One reply instead of several; it has the metadata of the first.

    Args:
        reads: at least one, all `foldable`.
        key: the metric that weighs a reply.
    """
    weights = [weight_of(read.reply, key) for read in reads]
    first = reads[0]
    content = RecordDict({first.name: record_of(_mean_model(reads, weights))})
    (name, _), *_ = first.reply.content.metric_records.items()
    metrics = [next(iter(read.reply.content.metric_records.values())) for read in reads]
    content[name] = _mean_metrics(metrics, weights, key)
    nodes = [read.reply.metadata.src_node_id for read in reads]
    content[FOLDED_RECORD] = ConfigRecord({"nodes": nodes, "weights": [float(weight) for weight in weights]})
    first.reply.content = content
    return first.reply


def _mean_model(reads: list[Read], weights: list[float]) -> Model:
    bases = {read.base.number: read.base for read in reads if read.base is not None}
    shares = dict.fromkeys(bases, 0.0)
    first = next(iter(bases.values()))
    total = math.fsum(weights)
    mean = Aggregator(layout_of(first.form).size)
    rest: dict[str, Any] = {}
    for read, weight in zip(reads, weights, strict=True):
        assert read.base is not None
        assert read.update is not None
        mean.add(read.update, weight)
        shares[read.base.number] += weight / total
        for array_name, array in (read.rest or {}).items():
            # As Flower does: whole numbers become their mean.
            rest[array_name] = rest.get(array_name, 0) + array * (weight / total)
    base = first.model if len(bases) == 1 else _mean_base(bases, shares)
    return moved(base, {name: np.asarray(array) for name, array in rest.items()}, mean.mean())


def _mean_base(bases: dict[int, Any], shares: dict[int, float]) -> Model:
    first = next(iter(bases.values())).model
    return {
        name: np.asarray(
            sum(shares[number] * base.model[name].astype(np.float64) for number, base in bases.items()), like.dtype
        )
        if like.dtype.kind == "f"
        else like
        for name, like in first.items()
    }


def _mean_metrics(metrics: list[MetricRecord], weights: list[float], key: str) -> MetricRecord:
    """Means of what all replies tell, by weight, and the sum of the weights."""
    total = math.fsum(weights)
    out: dict[str, Any] = {}
    shares = np.array(weights) / total
    for name in metrics[0]:
        values: list[Any] = [record.get(name) for record in metrics]
        if name == key:
            out[name] = sum(values)
        elif all(isinstance(value, int | float) for value in values):
            out[name] = float(shares @ np.array(values, dtype=float))
        elif all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
            out[name] = (shares @ np.array(values, dtype=float)).tolist()
    return MetricRecord(out)
