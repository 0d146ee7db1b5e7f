"""`with_statistics`: BatchNorm's statistics of a finished model, asked of the nodes once. Nothing here trains.

With static normalisation (HeteroFL) training leaves running statistics as they were. Every node that can hold the whole
model tells those of its own data, in an answer to `query.statistics`, and the model takes their weighted mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import NobodyContributed, WireError
from flower_edge.runtime.wrapped_grid import undisturbed
from flower_edge.updates.npy import npy_view
from flower_edge.wire import arrays_of, error_reason, record_of, weight_of

__all__ = ["STATISTICS", "with_statistics"]

log = getLogger("flwr.edge")

#: Name of the query; a client answers it with `statistics_reply`.
STATISTICS = "statistics"


def with_statistics(
    grid: Grid, arrays: ArrayRecord, *, nodes: Iterable[int] | None = None, timeout_s: float | None = 3600.0
) -> ArrayRecord:
    """The model with the nodes' statistics in place of its own.

    Args:
        grid: where the nodes are.
        arrays: the whole model.
        nodes: ids of those to ask; `None` asks all. Leave out those that cannot hold the whole model.
        timeout_s: how long to wait.

    Raises:
        NobodyContributed: nobody answered well; the first reason is told.
    """
    asked = list(grid.get_node_ids() if nodes is None else nodes)
    content = RecordDict({"arrays": arrays, "config": ConfigRecord()})
    with undisturbed(grid):
        messages = [Message(content, node, f"query.{STATISTICS}") for node in asked]
        replies = list(grid.send_and_receive(messages, timeout=timeout_s))
    before = arrays_of(arrays)
    sums: dict[str, Any] = {}
    total, why = 0.0, "no reply"
    for reply in replies:
        try:
            found, weight = _read(reply, before)
        except WireError as error:
            why = str(error)
            log.warning("statistics of node %s are left out: %s", reply.metadata.src_node_id, error)
            continue
        total += weight
        for name, array in found.items():
            sums[name] = sums.get(name, 0.0) + weight * array.astype(np.float64)
    if total == 0.0:
        raise NobodyContributed(f"{len(asked)} nodes were asked for statistics; {why}", frozenset(asked))
    merged = {name: (array / total).astype(before[name].dtype) for name, array in sums.items()}
    return record_of({**before, **merged})


def _read(reply: Message, model: dict[str, Any]) -> tuple[dict[str, Any], float]:
    if reply.has_error():
        raise WireError(error_reason(reply))
    records = list(reply.content.array_records.values())
    weight = weight_of(reply, "num-examples")
    if len(records) != 1 or not 0.0 < weight < np.inf:
        raise WireError(
            f"{len(records)} records of arrays and a weight of {weight}; expected one, and a number above 0"
        )
    told = records[0]
    wanted = {name for name in model if name.endswith((".running_mean", ".running_var"))}
    if set(told) != wanted or any(tuple(told[name].shape) != model[name].shape for name in wanted):
        raise WireError(f"statistics {sorted(told)[:4]} of other layers than the model's, {sorted(wanted)[:4]}")
    found = {name: npy_view(told[name].data, told[name].dtype, model[name].shape) for name in told}
    for name, array in found.items():
        # The root of a variance below zero is NaN, and so is every answer of the model then.
        if array.dtype.kind != "f" or not np.isfinite(array).all() or (name.endswith("var") and array.min() < 0.0):
            raise WireError(f"statistics {name!r} that are not finite, or a variance below 0")
    return found, weight
