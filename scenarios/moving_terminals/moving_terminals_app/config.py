"""The run config of the moving terminals. Milliseconds and megabits per second end here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig


class Select(RunConfig):
    """Who of the terminals in coverage trains."""

    score: Literal["oort", "random"] = "oort"
    #: A rule over what terminals tell, such as "battery > 0.3 or charging"; empty: everybody.
    eligible: str = ""
    #: With join = "ask" or "request": the share of the owners that would take part.
    willing: float = Field(0.8, ge=0, le=1)


class Stop(RunConfig):
    """When training ends before its last round; 0 is never."""

    virtual_s: float = Field(0.0, ge=0)
    accuracy: float = Field(0.0, ge=0, le=1)


class Data(RunConfig):
    """Which data; `path` is where MNIST or Fashion-MNIST lie."""

    name: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    path: str = ""


class PartitionConfig(RunConfig):
    """How the data are dealt to the terminals."""

    scheme: Literal["iid", "classes-per-node", "dirichlet", "shards", "power-law"] = "classes-per-node"
    classes_per_node: int = Field(5, ge=1)
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

    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)


class Area(RunConfig):
    """Where the edges are and how the terminals move. A terminal is away `away_share` of the time, `away_s` on end."""

    edges: int = Field(5, ge=1)
    width_m: float = Field(1200.0, gt=0)
    height_m: float = Field(800.0, gt=0)
    radius_m: float = Field(340.0, gt=0)
    margin_m: float = Field(20.0, ge=0)
    slowest_mps: float = Field(3.0, gt=0)
    fastest_mps: float = Field(12.0, gt=0)
    longest_pause_s: float = Field(20.0, ge=0)
    away_share: float = Field(0.1, ge=0, lt=1)
    away_s: float = Field(40.0, gt=0)


class Devices(RunConfig):
    """Speeds on the virtual clock, and the mean load that slows terminals down."""

    sigma: float = Field(0.5, ge=0)
    median_step_ms: float = Field(800.0, gt=0)
    load: float = Field(0.3, ge=0, lt=1)


class Links(RunConfig):
    """Rates on the virtual clock."""

    low_mbps: float = Field(1.0, gt=0)
    high_mbps: float = Field(20.0, gt=0)


class MovingTerminals(RunConfig):
    """Everything the scenario can be told."""

    seed: int = 7
    num_server_rounds: int = Field(8, ge=1)
    edge_rounds: int = Field(2, ge=1)
    terminals_per_edge: int = Field(3, ge=1)
    local_steps: int = Field(12, ge=1)
    steps_per_message: int = Field(4, ge=1)
    on_exit: Literal["stop", "keep", "new-data"] = "stop"
    handover: bool = True
    join: Literal["automatic", "ask", "request"] = "automatic"
    enlist: bool = False
    #: Times the median seconds per step of a round; 0: nobody is replaced for being slow.
    replace_slower_than: float = Field(2.0, ge=0)
    select: Select = Select()
    stop: Stop = Stop()
    data: Data = Data()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    train: Train = Train()
    area: Area = Area()
    devices: Devices = Devices()
    links: Links = Links()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw who holds which classes, the map, and who was in which cell.
    pictures: bool = True
