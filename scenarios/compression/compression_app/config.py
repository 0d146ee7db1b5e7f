"""The run config of the compression scenario. Megabits per second and milliseconds end here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig
from flower_edge.errors import ConfigError
from flower_edge.units import mbps_to_bps, ms_to_s


class Compare(RunConfig):
    """What is learned beside the run, one after the other, with a plain model downwards; empty: nothing."""

    #: Codecs of `flower-edge codecs list`.
    up: str = "identity eden-1-half"


class Data(RunConfig):
    """Which data, where they lie, and how they are dealt to the terminals."""

    name: Literal["digits", "mnist"] = "digits"
    path: str = ""
    scheme: Literal["iid", "dirichlet"] = "dirichlet"
    alpha: float = Field(0.3, gt=0)

    def options(self) -> dict[str, float]:
        """What the chosen scheme takes."""
        return {"alpha": self.alpha} if self.scheme == "dirichlet" else {}


class Train(RunConfig):
    """Local training of a round."""

    steps: int = Field(16, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.05, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)


class Links(RunConfig):
    """Links for the pictures of accuracy over time: one picture for each rate."""

    mbps: str = "1 10 100"
    latency_ms: float = Field(20.0, ge=0)

    @property
    def rates_bps(self) -> list[float]:
        """The rates.

        Raises:
            ConfigError: a rate that is none.
        """
        try:
            rates = [float(rate) for rate in self.mbps.split()]
        except ValueError:
            rates = []
        if not rates or min(rates) <= 0:
            raise ConfigError(f"links.mbps = {self.mbps!r}: expected rates above 0 with spaces between, say '1 10 100'")
        return [mbps_to_bps(rate) for rate in rates]

    @property
    def latency_s(self) -> float:
        """One way."""
        return ms_to_s(self.latency_ms)


class Device(RunConfig):
    """A terminal, for the same pictures."""

    #: Seconds that the local training of a round takes.
    train_s: float = Field(1.0, ge=0)


class Compression(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(30, ge=1)
    #: Three rounds, whatever num-server-rounds says, and nothing learned beside them.
    quick: bool = False
    #: A codec of `flower-edge codecs list`, or its config as JSON.
    up: str = "stc-5"
    #: The same for what the server sends; "none" sends plain models.
    down: str = "stc-5"
    #: How the very first model travels where `down` is a codec.
    first: str = "fp16"
    compare: Compare = Compare()
    data: Data = Data()
    train: Train = Train()
    links: Links = Links()
    device: Device = Device()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw accuracy against bytes and against time.
    pictures: bool = True

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(3, self.num_server_rounds) if self.quick else self.num_server_rounds

    @property
    def beside(self) -> list[str]:
        """Codecs to learn with beside the run."""
        return [] if self.quick else self.compare.up.split()
