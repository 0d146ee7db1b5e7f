"""The run config of the scenario in which everything is on, and what each part is when it is off."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig
from flower_edge.errors import ConfigError


class Cells(RunConfig):
    """What an edge does with its terminals."""

    #: `gossip`: they mix models with their neighbours; `fedavg`: they send them to the edge.
    kind: Literal["gossip", "fedavg"] = "gossip"
    #: Of the links between terminals: a name of `flower-edge controllers --list`.
    controller: str = "dcent-pruned"
    #: Of what terminals send: a name of `flower-edge codecs list`.
    codec: str = "int8"


class Centre(RunConfig):
    """What stands between the centre and its edges."""

    #: Codecs of the models that edges send up, and of those that come down.
    up: str = "int8"
    down: str = "int8"
    #: Refuse what is malformed, and what is harmful on held-out data.
    gate: bool = True
    filter: bool = True
    #: Paid to edges for a round, by what they have contributed; 0: nothing.
    credits: int = Field(3, ge=0)


class Select(RunConfig):
    """Who of the terminals in coverage trains."""

    #: How many an edge asks; 0: all.
    per_edge: int = Field(5, ge=0)
    score: Literal["oort", "random"] = "oort"
    #: A rule over what terminals tell; empty: everybody.
    eligible: str = "unknown(battery) or battery >= 0.2 or charging"


class Area(RunConfig):
    """Where the edges are and how the terminals move. A terminal is away `away_share` of the time, `away_s` on end."""

    edges: int = Field(3, ge=1)
    width_m: float = Field(600.0, gt=0)
    height_m: float = Field(300.0, gt=0)
    radius_m: float = Field(220.0, gt=0)
    slowest_mps: float = Field(2.0, gt=0)
    fastest_mps: float = Field(8.0, gt=0)
    away_share: float = Field(0.1, ge=0, lt=1)
    away_s: float = Field(30.0, gt=0)


class Data(RunConfig):
    """Which data, where they lie, and how they are dealt to the terminals."""

    name: Literal["digits", "mnist"] = "digits"
    path: str = ""
    scheme: Literal["iid", "classes-per-node"] = "classes-per-node"
    classes_per_node: int = Field(6, ge=1)

    def options(self) -> dict[str, int]:
        """What the chosen scheme takes."""
        return {"k": self.classes_per_node} if self.scheme == "classes-per-node" else {}


class Train(RunConfig):
    """Local training of a round."""

    steps: int = Field(12, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.5, ge=0, lt=1)


class Faults(RunConfig):
    """Who is faulty: numbers of terminals with spaces between; empty: nobody."""

    #: Sends a model that is noise.
    noise: str = "4"

    @property
    def noisy(self) -> frozenset[int]:
        """Those terminals.

        Raises:
            ConfigError: a number that is none.
        """
        words = self.noise.split()
        if not all(word.isdecimal() for word in words):
            raise ConfigError(f"faults.noise = {self.noise!r}: expected numbers with spaces between, say '4 7'")
        return frozenset(map(int, words))


class Everything(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(10, ge=1)
    #: Of every edge, in each round of the centre.
    edge_rounds: int = Field(3, ge=1)
    #: Three rounds, whatever num-server-rounds says.
    quick: bool = False
    cells: Cells = Cells()
    centre: Centre = Centre()
    select: Select = Select()
    area: Area = Area()
    data: Data = Data()
    train: Train = Train()
    faults: Faults = Faults()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw the map, who was in which cell, accuracy and credits.
    pictures: bool = True

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(3, self.num_server_rounds) if self.quick else self.num_server_rounds
