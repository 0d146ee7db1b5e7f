"""What each device has left in each round, in a world that is a function of the seed. All its times are virtual.

In a deployment a device measures this; here client and server compute the same numbers. Nothing here trains.
"""

from __future__ import annotations

import numpy as np

from flower_edge.splitting import Capacity, Cloud
from split_app.config import Split


def capacity(config: Split, device: int, number: int) -> Capacity:
    """Of one device in round `number`, from 1 on."""
    draw = np.random.default_rng([config.seed, 77, device, number])
    speed, rate = draw.uniform(config.devices.least, 1.0), draw.uniform(config.links.least, 1.0)
    link_bps = float(config.links.rates_bps[device] * rate)
    return Capacity(
        flops_per_s=float(config.devices.flops_per_s[device] * speed),
        up_bps=link_bps,
        down_bps=link_bps,
        delay_s=config.links.delay_s,
    )


def cloud(config: Split) -> Cloud:
    """What all devices share."""
    return Cloud(flops_per_s=1e9 * config.cloud.gflops)
