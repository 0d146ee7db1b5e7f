"""Rules over what is known of a node and its reply: one row of names and values for the project's one `Rule`.

| names | where they come from |
|---|---|
| `reliability`, `accepted`, `refused`, `rounds` | the filter's own record of the node |
| what the operator knows: `location`, `app_valid`, … | `known=`, and nothing a node tells under the same name |
| static properties: `partition-id`, what a node's config says | `GridProxy` or `LocalGrid` |
| conditions: `memory_free_bytes`, `battery`, `data_age_s`, `num_examples`, … | told by the node |
| `reply_<metric>`: `reply_accuracy`, `reply_train_loss`, … | the metrics of the reply that is judged |
| `num_examples` | the weight of that reply, in place of what the node told before |
| `cell`, `now_s` | the edge, and the virtual time where there is one |

The later in the table gives way to the earlier where both know a name, so a node cannot speak for the operator.

Source: [4] ¶69-70: reliability, location and type of the terminal, resource capacity, size and timeliness of the data,
type and validity of the application.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from flower_edge.filtering.track_record import TrackRecord
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime.queries import conditions_of

from ..node_rows import rows_of

__all__ = ["Known", "row_of", "told_rows"]

#: What the operator knows of a node, by its key.
Known = Callable[[str], Mapping[str, Any]]


def told_rows(
    grid: Grid, nodes: Iterable[int], rules: Iterable[Rule], others: Mapping[int, Collection[str]], ask: bool
) -> dict[int, dict[str, Any]]:
    """What nodes are and tell, by id: their static properties, and their conditions where a rule needs them.

    Args:
        grid: where the nodes are.
        nodes: ids.
        rules: nodes are asked for their conditions only if one of these looks at a name that nobody else tells.
        others: names that others tell of a node, by its id.
        ask: whether they may be asked at all.
    """
    wanted = list(nodes)
    rows = rows_of(grid, wanted, ask=False)
    needed = {name for rule in rules for name in rule.names if not name.replace("-", "_").startswith("reply_")}
    needed -= TrackRecord().row(0).keys() | {"cell", "now_s"}
    if not ask or all(_has({*rows[node], *others[node]}, name) for node in wanted for name in needed):
        return rows
    told = rows_of(grid, wanted, ask=True)
    return {node: {**told[node], **rows[node]} for node in wanted}


def row_of(
    told: Mapping[str, Any],
    known: Mapping[str, Any],
    tracked: Mapping[str, float],
    round: Round,
    now_s: float | None,
    reply: Message | None = None,
    weight: float = 0.0,
) -> dict[str, Any]:
    """One node's row for a rule.

    Args:
        told: what `told_rows` has of it.
        known: what the operator knows of it.
        tracked: how it has done so far, as `TrackRecord.row`.
        round: the exchange.
        now_s: virtual time; `None` without a virtual clock.
        reply: what is judged; `None` before there is one.
        weight: of that reply.
    """
    row = dict(told)
    if reply is not None:
        if (conditions := conditions_of(reply)) is not None:
            row |= conditions.to_mapping()
        row["num_examples"] = weight
        for metrics in reply.content.metric_records.values():
            row |= {f"reply_{name.replace('-', '_')}": value for name, value in metrics.items()}
    return row | dict(known) | {"cell": round.cell, "now_s": now_s} | dict(tracked)


def _has(names: Collection[str], name: str) -> bool:
    return any(spelled in names for spelled in (name, name.replace("_", "-"), name.replace("-", "_")))
