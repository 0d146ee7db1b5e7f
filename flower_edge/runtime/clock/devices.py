"""How fast devices compute and links carry: frozen values, and seeded draws of uneven populations.

Nothing here sends, waits or knows a message: `VirtualClock` asks it for seconds. All SI: FLOP/s, bit/s, s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from ..generators import derive_seed

__all__ = ["Device", "Link", "Work", "draw_devices", "draw_links", "jitter_factor"]


def _check(owner: str, name: str, value: float, *, positive: bool) -> None:
    if not (value > 0 if positive else 0 <= value < math.inf):
        expected = "more than 0" if positive else "a finite number, 0 or more"
        raise ConfigError(f"{owner}.{name} = {value}: expected {expected}")


def jitter_factor(jitter: float, draw: float) -> float:
    """What a duration is multiplied by: log-normal with median 1; `draw` is standard normal.

    >>> jitter_factor(0.0, 1.7)
    1.0
    """
    return math.exp(jitter * draw)


@dataclass(frozen=True)
class Work:
    """What one message made a node compute.

    Attributes:
        steps: optimiser (or evaluation) steps.
        flops: floating-point operations.
    """

    steps: float = 0.0
    flops: float = 0.0

    def __post_init__(self) -> None:
        _check("Work", "steps", self.steps, positive=False)
        _check("Work", "flops", self.flops, positive=False)


@dataclass(frozen=True)
class Device:
    """How long a node computes.

    Attributes:
        flops_per_s: sustained speed; infinite for a device whose computing takes no time.
        step_s: measured seconds of one step. Where it is given and the work counts its steps, it is used instead of
            the FLOPs.
        fixed_s: seconds every message costs before it computes: start of a process, loading of a model.
        jitter: standard deviation of the natural logarithm of the computing time, from message to message.

    >>> Device(flops_per_s=1e9).compute_s(Work(flops=2.5e9))
    2.5
    >>> Device(flops_per_s=1e9, step_s=0.1, fixed_s=1.0).compute_s(Work(steps=20, flops=2.5e9))
    3.0
    """

    flops_per_s: float = math.inf
    step_s: float | None = None
    fixed_s: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _check("Device", "flops_per_s", self.flops_per_s, positive=True)
        _check("Device", "fixed_s", self.fixed_s, positive=False)
        _check("Device", "jitter", self.jitter, positive=False)
        if self.step_s is not None:
            _check("Device", "step_s", self.step_s, positive=False)

    def compute_s(self, work: Work, factor: float = 1.0) -> float:
        """fixed + factor · (steps · step_s, or FLOPs / flops_per_s)."""
        if self.step_s is not None and work.steps > 0:
            return self.fixed_s + factor * work.steps * self.step_s
        return self.fixed_s + factor * work.flops / self.flops_per_s


@dataclass(frozen=True)
class Link:
    """The way between a node and its server.

    Attributes:
        up_bps, down_bps: rate from and to the node; infinite for a link that takes no time.
        latency_s: one way, per message.
        jitter: standard deviation of the natural logarithm of the transfer time, from message to message.

    >>> Link(up_bps=2e6, down_bps=8e6, latency_s=0.5).up_s(1_000_000)
    1.0
    """

    up_bps: float = math.inf
    down_bps: float = math.inf
    latency_s: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _check("Link", "up_bps", self.up_bps, positive=True)
        _check("Link", "down_bps", self.down_bps, positive=True)
        _check("Link", "latency_s", self.latency_s, positive=False)
        _check("Link", "jitter", self.jitter, positive=False)

    def up_s(self, payload_bits: int, factor: float = 1.0) -> float:
        """latency + factor · bits / up_bps."""
        return self.latency_s + factor * payload_bits / self.up_bps

    def down_s(self, payload_bits: int, factor: float = 1.0) -> float:
        """latency + factor · bits / down_bps."""
        return self.latency_s + factor * payload_bits / self.down_bps


def draw_devices(
    n: int,
    seed: int,
    sigma: float = 1.0,
    *,
    median_flops_per_s: float = 1e10,
    median_step_s: float | None = 0.01,
    fixed_s: float = 0.0,
    jitter: float = 0.0,
) -> list[Device]:
    """Devices of uneven speed: one log-normal factor each, on FLOP/s and on steps alike.

    `sigma` is the standard deviation of the natural logarithm of speed: at 1, two devices in three are within a
    factor of 2.7 of the median. The first k of n devices are those of a draw of k.

    >>> draw_devices(3, seed=7) == draw_devices(5, seed=7)[:3]
    True
    >>> {device.step_s for device in draw_devices(3, seed=7, sigma=0.0)}
    {0.01}
    """
    _check("draw_devices", "sigma", sigma, positive=False)
    speeds = np.exp(sigma * np.random.default_rng(derive_seed(seed, "devices")).standard_normal(n))
    return [
        Device(
            flops_per_s=median_flops_per_s * float(speed),
            step_s=None if median_step_s is None else median_step_s / float(speed),
            fixed_s=fixed_s,
            jitter=jitter,
        )
        for speed in speeds
    ]


def draw_links(
    n: int,
    seed: int,
    low_bps: float = 1e6,
    high_bps: float = 20e6,
    *,
    latency_s: float = 0.02,
    jitter: float = 0.0,
) -> list[Link]:
    """Links of uneven rate: up and down each log-uniform between `low_bps` and `high_bps`.

    The first k of n links are those of a draw of k.

    >>> all(1e6 <= link.up_bps <= 20e6 for link in draw_links(100, seed=7))
    True
    """
    _check("draw_links", "low_bps", low_bps, positive=True)
    if not low_bps <= high_bps < math.inf:
        raise ConfigError(f"draw_links.high_bps = {high_bps}: expected a finite rate of at least low_bps = {low_bps}")
    places = np.random.default_rng(derive_seed(seed, "links")).uniform(size=(n, 2))
    rates_bps = low_bps * (high_bps / low_bps) ** places
    return [Link(float(up), float(down), latency_s, jitter) for up, down in rates_bps]
