"""By which of a reply's metrics it weighs: what it says, and whether strategy and layer look at the same one."""

from __future__ import annotations

import math

from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import NestingError
from flower_edge.runtime.strategy_state import innermost

from ..hierarchy.hierarchical import Hierarchical

__all__ = ["check_weighted_by", "weight_told"]


def check_weighted_by(layer: str, strategy: Strategy, weighted_by: str) -> None:
    """Refuse a strategy that weighs by another metric than the layer looks at.

    Raises:
        NestingError: names both, and what to write.
    """
    core = innermost(strategy)
    key = None if isinstance(core, Hierarchical) else getattr(core, "weighted_by_key", None)
    if key is not None and key != weighted_by:
        raise NestingError(
            f"{type(core).__name__} weighs replies by {key!r}, and {layer} looks at {weighted_by!r}; "
            f"write {layer}(weighted_by={key!r})"
        )


def weight_told(content: RecordDict, weighted_by: str) -> float:
    """What a reply says it weighs; 1 where it says nothing, NaN where it is not one number."""
    for record in content.metric_records.values():
        if weighted_by in record:
            value = record[weighted_by]
            try:
                return float(value) if isinstance(value, int | float) else math.nan
            except OverflowError:
                return math.inf
    return 1.0
