"""`ConditionPolicy`: whether a device trains now, does less, or leaves the round out, by how it is doing.

Limits and one decision; a pure function of the conditions. What cannot be measured limits nothing. Nothing here
measures, sends or trains: `PolicyMod` in `policy_mod` does what is decided here.

The limits are those of docs/devices.md: battery, heat, throttling and memory are the owner's, so the device itself
refuses, whatever the server chose by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError

__all__ = ["ConditionPolicy", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What a device does with a training message.

    Attributes:
        share: of the steps it was asked for: 1 all of them, 0 leaves the round out.
        why: the reason in words, empty where the share is 1.
    """

    share: float = 1.0
    why: str = ""

    @property
    def skips(self) -> bool:
        """Whether the round is left out."""
        return self.share == 0.0


@dataclass(frozen=True)
class ConditionPolicy:
    """Limits of a device; `None` switches one off.

    The round is left out where the battery is low and not charging, where it is too hot, where the device is
    throttled now, and where the memory that is free is not `memory_factor` times what training may take. It is
    shortened in proportion where the heat is within `near_c` of its limit and where the load is from `load_gentle` on;
    the smaller share counts.

    Args:
        min_battery: share of the battery, from 0 to 1, below which it does not train unplugged. A device whose
            battery is low, and which does not say whether it is charging, does not train.
        max_temperature_c: degrees Celsius above which it does not train.
        near_c: degrees below that limit from which on it trains less.
        when_throttled: whether it trains while it is throttled.
        memory_factor: free memory over the estimated peak, at least.
        load_gentle, load_hard: share of busy processors up to which all is done, and from which on only `least`.
        least: the smallest share of the steps that is still worth a round, above 0.

    Raises:
        ConfigError: a limit out of its range.

    >>> policy = ConditionPolicy()
    >>> policy.verdict(Conditions(battery=0.2, charging=False)).why
    'the battery is at 20 % and not charging; it trains from 30 % on, or plugged in'
    >>> policy.verdict(Conditions(temperature_c=72.5)).share, policy.verdict(Conditions()).share
    (0.625, 1.0)
    """

    min_battery: float | None = 0.30
    max_temperature_c: float | None = 75.0
    near_c: float = 5.0
    when_throttled: bool = False
    memory_factor: float | None = 1.5
    load_gentle: float | None = 0.75
    load_hard: float = 0.95
    least: float = 0.25

    def __post_init__(self) -> None:
        ranges = {
            "min_battery": (self.min_battery, 0.0, 1.0),
            "max_temperature_c": (self.max_temperature_c, -100.0, 250.0),
            "near_c": (self.near_c, 0.0, 100.0),
            "memory_factor": (self.memory_factor, 0.0, 1000.0),
            "load_gentle": (self.load_gentle, 0.0, 1.0),
            "load_hard": (self.load_hard, 0.0, 1.0),
        }
        for name, (value, low, high) in ranges.items():
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"ConditionPolicy({name}={value!r}): expected a number from {low:g} to {high:g}")
        if self.load_gentle is not None and self.load_gentle > self.load_hard:
            raise ConfigError(
                f"ConditionPolicy(load_gentle={self.load_gentle}, load_hard={self.load_hard}): expected "
                "load_gentle <= load_hard"
            )
        if not 0.0 < self.least <= 1.0:
            raise ConfigError(f"ConditionPolicy(least={self.least}): expected a share in (0, 1]")

    def verdict(self, seen: Conditions, peak_bytes: int = 0) -> Verdict:
        """What to do now.

        Args:
            seen: the conditions.
            peak_bytes: memory that training may take beyond what the process has; 0 where it is not known.
        """
        reason = self._against(seen, peak_bytes)
        if reason:
            return Verdict(0.0, reason)
        heat, load = self._heat_share(seen.temperature_c), self._load_share(seen.load)
        if heat < 1.0 and heat <= load:
            return Verdict(heat, f"{seen.temperature_c:g} C is near the limit of {self.max_temperature_c:g} C")
        if load < 1.0:
            return Verdict(load, f"{seen.load:.0%} of the processors are busy".replace("%", " %"))
        return Verdict()

    def _against(self, seen: Conditions, peak_bytes: int) -> str:
        """Why the round is left out; empty where it is not."""
        battery, heat, free = seen.battery, seen.temperature_c, seen.memory_free_bytes
        if self.min_battery is not None and battery is not None and battery < self.min_battery and not seen.charging:
            return (
                f"the battery is at {100 * battery:.0f} % and not charging; it trains from "
                f"{100 * self.min_battery:.0f} % on, or plugged in"
            )
        if self.max_temperature_c is not None and heat is not None and heat > self.max_temperature_c:
            return f"it is {heat:g} C hot; it trains up to {self.max_temperature_c:g} C"
        if seen.throttled and not self.when_throttled:
            return "it is throttled now, for heat or for want of power"
        if self.memory_factor is not None and free is not None and free < self.memory_factor * peak_bytes:
            return (
                f"{free / 1e6:.0f} MB of memory are free; it trains with {self.memory_factor:g} times the "
                f"{peak_bytes / 1e6:.0f} MB that training may take"
            )
        return ""

    def _heat_share(self, temperature_c: float | None) -> float:
        if self.max_temperature_c is None or temperature_c is None or self.near_c == 0.0:
            return 1.0
        return self._falling((temperature_c - self.max_temperature_c + self.near_c) / self.near_c)

    def _load_share(self, load: float | None) -> float:
        if self.load_gentle is None or load is None or load <= self.load_gentle:
            return 1.0
        if load >= self.load_hard:
            return self.least
        return self._falling((load - self.load_gentle) / (self.load_hard - self.load_gentle))

    def _falling(self, part: float) -> float:
        """1 at part 0, `least` at part 1."""
        return round(1.0 - (1.0 - self.least) * min(max(part, 0.0), 1.0), 9)
