"""A terminal: learns digits in NumPy alone, and mixes with its neighbours' models as `gossip_mod` says."""

from __future__ import annotations

from functools import cache

import numpy as np
from flwr.app import Context
from numpy.typing import NDArray

from flower_edge.clients import answer_agent, gossip_mod, thin_client
from flower_edge.clients.thin import Settings
from flower_edge.data import load_dataset, make_partition


@cache
def share(seed: int, number: int, of: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The digits of one terminal of all of them, wherever it is: no two have one in common."""
    train, _ = load_dataset("digits", seed=seed)
    own = train.subset(make_partition("iid", train.labels, of, seed=seed)[number])
    return np.asarray(own.x, np.float32), np.asarray(own.y, np.int64)


def digits(context: Context) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of this terminal; its node config says which of how many it is."""
    node = context.node_config
    return share(int(context.run_config["seed"]), int(node["share"]), int(node["shares"]))


# All terminals are processes of one machine here: its memory and load are no device's, so no policy.
app = answer_agent(
    thin_client(digits, settings=Settings(batch_size=16, learning_rate=0.1), mods=[gossip_mod], policy=None)
)
