"""The run config of the split scenario. Megabits, gigaflops and milliseconds end here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig
from flower_edge.errors import ConfigError
from flower_edge.units import mbps_to_bps, ms_to_s

PlannerName = Literal["dynamic", "fixed", "whole"]


class Compare(RunConfig):
    """What is learned beside the run, one after the other; empty: nothing."""

    #: Of dynamic, fixed and whole.
    planners: str = "fixed whole"


class Cut(RunConfig):
    """Where the model is cut, and what crosses the cut."""

    #: With planner fixed: the member of the model after which every device is cut in every round.
    fixed_after: str = "block1"
    #: Of tensors and of gradients, such as int8, or int4/int8, or none.
    codecs: str = "int8"
    labels: Literal["cloud", "device"] = "cloud"
    #: So many last units stay on the device, where the labels do.
    tail: int = Field(0, ge=0)


class Budget(RunConfig):
    """Of one batch, with planner dynamic; 0: the planner finds the least that all can keep."""

    train_ms: float = Field(0.0, ge=0)
    transfer_ms: float = Field(0.0, ge=0)

    @property
    def train_s(self) -> float:
        """On a device."""
        return ms_to_s(self.train_ms)

    @property
    def transfer_s(self) -> float:
        """On its link, both ways."""
        return ms_to_s(self.transfer_ms)


class Data(RunConfig):
    """Which data, where they lie, and how they are dealt to the devices."""

    name: Literal["digits", "mnist"] = "digits"
    path: str = ""
    scheme: Literal["iid", "dirichlet"] = "iid"
    alpha: float = Field(1.0, gt=0)

    def options(self) -> dict[str, float]:
        """What the chosen scheme takes."""
        return {"alpha": self.alpha} if self.scheme == "dirichlet" else {}


class Train(RunConfig):
    """Training of a round."""

    steps: int = Field(12, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.03, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    #: Rounds between two whole models.
    merge_every: int = Field(3, ge=1)


class Devices(RunConfig):
    """How quick each device is; in a round it has between `least` and all of that left."""

    gflops: str = "2 1 0.1 5"
    least: float = Field(0.4, gt=0, le=1)

    @property
    def flops_per_s(self) -> list[float]:
        """At best.

        Raises:
            ConfigError: a speed that is none.
        """
        return [1e9 * speed for speed in _positive("devices.gflops", self.gflops, "2 1 0.1 5")]


class Links(RunConfig):
    """The link of each device, both ways; in a round it gives between `least` and all of that."""

    mbps: str = "200 100 200 50"
    least: float = Field(0.7, gt=0, le=1)
    #: One way.
    delay_ms: float = Field(5.0, ge=0)

    @property
    def rates_bps(self) -> list[float]:
        """At best.

        Raises:
            ConfigError: a rate that is none.
        """
        return [mbps_to_bps(rate) for rate in _positive("links.mbps", self.mbps, "200 100 200 50")]

    @property
    def delay_s(self) -> float:
        """One way."""
        return ms_to_s(self.delay_ms)


class CloudKeys(RunConfig):
    """The cloud, shared by all devices that send it work."""

    gflops: float = Field(50.0, gt=0)


class Split(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(12, ge=1)
    #: Three rounds, whatever num-server-rounds says, and nothing learned beside them.
    quick: bool = False
    planner: PlannerName = "dynamic"
    compare: Compare = Compare()
    cut: Cut = Cut()
    budget: Budget = Budget()
    data: Data = Data()
    train: Train = Train()
    devices: Devices = Devices()
    links: Links = Links()
    cloud: CloudKeys = CloudKeys()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw cuts, times and accuracy.
    pictures: bool = True

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(3, self.num_server_rounds) if self.quick else self.num_server_rounds

    @property
    def beside(self) -> list[PlannerName]:
        """Planners to learn under beside the run's own.

        Raises:
            ConfigError: one that there is not.
        """
        known: tuple[PlannerName, ...] = ("dynamic", "fixed", "whole")
        asked = self.compare.planners.split()
        for name in asked:
            if name not in known:
                raise ConfigError(f"compare.planners = {self.compare.planners!r}: no planner {name!r}; {known} are")
        return [] if self.quick else [name for name in known if name in asked and name != self.planner]

    def check(self, devices: int) -> None:
        """Whether there are a speed and a link for each device, and both budgets or none.

        Raises:
            ConfigError: there are not.
        """
        for key, told in (("devices.gflops", self.devices.flops_per_s), ("links.mbps", self.links.rates_bps)):
            if len(told) != devices:
                raise ConfigError(f"{key} has {len(told)} numbers and there are {devices} devices; give one for each")
        if bool(self.budget.train_s) != bool(self.budget.transfer_s):
            raise ConfigError("one of budget.train-ms and budget.transfer-ms is 0; give both, or neither")


def _positive(key: str, text: str, example: str) -> list[float]:
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        found = []
    if not found or min(found) <= 0:
        raise ConfigError(f"{key} = {text!r}: expected numbers above 0 with spaces between, say {example!r}")
    return found
