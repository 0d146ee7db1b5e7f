"""The run config of the filter-and-reward scenario. Terminals and edges are numbered from 0."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig
from flower_edge.errors import ConfigError

RunName = Literal["all", "gate", "none", "honest"]


class Compare(RunConfig):
    """What is learned beside the run, one after the other; empty: nothing."""

    #: Of gate (admission gate alone), none (stock FedAvg, plain centre) and honest (the same where nobody is faulty).
    runs: str = "gate none honest"


class Data(RunConfig):
    """Which data, and how they are dealt to the terminals."""

    name: Literal["digits", "mnist"] = "digits"
    path: str = ""
    scheme: Literal["iid", "dirichlet", "power-law"] = "dirichlet"
    alpha: float = Field(3.0, gt=0)
    #: Nobody has fewer examples.
    least: int = Field(20, ge=1)
    #: An honest terminal, too, has some wrong labels: up to this share of them, drawn for each.
    wrong_most: float = Field(0.2, ge=0, le=1)
    #: Samples that no terminal has: each edge's and the centre's held-out set.
    held_out_edge: int = Field(80, ge=10)
    held_out_centre: int = Field(160, ge=10)

    def options(self) -> dict[str, float]:
        """What the chosen scheme takes."""
        return {"alpha": self.alpha, "min_size": self.least} if self.scheme == "dirichlet" else {}


class Train(RunConfig):
    """Local training."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)


class Faults(RunConfig):
    """Who is faulty and how: numbers of terminals with spaces between; empty: nobody."""

    #: Trains on labels that are 9 minus the right one.
    label_flip: str = "1"
    #: Sends what it was given, with noise of the size of the model.
    noise: str = "3"
    #: Sends NaN.
    nan: str = "5"
    #: Sends back what it was given.
    free_rider: str = "8"
    #: Trains well, and says that it has a thousand times as many examples.
    inflated: str = "11"
    #: Sends its first model again in every round.
    stale: str = "13"
    #: Edges, not terminals: all their labels are one too high, those of their held-out set as well.
    edges: str = "3"

    @property
    def of_terminals(self) -> dict[int, str]:
        """The fault of each faulty terminal.

        Raises:
            ConfigError: a number that is none, or a terminal with two faults.
        """
        found: dict[int, str] = {}
        for fault in ("label-flip", "noise", "nan", "free-rider", "inflated", "stale"):
            for terminal in _numbers(f"faults.{fault}", getattr(self, fault.replace("-", "_"))):
                if terminal in found:
                    raise ConfigError(
                        f"terminal {terminal} is in faults.{found[terminal]} and faults.{fault}; one each"
                    )
                found[terminal] = fault
        return found

    @property
    def of_edges(self) -> set[int]:
        """The faulty edges.

        Raises:
            ConfigError: a number that is none.
        """
        return set(_numbers("faults.edges", self.edges))


class Rewards(RunConfig):
    """What is paid, in credits of a million micro-credits each, and what a credit is worth."""

    #: Of one edge for one round, and of the centre for one round.
    edge_credits: int = Field(10, ge=1)
    centre_credits: int = Field(40, ge=1)
    currency: str = "EUR"
    #: Of one credit, as text, since money is no binary fraction.
    price: str = "0.05"
    rounding: Literal["down", "half-even", "half-up"] = "down"
    places: int = Field(2, ge=0, le=6)


class FilterAndReward(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(10, ge=1)
    #: Three rounds, whatever num-server-rounds says, and nothing learned beside them.
    quick: bool = False
    edges: int = Field(4, ge=1)
    #: What the run itself has around FedAvg: all, gate, or none.
    layers: Literal["all", "gate", "none"] = "all"
    compare: Compare = Compare()
    data: Data = Data()
    train: Train = Train()
    faults: Faults = Faults()
    rewards: Rewards = Rewards()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw accuracy, refusals, credits and who has which data.
    pictures: bool = True

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(3, self.num_server_rounds) if self.quick else self.num_server_rounds

    @property
    def beside(self) -> list[RunName]:
        """What is learned beside the run itself.

        Raises:
            ConfigError: a run that there is not.
        """
        known: tuple[RunName, ...] = ("gate", "none", "honest")
        asked = self.compare.runs.split()
        for name in asked:
            if name not in known:
                raise ConfigError(f"compare.runs = {self.compare.runs!r}: no run {name!r}; {', '.join(known)} are")
        return [] if self.quick else [name for name in known if name in asked and name != self.layers]

    def check(self, terminals: int) -> None:
        """Whether those that are to be faulty are there.

        Raises:
            ConfigError: one is not.
        """
        if strange := [terminal for terminal in self.faults.of_terminals if terminal >= terminals]:
            raise ConfigError(f"faults name terminal {strange[0]}; terminals go from 0 to {terminals - 1}")
        if strange := [edge for edge in self.faults.of_edges if edge >= self.edges]:
            raise ConfigError(f"faults.edges names edge {strange[0]}; edges go from 0 to {self.edges - 1}")


def _numbers(key: str, text: str) -> list[int]:
    words = text.split()
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"{key} = {text!r}: expected numbers from 0 on with spaces between, say '1 4', or nothing")
    return [int(word) for word in words]
