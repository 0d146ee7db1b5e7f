"""The run config of the fringe scenario. Megabits per second and milliseconds end here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig
from flower_edge.errors import ConfigError
from flower_edge.fringe import Link
from flower_edge.units import mbps_to_bps, ms_to_s


class Data(RunConfig):
    """Which data, where they lie, and how they are dealt to the terminals."""

    name: Literal["digits", "mnist"] = "digits"
    path: str = ""
    scheme: Literal["iid", "dirichlet"] = "iid"
    alpha: float = Field(1.0, gt=0)

    def options(self) -> dict[str, float]:
        """What the chosen scheme takes."""
        return {"alpha": self.alpha} if self.scheme == "dirichlet" else {}


class Train(RunConfig):
    """Local training of a round."""

    steps: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.03, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)


class Serve(RunConfig):
    """Where the trained model is served, over which links, and how often it is asked."""

    #: In the order of an inference; the first takes the requests.
    machines: str = "camera gateway server"
    #: Members of the model, one fewer than machines: what is before the first is the first machine's.
    cuts: str = "block1 block2"
    #: Towards the next machine, and back alike.
    links_mbps: str = "1 4"
    #: One way.
    delays_ms: str = "10 5"
    #: On average, at random times.
    requests_per_s: float = Field(2.5, gt=0)

    @property
    def machine_names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(self.machines.split())

    @property
    def cut_names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(self.cuts.split())

    @property
    def links(self) -> tuple[Link, ...]:
        """One for each connection.

        Raises:
            ConfigError: a rate or a delay that is none, or not one of each for each connection.
        """
        rates, delays = _numbers("serve.links-mbps", self.links_mbps), _numbers("serve.delays-ms", self.delays_ms)
        connections = len(self.machine_names) - 1
        told = {"serve.cuts": len(self.cut_names), "serve.links-mbps": len(rates), "serve.delays-ms": len(delays)}
        for key, number in told.items():
            if number != connections or connections < 1:
                raise ConfigError(
                    f"{key} has {number} entries and there are {connections + 1} machines; give one for each "
                    "connection, that is one fewer than machines, and two machines or more"
                )
        if min(rates) <= 0 or min(delays) < 0:
            raise ConfigError(
                f"serve.links-mbps = {self.links_mbps!r}, serve.delays-ms = {self.delays_ms!r}: expected rates above 0 "
                "and delays of 0 or more"
            )
        return tuple(Link(mbps_to_bps(rate), ms_to_s(delay)) for rate, delay in zip(rates, delays, strict=True))


class Goal(RunConfig):
    """What compression is to reach, and what it must not cost."""

    #: Of an inference, at most, on the links as they are.
    latency_ms: float = Field(130.0, gt=0)
    metric: Literal["loss", "accuracy"] = "loss"
    #: How much worse the metric may be than uncompressed, on validation data.
    drop: float = Field(0.1, gt=0)
    methods: str = "quantisation pruning"
    #: Layers on each side of a connection that may change.
    depth: int = Field(1, ge=0)

    @property
    def latency_s(self) -> float:
        """Of an inference, at most."""
        return ms_to_s(self.latency_ms)


class Worse(RunConfig):
    """The link that degrades, and by how much its rate falls."""

    connection: int = Field(0, ge=0)
    times: float = Field(5.0, gt=1)


class Phases(RunConfig):
    """How long requests flow after each thing that happens, and how long to wait for it at most."""

    calm_s: float = Field(5.0, gt=0)
    most_s: float = Field(40.0, gt=0)


class FringeRun(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(8, ge=1)
    #: Two rounds, and phases of two seconds.
    quick: bool = False
    data: Data = Data()
    train: Train = Train()
    serve: Serve = Serve()
    goal: Goal = Goal()
    worse: Worse = Worse()
    phases: Phases = Phases()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw the latency of all requests over time.
    pictures: bool = True

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(2, self.num_server_rounds) if self.quick else self.num_server_rounds

    @property
    def calm_s(self) -> float:
        """How long requests flow after each thing that happens."""
        return min(self.phases.calm_s, 2.0) if self.quick else self.phases.calm_s

    def check(self) -> None:
        """Whether links, cuts and machines go together.

        Raises:
            ConfigError: they do not.
        """
        if self.worse.connection >= len(self.serve.links):
            raise ConfigError(
                f"worse.connection = {self.worse.connection}: connections are 0 to {len(self.serve.links) - 1}"
            )


def _numbers(key: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:
        raise ConfigError(f"{key} = {text!r}: expected numbers with spaces between, say '1 4'") from None
