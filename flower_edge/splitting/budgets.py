"""Time budgets of a training step, and what was measured of a device before: values, handed in and handed back.

The draft [3] lets the cloud set T_train, how long a device may compute for one batch, and T_trans, how long its
transfers may take, "according to history". Here that is a quantile of what past rounds took. Nothing here plans.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from ..errors import SplitError
from .capacity import Capacity

__all__ = ["BudgetRule", "Budgets", "History", "QuantileBudgets"]


@dataclass(frozen=True)
class History:
    """What was measured of one device, oldest first.

    Attributes:
        flops_per_s, up_bps, down_bps, delay_s: as in `Capacity`.
        compute_s, transfer_s: of one step: on the device, and on its link both ways.
        kept: the rate a transfer really got, over what was reserved; 1 where it got all.

    >>> History().add(flops_per_s=1e9).add(flops_per_s=3e9).capacity(weight=0.5).flops_per_s
    2000000000.0
    """

    flops_per_s: tuple[float, ...] = ()
    up_bps: tuple[float, ...] = ()
    down_bps: tuple[float, ...] = ()
    delay_s: tuple[float, ...] = ()
    compute_s: tuple[float, ...] = ()
    transfer_s: tuple[float, ...] = ()
    kept: tuple[float, ...] = ()

    def add(self, *, keep: int = 20, **measured: float | None) -> History:
        """With one more of each that was measured, the last `keep` of each; None and what is not finite is left out.

        Raises:
            SplitError: something that is not measured here.
        """
        known = {one.name for one in fields(self)}
        for name in measured:
            if name not in known:
                raise SplitError(f"a history keeps no {name!r}; it keeps {', '.join(sorted(known))}")
        return replace(
            self,
            **{
                name: (*getattr(self, name), float(value))[-keep:]
                for name, value in measured.items()
                if value is not None and math.isfinite(value)
            },
        )

    def capacity(
        self, *, weight: float = 0.5, memory_bytes: int | None = None, otherwise: Capacity | None = None
    ) -> Capacity:
        """An estimate for the next round: a running mean in which the newest counts for `weight`.

        Args:
            weight: above 0, at most 1: the newest alone.
            memory_bytes: passed on.
            otherwise: what holds for quantities that were never measured; else their defaults.

        Raises:
            SplitError: a weight outside, or no rate of computing known at all.
        """
        if not 0.0 < weight <= 1.0:
            raise SplitError(f"weight = {weight!r} of the newest measurement; expected above 0 and at most 1")
        if not self.flops_per_s and otherwise is None:
            raise SplitError("nobody has measured this device's flops_per_s yet; give otherwise=Capacity(...)")
        found: dict[str, Any] = {
            name: _running(getattr(self, name), weight)
            for name in ("flops_per_s", "up_bps", "down_bps", "delay_s")
            if getattr(self, name)
        }
        if memory_bytes is not None:
            found["memory_bytes"] = memory_bytes
        return Capacity(**found) if otherwise is None else replace(otherwise, **found)

    def state_dict(self) -> dict[str, list[float]]:
        """Plain values, for a checkpoint."""
        return {one.name: list(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Sequence[float]]) -> History:
        """Inverse of `state_dict`."""
        return cls(**{name: tuple(float(value) for value in values) for name, values in state.items()})


def _running(values: Sequence[float], weight: float) -> float:
    mean = values[0]
    for value in values[1:]:
        mean = weight * value + (1.0 - weight) * mean
    return mean


class BudgetRule(Protocol):
    """Where budgets come from."""

    def now(self, histories: Iterable[History]) -> Budgets | None:
        """For the round that comes, from what was measured of all devices; None where nothing is known yet."""
        ...


@dataclass(frozen=True)
class Budgets:
    """Of one step, and themselves a rule: always these.

    Attributes:
        train_s: how long a device may compute, T_train.
        transfer_s: how long its transfers may take, both ways and delays together, T_trans.

    Raises:
        SplitError: not above 0.
    """

    train_s: float
    transfer_s: float

    def __post_init__(self) -> None:
        for name in ("train_s", "transfer_s"):
            if not getattr(self, name) > 0.0:
                raise SplitError(f"the budget {name} = {getattr(self, name)!r}; expected seconds above 0")

    def now(self, histories: Iterable[History]) -> Budgets:
        """These."""
        del histories
        return self


@dataclass(frozen=True)
class QuantileBudgets:
    """Budgets that so many of the past steps kept.

    Attributes:
        quantile: of all devices' measured times, between 0 and 1.
        last: how many of each device's newest count.

    Raises:
        SplitError: a quantile outside, or no measurement that would count.

    >>> past = [History(compute_s=(0.1, 0.3), transfer_s=(0.05,)), History(compute_s=(0.2,))]
    >>> QuantileBudgets(quantile=1.0).now(past)
    Budgets(train_s=0.3, transfer_s=0.05)
    >>> QuantileBudgets().now([History()]) is None
    True
    """

    quantile: float = 0.9
    last: int = 20

    def __post_init__(self) -> None:
        if not 0.0 <= self.quantile <= 1.0:
            raise SplitError(f"quantile = {self.quantile!r}; expected between 0 and 1, as in 0.9")
        if self.last < 1:
            raise SplitError(f"last = {self.last}: budgets of no measurement; expected 1 or more")

    def now(self, histories: Iterable[History]) -> Budgets | None:
        """See `BudgetRule.now`. Times of 0, of devices that had nothing to send, do not count."""
        past = list(histories)
        found = []
        for name in ("compute_s", "transfer_s"):
            values = [value for one in past for value in getattr(one, name)[-self.last :] if value > 0.0]
            if not values:
                return None
            found.append(float(np.quantile(values, self.quantile)))
        return Budgets(*found)
