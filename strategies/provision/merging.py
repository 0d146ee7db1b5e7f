"""Replies of different widths as one reply of the whole model, for a strategy that knows nothing of widths.

By coordinate the weighted mean of those that hold it; a coordinate that nobody holds stays (`Merges`). Nothing here
chooses or sends.

Source: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021, equation 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import NestingError
from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.strategy_state import innermost
from flower_edge.updates.merges import Merges
from flower_edge.updates.update import Arrays, Update
from flower_edge.wire import record_of

__all__ = ["as_one", "check_means"]

#: Flower's strategies that take the weighted mean of models and look at nothing else of a single reply.
_MEANS = (flower.FedAvg, flower.FedAvgM, flower.FedAdagrad, flower.FedAdam, flower.FedYogi, flower.FedProx)


def check_means(strategy: Strategy) -> None:
    """Refuse a strategy that has to see single replies, whole and of one shape.

    Raises:
        NestingError: names it.
    """
    core = innermost(strategy)
    # The nearest of Flower's own: a subclass of somebody's own is taken to merge as that does.
    kind: Any = next((one for one in type(core).__mro__ if one.__module__.startswith("flwr.")), Strategy)
    starts = type(strategy).start is not Strategy.start
    if starts or core is not strategy or (kind is not Strategy and kind not in _MEANS):
        name = type(strategy).__name__
        why = "which runs its own rounds" if starts else "which looks at single replies of one shape"
        raise NestingError(
            f"SubModels around {name}, {why}; take a strategy of weighted means such as FedAvg or FedAdam, and layers "
            "around it: Layered(SubModels(FedAvg(), ...), layers)"
        )


def as_one(
    replies: Sequence[Message], updates: Sequence[Update], base: Arrays, key: str, metrics: MetricRecord
) -> Message:
    """One reply instead of these; it has the metadata of the first and the weight of all.

    Args:
        replies: at least one.
        updates: the same as numbers, with their weights.
        base: the whole model from before the round.
        key: the metric that weighs a reply.
        metrics: of all of them.
    """
    merged = Merges(base, updates).of(range(len(updates)))
    (name,) = replies[0].content.array_records
    (told,) = replies[0].content.metric_records
    weight = sum(update.weight for update in updates)
    content = RecordDict({name: record_of(merged), told: MetricRecord({**metrics, key: weight})})
    return clone_message(replies[0], content)
