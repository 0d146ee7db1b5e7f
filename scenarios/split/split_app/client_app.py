"""A device: its data, and what it has left in each round. All else is `split_client`'s."""

from __future__ import annotations

from typing import Any

from flwr.app import Context

from flower_edge.clients import answer_properties, split_client
from flower_edge.config import read_config
from flower_edge.splitting import Capacity
from split_app import task, world
from split_app.config import Split


def own_data(context: Context) -> tuple[Any, Any]:
    """The device's pictures and digits. They stay here."""
    config = read_config(Split, context.run_config)
    device, devices = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    own = task.datasets(config)[0].subset(task.partition(config, devices)[device])
    return own.x, own.y


def own_capacity(context: Context, number: int) -> Capacity:
    """What the device has left in a round: the modelled world's, so that a run can be repeated."""
    config = read_config(Split, context.run_config)
    return world.capacity(config, int(context.node_config["partition-id"]), number)


app = answer_properties(split_client(own_data, capacity=own_capacity, modelled=True))
