"""What a round of gradient exchanges was like, in numbers: nodes' own metrics, bits, ratios. Nothing here decides.

Bits are those of packets and models that really travelled, with their headers and check sums, not Flower's framing. A
ratio is the bits of dense gradients (in the model's own dtype) in as many messages, over the bits that travelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message

from flower_edge.errors import WireError
from flower_edge.wire import weight_of

__all__ = ["Figures"]


@dataclass
class Figures:
    """Counts of a round, and of the whole run.

    Attributes:
        weighted_by: name of the metric that others are weighted by.
        now: counts of this round, by name: each is a sum.
        total: of the whole run.
        means: sums of nodes' metrics in this round, and of their weights, by name.
    """

    weighted_by: str
    now: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    means: dict[str, tuple[float, float]] = field(default_factory=dict)

    def count(self, **amounts: float) -> None:
        """Add to this round."""
        for name, amount in amounts.items():
            self.now[name] = self.now.get(name, 0.0) + amount
            self.total[name] = self.total.get(name, 0.0) + amount

    def note(self, reply: Message) -> None:
        """A node's own metrics, by its weight; a reply without a gradient has none."""
        try:
            weight = weight_of(reply, self.weighted_by)
        except WireError:
            return
        if not 0.0 <= weight < math.inf:
            return
        for record in reply.content.metric_records.values():
            for name, value in record.items():
                if name != self.weighted_by and isinstance(value, int | float):
                    amount, of = self.means.get(name, (0.0, 0.0))
                    self.means[name] = (amount + weight * value, of + weight)

    def take(self) -> dict[str, float]:
        """The numbers of the round that ends, and a new one begins."""
        found = {name: amount / of if of else math.nan for name, (amount, of) in self.means.items()}
        found |= self.now
        for prefix, counts in (("", self.now), ("total_", self.total)):
            found |= {f"{prefix}{name}": ratio for name, ratio in _ratios(counts).items()}
        self.now, self.means = {}, {}
        return found

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, between two rounds."""
        return {"total": dict(self.total)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.now, self.means, self.total = {}, {}, dict(state["total"])


def _ratios(counts: Mapping[str, float]) -> dict[str, float]:
    """Dense bits over bits, of every direction that was counted, and of both."""
    found: dict[str, float] = {}
    dense, sent = 0.0, counts.get("model_bits", 0.0)
    for way in ("up", "down", "peer"):
        bits = counts.get(f"{way}_bits", 0.0)
        if bits:
            found[f"{way}_ratio"] = counts.get(f"{way}_dense_bits", 0.0) / bits
        dense, sent = dense + counts.get(f"{way}_dense_bits", 0.0), sent + bits
    if sent:
        found["round_trip_ratio"] = dense / sent
    return found
