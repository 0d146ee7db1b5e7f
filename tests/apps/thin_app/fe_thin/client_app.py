"""A device: the thin client, with the samples its sensors would have written."""

import numpy as np
from flwr.app import Context

from flower_edge.clients.thin import thin_client

RULE = np.random.default_rng(5).normal(size=(6, 3))


def samples(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Those of this device."""
    node = int(context.node_config["partition-id"])
    x = np.random.default_rng([9, node]).normal(size=(80, 6)).astype(np.float32)
    return x, (x @ RULE).argmax(axis=1)


# A machine that runs tests is busy; the limits of devices are tested elsewhere.
app = thin_client(samples, policy=None, time_steps=False)
