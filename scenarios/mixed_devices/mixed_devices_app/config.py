"""The run config of the mixed-devices scenario. Terminals count from 0: ten in the street, the rest in the hall."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig
from flower_edge.errors import ConfigError

RunName = Literal["smallest", "whole"]

#: Two terminals of each of the five classes; those that come after them stand in the hall.
STREET = 10
CLASS_NAMES = ("full", "large", "medium", "small", "tiny")


class Compare(RunConfig):
    """What is learned beside the run, one after the other; empty: nothing."""

    #: Of smallest (everybody trains the smallest model) and whole (stock FedAvg with those that can hold all of it).
    runs: str = "smallest whole"


class Data(RunConfig):
    """Which data, and how they are dealt to the terminals."""

    name: Literal["digits", "mnist"] = "digits"
    path: str = ""
    scheme: Literal["iid", "dirichlet"] = "dirichlet"
    alpha: float = Field(1.0, gt=0)

    def options(self) -> dict[str, float]:
        """What the chosen scheme takes."""
        return {"alpha": self.alpha, "min_size": 20} if self.scheme == "dirichlet" else {}


class ModelConfig(RunConfig):
    """The global model, a multi-layer perceptron, and what decides how much of it a terminal of the street gets."""

    #: Units of its hidden layers.
    hidden: str = "256 128"
    #: No terminal is given a model with which its round would last longer, when it has nothing else to do.
    deadline_s: float = Field(2.0, gt=0)

    @property
    def layers(self) -> tuple[int, ...]:
        """Units of the hidden layers.

        Raises:
            ConfigError: a word that is no number, or too few units to make narrower.
        """
        words = self.hidden.split()
        if not words or not all(word.isdecimal() and int(word) >= 16 for word in words):
            raise ConfigError(
                f"model.hidden = {self.hidden!r}: expected numbers from 16 on with spaces between, say '256 128'"
            )
        return tuple(map(int, words))


class Train(RunConfig):
    """Training of a terminal that has a model of its own. Requests take effect after so many steps as one message."""

    steps: int = Field(15, ge=1)
    steps_per_message: int = Field(5, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(0.3, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)


class Spike(RunConfig):
    """Somebody opens another program on the terminals of some classes, in mid-round, and closes it in another one."""

    classes: str = "full medium"
    first_round: int = Field(4, ge=1)
    last_round: int = Field(7, ge=1)
    #: Of either round: from this step on, and until before it.
    at_step: int = Field(5, ge=0)
    load: float = Field(0.9, ge=0, lt=1)


class Hall(RunConfig):
    """Terminals that hold one model together. `leaver` counts from 0 among them; a round of 0 is never."""

    #: Of a model with n hidden layers there are n + 1 pieces at most.
    pieces: int = Field(3, ge=2)
    steps: int = Field(5, ge=1)
    batch_size: int = Field(64, ge=1)
    leaver: int = Field(2, ge=0)
    leaves_round: int = Field(5, ge=0)
    back_round: int = Field(8, ge=0)


class MixedDevices(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(10, ge=1)
    #: Three rounds, whatever num-server-rounds says, with spike and leaving in the second, and nothing beside them.
    quick: bool = False
    compare: Compare = Compare()
    data: Data = Data()
    model: ModelConfig = ModelConfig()
    train: Train = Train()
    spike: Spike = Spike()
    hall: Hall = Hall()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw who trained what, accuracy, seconds, and who has which data.
    pictures: bool = True

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(3, self.num_server_rounds) if self.quick else self.num_server_rounds

    @property
    def spiking(self) -> tuple[str, ...]:
        """Classes with the load spike.

        Raises:
            ConfigError: one that there is not.
        """
        named = tuple(self.spike.classes.split())
        if strange := [name for name in named if name not in CLASS_NAMES]:
            raise ConfigError(
                f"spike.classes = {self.spike.classes!r}: no class {strange[0]!r}; {', '.join(CLASS_NAMES)} are"
            )
        return named

    @property
    def spike_rounds(self) -> tuple[int, int]:
        """The round in which the spike begins, and that in which it ends."""
        return (2, 3) if self.quick else (self.spike.first_round, self.spike.last_round)

    @property
    def leaver_away(self) -> tuple[int, int]:
        """The round in the midst of which the leaver goes, and that with which it is back."""
        return (2, 3) if self.quick else (self.hall.leaves_round, self.hall.back_round)

    @property
    def beside(self) -> list[RunName]:
        """What is learned beside the run itself.

        Raises:
            ConfigError: a run that there is not.
        """
        known: tuple[RunName, ...] = ("smallest", "whole")
        asked = self.compare.runs.split()
        if strange := [name for name in asked if name not in known]:
            raise ConfigError(f"compare.runs = {self.compare.runs!r}: no run {strange[0]!r}; {', '.join(known)} are")
        return [] if self.quick else [name for name in known if name in asked]

    def check(self, terminals: int) -> None:
        """Whether there are terminals enough, and the other keys can be.

        Raises:
            ConfigError: not so.
        """
        need = STREET + self.hall.pieces
        if terminals < need:
            raise ConfigError(
                f"{terminals} terminals: {STREET} stand in the street and hall.pieces = {self.hall.pieces} need as "
                f"many in the hall; start {need}, or one more as a spare"
            )
        if self.hall.pieces > len(self.model.layers) + 1:
            raise ConfigError(
                f"hall.pieces = {self.hall.pieces}: a model with {len(self.model.layers)} hidden layers makes "
                f"{len(self.model.layers) + 1} pieces at most"
            )
        if self.hall.leaver >= terminals - STREET:
            raise ConfigError(f"hall.leaver = {self.hall.leaver}: the hall has {terminals - STREET} terminals, from 0")
        if self.spike.last_round < self.spike.first_round:
            raise ConfigError(
                f"spike.last-round = {self.spike.last_round} is before spike.first-round = {self.spike.first_round}"
            )
        _ = self.model.layers, self.spiking, self.beside
