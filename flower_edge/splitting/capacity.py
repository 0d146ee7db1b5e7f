"""What a device, and the cloud, have left to give: values. Nothing here measures or decides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import SplitError

__all__ = ["UNLIMITED", "Capacity", "Cloud", "above_zero"]


@dataclass(frozen=True)
class Capacity:
    """What one device has left now.

    Attributes:
        flops_per_s: floating-point operations a second in training.
        up_bps, down_bps: of its own link, to the cloud and back.
        delay_s: one way, however little is sent.
        memory_bytes: free for training; None does not limit.

    Raises:
        SplitError: a rate that is not above 0, or a delay or memory below 0.

    >>> Capacity(2e9, up_bps=50e6).down_bps
    inf
    """

    flops_per_s: float
    up_bps: float = math.inf
    down_bps: float = math.inf
    delay_s: float = 0.0
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("flops_per_s", "up_bps", "down_bps"):
            above_zero(f"a device's {name}", getattr(self, name))
        if not 0.0 <= self.delay_s < math.inf:
            raise SplitError(f"a device's delay_s = {self.delay_s!r}; expected seconds, 0 or more")
        if self.memory_bytes is not None and not self.memory_bytes >= 0:
            raise SplitError(f"a device's memory_bytes = {self.memory_bytes!r}; expected 0 or more, or None")


@dataclass(frozen=True)
class Cloud:
    """What all devices share.

    Attributes:
        flops_per_s: of the cloud. Devices that send it work get equal shares.
        up_bps, down_bps: of its own access, of all devices together, to the cloud and back.
        links: further links that several devices share, such as an access point's: name to bit/s. Which devices use
            which is said by `DeviceView.up_links` and `down_links`. "cloud-up" and "cloud-down" are the cloud's access.

    Raises:
        SplitError: a rate that is not above 0, or a link with a name of the cloud's own.
    """

    flops_per_s: float = math.inf
    up_bps: float = math.inf
    down_bps: float = math.inf
    links: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("flops_per_s", "up_bps", "down_bps"):
            above_zero(f"the cloud's {name}", getattr(self, name))
        for name, rate_bps in self.links.items():
            if name in ("cloud-up", "cloud-down"):
                raise SplitError(f"a link called {name!r} is the cloud's own; give its rate as up_bps or down_bps")
            above_zero(f"link {name!r}", rate_bps)

    def all_links(self) -> dict[str, float]:
        """Bit/s of every shared link, the cloud's own two first.

        >>> Cloud(1e9, up_bps=1e6, links={"ap": 2e6}).all_links()
        {'cloud-up': 1000000.0, 'cloud-down': inf, 'ap': 2000000.0}
        """
        return {"cloud-up": self.up_bps, "cloud-down": self.down_bps, **self.links}


def above_zero(what: str, rate: float) -> None:
    """Refuse what is no rate.

    Raises:
        SplitError: it is 0, below, or not a number.
    """
    if not rate > 0.0:
        raise SplitError(f"{what} = {rate!r}; expected a rate above 0")


#: A cloud that never binds.
UNLIMITED: Final = Cloud()
