"""`Plan`: who trains which units in a round, at which rates, and whether splitting is worth it. Values only.

A step is one batch of one device. Its modelled time is compute_s + transfer_s + cloud_s: on the device, on its link
both ways with delays, and in the device's share of the cloud. Devices take their steps beside one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .budgets import History
from .capacity import Capacity

__all__ = ["Assignment", "DeviceView", "Plan"]


@dataclass(frozen=True)
class DeviceView:
    """What a planner sees of one device.

    Attributes:
        capacity: what it has left for the round that comes.
        samples: how many it has.
        history: what was measured of it, oldest first.
        up_links, down_links: shared links (`Cloud.links`) on its way to the cloud, and on the way back.
    """

    capacity: Capacity
    samples: int = 1
    history: History = field(default_factory=History)
    up_links: tuple[str, ...] = ()
    down_links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """One device's part of a plan.

    Attributes:
        cut: units 0 .. cut-1 are the device's; the number of units: all of them, nothing is sent, and there is no tail.
        up, down: configs of the codecs at the cut, for `WorkOrder`; None sends float32 as it is.
        codecs: name of the pair of codecs, for tables.
        up_bps, down_bps: reserved for this device while it trains; None: as fast as it goes.
        compute_s, transfer_s, cloud_s: modelled, of one step. NaN where a plan was made without knowing capacities.
        up_bits, down_bits: predicted, of one step.
        memory_bytes: estimated, on the device.
        reason: why this cut, in words.
    """

    cut: int
    up: Mapping[str, Any] | None = None
    down: Mapping[str, Any] | None = None
    codecs: str = "none"
    up_bps: float | None = None
    down_bps: float | None = None
    compute_s: float = math.nan
    transfer_s: float = math.nan
    cloud_s: float = math.nan
    up_bits: float = 0.0
    down_bits: float = 0.0
    memory_bytes: float = 0.0
    reason: str = ""

    @property
    def step_s(self) -> float:
        """Of one batch, all parts one after the other."""
        return self.compute_s + self.transfer_s + self.cloud_s


@dataclass(frozen=True)
class Plan:
    """A round's.

    Attributes:
        assignments: by the device's number.
        worth: whether training divided is quicker than plain federated training of the whole model on the devices.
        why: that, in a sentence with the numbers.
        train_s, transfer_s: budgets of one step that the plan keeps to: on a device, and on its link.
        round_s, whole_s: modelled seconds of a round: of this plan, and of plain federated training; moving halves and
            models, and merging, are in both. NaN where not known.
        round_bits, whole_bits: predicted bits that all devices send and get in such a round.
    """

    assignments: Mapping[int, Assignment]
    worth: bool
    why: str
    train_s: float = math.inf
    transfer_s: float = math.inf
    round_s: float = math.nan
    whole_s: float = math.nan
    round_bits: float = math.nan
    whole_bits: float = math.nan

    @property
    def step_s(self) -> float:
        """Of the slowest device: what the plan makes small."""
        return max(one.step_s for one in self.assignments.values())

    @property
    def spread_s(self) -> float:
        """Between the slowest and the fastest device's step.

        >>> Plan({0: Assignment(1, compute_s=2.0, transfer_s=0.5, cloud_s=0.0),
        ...       1: Assignment(2, compute_s=1.0, transfer_s=0.0, cloud_s=0.25)}, True, "").spread_s
        1.25
        """
        return self.step_s - min(one.step_s for one in self.assignments.values())
