"""The run config of the gossip scenario."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flower_edge.config import RunConfig


class Data(RunConfig):
    """Where MNIST lies, and how many classes each node holds; 0 is what suits the task, 6 for pictures."""

    path: str = ""
    classes_per_node: int = Field(0, ge=0)


class Train(RunConfig):
    """Local training of a round; 0 is what suits the task."""

    steps: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(0.0, ge=0)
    momentum: float = Field(0.5, ge=0, lt=1)
    #: Of the learning rate, per round: what a node learns alone pulls the models apart to the end.
    decay: float = Field(0.99, gt=0, le=1)


class Compare(RunConfig):
    """What is drawn beside the run's own curves."""

    #: Controllers drawn in the pictures of latency and regret, without learning.
    controllers: str = "equal nocomm ogd optimum"
    #: Learned beside the run, one after the other, as [1] FIG. 10 does without communication; empty: none.
    learned: str = "nocomm"


class Gossip(RunConfig):
    """Everything the scenario can be told."""

    seed: int = Field(7, ge=0)
    num_server_rounds: int = Field(40, ge=1)
    #: Five rounds, whatever num-server-rounds says, and nothing learned beside them.
    quick: bool = False
    task: Literal["digits", "mnist", "traffic", "characters"] = "digits"
    #: A name of flower_edge.control.named, such as "dcent-literal" or "one-peer".
    controller: str = "dcent-pruned"
    #: Radio and devices: a name of flower_edge.topology.set_ups, such as "nlos" or "macro".
    set_up: str = "nlos"
    mailbox: Literal["relay", "shared-memory"] = "relay"
    signalling: Literal["rows", "requirements", "scalars"] = "rows"
    final: Literal["server", "averaging", "local"] = "server"
    #: Models up to this many rounds old are mixed in; 0 waits for everyone.
    staleness: int = Field(0, ge=0)
    #: Links whose weight falls below this are given up; below 0: the controller's own threshold.
    prune: float = Field(-1.0, lt=1)
    #: The edge server is a further worker: it trains, mixes and counts.
    server_is_worker: bool = False
    #: Rounds between two readings of every node's accuracy.
    evaluate_every: int = Field(2, ge=1)
    data: Data = Data()
    train: Train = Train()
    compare: Compare = Compare()
    round_timeout_s: float = Field(300.0, gt=0)
    #: Draw the network at start and end, latency, regret and accuracies.
    pictures: bool = True

    @property
    def named(self) -> list[str]:
        """Every controller that is asked for."""
        return [self.controller, *self.compare.controllers.split(), *self.compare.learned.split()]

    @property
    def rounds(self) -> int:
        """How many rounds there are."""
        return min(5, self.num_server_rounds) if self.quick else self.num_server_rounds
