"""`ServingLimits`: how many wait, how long, and how many go together. Values only."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ...errors import ConfigError

__all__ = ["ServingLimits"]


@dataclass(frozen=True)
class ServingLimits:
    """Of one stage.

    Attributes:
        batch_samples: the entry puts requests that wait together up to so many samples. 1: each request by itself. A
            request of more samples than that is served alone.
        batch_wait_s: how long the entry waits for a batch to fill; 0 takes what is there.
        waiting: requests or frames that wait for this machine. At the entry one more is refused as `busy`; between
            stages it is not read yet, so that the sender waits.
        waiting_bytes: that their tensors may have together; a request that is larger by itself waits alone.
        answer_s: after which the machine behind is taken to have failed.
        dial_s: to open a channel to it.
        retry_s: after it could not be opened, requests fail at once for so long.
        probe_s: between two round trips that measure the link, where nothing is under way.
        probe_goodput_s: between two frames that carry nothing and measure the link's goodput, where requests do not say
            enough of it, see `Probing`; 0: none.
        versions: held at once.
        keep_inputs: samples of requests that the entry keeps in memory for healing, see `KeptInputs`; 0: none. Whoever
            has the secret of the deployment may fetch them.

    Raises:
        ConfigError: a value that cannot be.
    """

    batch_samples: int = 16
    batch_wait_s: float = 0.0
    waiting: int = 64
    waiting_bytes: int = 1 << 30
    answer_s: float = 30.0
    dial_s: float = 5.0
    retry_s: float = 0.5
    probe_s: float = 1.0
    probe_goodput_s: float = 10.0
    versions: int = 8
    keep_inputs: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            whole = isinstance(each.default, int)
            right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            least = 0 if each.name in ("batch_wait_s", "retry_s", "probe_goodput_s", "keep_inputs") else 1e-9
            if not right or not least <= value < math.inf:
                bound = "above 0" if least else "of 0 or more"
                raise ConfigError(f"ServingLimits({each.name}={value!r}): expected a {'whole ' * whole}number {bound}")
