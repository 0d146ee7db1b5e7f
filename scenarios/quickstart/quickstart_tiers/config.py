"""The run config of the quickstart. Milliseconds and megabits per second end here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig


class Data(RunConfig):
    """Which data; `path` is where MNIST or Fashion-MNIST lie."""

    name: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    path: str = ""


class PartitionConfig(RunConfig):
    """How the data are dealt to the terminals."""

    scheme: Literal["iid", "classes-per-node", "dirichlet", "shards", "power-law"] = "classes-per-node"
    classes_per_node: int = Field(4, ge=1)
    alpha: float = Field(0.5, gt=0)

    def options(self) -> dict[str, float]:
        """What the chosen scheme takes."""
        if self.scheme == "classes-per-node":
            return {"k": self.classes_per_node}
        return {"alpha": self.alpha} if self.scheme == "dirichlet" else {}


class ModelConfig(RunConfig):
    """Which model; `numpy-mlp` needs no torch."""

    name: Literal["lenet5", "logistic", "mlp", "cnn", "resnet", "numpy-mlp"] = "cnn"


class Train(RunConfig):
    """Local training."""

    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)


class Devices(RunConfig):
    """Speeds on the virtual clock."""

    sigma: float = Field(0.5, ge=0)
    median_step_ms: float = Field(10.0, gt=0)


class Links(RunConfig):
    """Rates on the virtual clock."""

    low_mbps: float = Field(1.0, gt=0)
    high_mbps: float = Field(20.0, gt=0)


class Quickstart(RunConfig):
    """Everything the quickstart can be told."""

    seed: int = 7
    num_server_rounds: int = Field(6, ge=1)
    edges: int = Field(3, ge=1)
    edge_rounds: int = Field(2, ge=1)
    local_steps: int = Field(15, ge=1)
    evaluate_on_terminals: bool = True
    data: Data = Data()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    train: Train = Train()
    devices: Devices = Devices()
    links: Links = Links()
    round_timeout_s: float = Field(120.0, gt=0)
