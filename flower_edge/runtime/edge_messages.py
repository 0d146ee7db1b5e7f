"""What passes between a centre and an edge, and what an edge keeps between two visits: values, no behaviour.

The order is the record with which the centre tells an edge what to do; `Done` what some edge rounds have brought;
`Kept` what an edge needs to go on alone. `EdgeRounds` acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from ..wire import records_from_tree, records_to_tree

__all__ = [
    "COUNTED_NODES",
    "COUNTED_ORDER",
    "COUNTED_WEIGHTS",
    "EDGE_RECORD",
    "EVALUATES_KEY",
    "EVENTS_KEY",
    "LAYER_PREFIX",
    "LINKS_KEY",
    "SCHEMA",
    "WEIGHT_KEY",
    "Done",
    "Kept",
    "Order",
    "edge_order",
]

#: Record of a centre's message that tells the edge what to do, and of an edge's reply that tells how it went.
EDGE_RECORD = "flower-edge.edge"
#: Version of both records.
SCHEMA = "flower-edge.edge/1"
#: Before the names of what the layers around the terminals measured in this cloud round so far.
LAYER_PREFIX = "layer."
#: In the record of an edge's reply: what happened there, one JSON text per event.
EVENTS_KEY = "events"
#: In the record of an edge's reply: links between its terminals after its last edge round, see `LinkTable.to_json`.
LINKS_KEY = "links"
#: In the record of an edge host's reply: whether its strategy evaluates at all.
EVALUATES_KEY = "evaluates"
#: n_e in the reply's metrics.
WEIGHT_KEY = "num-examples"
#: In the record of an edge's reply, where terminals move, lists of one length: terminals, their weights, and when each
#: was accepted, a number that grows.
COUNTED_NODES, COUNTED_WEIGHTS, COUNTED_ORDER = "counted-nodes", "counted-weights", "counted-order"


def edge_order(
    cell: str,
    cloud_round: int,
    first_edge_round: int,
    edge_rounds: int,
    timeout_s: float,
    seed: int | None,
    version: int = 0,
) -> ConfigRecord:
    """The record with which the centre tells an edge what to do.

    `first_edge_round` numbers the edge rounds through the whole run, so that terminals and inner strategies see a
    `server-round` that never repeats, and with κ2 = 1 the one that flat training would show them. `version` numbers
    the centre's model that comes with it.
    """
    order = ConfigRecord(
        {
            "schema": SCHEMA,
            "cell": cell,
            "cloud-round": cloud_round,
            "first-edge-round": first_edge_round,
            "edge-rounds": edge_rounds,
            "timeout-s": float(timeout_s),
            "version": version,
        }
    )
    if seed is not None:
        order["seed"] = seed
    return order


@dataclass(frozen=True)
class Order:
    """What the centre wants, as `edge_order` wrote it."""

    cloud_round: int
    first_edge_round: int
    edge_rounds: int
    timeout_s: float
    seed: int | None
    version: int

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Order:
        """From the record in a message."""
        seed = record.get("seed")
        return cls(
            int(record["cloud-round"]),
            int(record["first-edge-round"]),
            int(record["edge-rounds"]),
            float(record["timeout-s"]),
            None if seed is None else int(seed),
            int(record["version"]),
        )


@dataclass(frozen=True)
class Done:
    """What some edge rounds have brought: the model, the weight of every terminal's last reply, and counts."""

    arrays: ArrayRecord
    weights: dict[int, float]
    asked: frozenset[int]
    metrics: MetricRecord | None
    trained: int
    sent: int
    failed: int
    trouble: str

    def followed_by(self, later: Done) -> Done:
        """These rounds and the ones after them, as one."""
        return Done(
            later.arrays,
            self.weights | later.weights,
            self.asked | later.asked,
            later.metrics if later.metrics is not None else self.metrics,
            self.trained + later.trained,
            self.sent + later.sent,
            self.failed + later.failed,
            later.trouble,
        )

    def to_tree(self) -> dict[str, Any]:
        """For a checkpoint."""
        records = RecordDict({"arrays": self.arrays})
        if self.metrics is not None:
            records["metrics"] = self.metrics
        return {
            "records": records_to_tree(records),
            "weights": [[node, weight] for node, weight in self.weights.items()],
            "asked": sorted(self.asked),
            "counts": [self.trained, self.sent, self.failed],
            "trouble": self.trouble,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Done:
        """Inverse of `to_tree`."""
        records = records_from_tree(tree["records"])
        weights, asked = dict(map(tuple, tree["weights"])), frozenset(tree["asked"])
        metrics = records.metric_records.get("metrics")
        trained, sent, failed = tree["counts"]
        return cls(records.array_records["arrays"], weights, asked, metrics, trained, sent, failed, tree["trouble"])


@dataclass(frozen=True)
class Kept:
    """The model the edge last sent up, the order it was for, and what was trained alone since."""

    order: Order
    arrays: ArrayRecord
    alone: Done | None = None

    def next_order(self) -> Order:
        """The order the edge gives itself: the same once more, numbers going on."""
        return replace(
            self.order,
            cloud_round=self.order.cloud_round + 1,
            first_edge_round=self.order.first_edge_round + self.order.edge_rounds,
        )

    def to_tree(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "order": asdict(self.order),
            "arrays": records_to_tree(RecordDict({"arrays": self.arrays})),
            "alone": None if self.alone is None else self.alone.to_tree(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Kept:
        """Inverse of `to_tree`."""
        alone = tree["alone"]
        return cls(
            Order(**tree["order"]),
            records_from_tree(tree["arrays"]).array_records["arrays"],
            None if alone is None else Done.from_tree(alone),
        )
