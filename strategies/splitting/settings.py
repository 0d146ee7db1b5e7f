"""What every order of a run says alike: values. Nothing here plans."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.costs import Job
from flower_edge.splitting.order import ArchitectureSpec, LossName, OptimiserSpec, WorkOrder
from flower_edge.splitting.plan import Assignment

from .arguments import check_arguments
from .prepared import state_copies

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Arguments of `Split` that end up in orders; see there."""

    steps_per_round: int
    batch_size: int
    optimiser: OptimiserSpec
    loss: LossName
    merge_every: int
    labels: Literal["cloud", "device"]
    tail: int
    variant: Literal["v1", "v2"]
    keep_optimiser: bool
    up: Mapping[str, Any] | None
    down: Mapping[str, Any] | None
    noise: float
    nopeek: float
    measure: Literal["rounds", "reports"]
    assumed: Capacity
    seed: int
    shared_links: Mapping[int, Collection[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_arguments(
            choices={name: getattr(self, name) for name in ("labels", "variant", "measure", "loss")},
            counts={
                "steps_per_round": (self.steps_per_round, 1),
                "batch_size": (self.batch_size, 1),
                "merge_every": (self.merge_every, 1),
                "tail": (self.tail, 0),
                "seed": (self.seed, 0),
            },
            amounts={"noise": self.noise, "nopeek": self.nopeek},
        )

    @property
    def shared(self) -> bool:
        """Whether there is one cloud half for all."""
        return self.variant == "v2"

    def job(self) -> Job:
        """What a round is, for planners."""
        return Job(
            batch_size=self.batch_size,
            steps=self.steps_per_round,
            merge_every=self.merge_every,
            labels=self.labels,
            tail=self.tail,
            state_copies=state_copies(self.optimiser),
        )

    def order(
        self,
        round: int,
        number: int,
        architecture: ArchitectureSpec,
        part: Assignment,
        last: int,
        first_step: int,
        standard: dict[str, Any] | None,
    ) -> WorkOrder:
        """One device's, of its part of a plan; `last` is how many units the model has."""
        alone = part.cut >= last
        up, down = part.up or self.up, part.down or self.down
        return WorkOrder(
            round=round,
            number=number,
            architecture=architecture,
            cut=part.cut,
            tail=0 if alone else self.tail,
            labels=self.labels,
            first_step=first_step,
            steps=self.steps_per_round,
            batch_size=self.batch_size,
            seed=self.seed + number,
            loss=self.loss,
            optimiser=self.optimiser,
            up=None if up is None or alone else dict(up),
            down=None if down is None or alone else dict(down),
            standard=standard,
            noise=0.0 if alone else self.noise,
            nopeek=0.0 if alone else self.nopeek,
        )

    def plain(self) -> dict[str, Any]:
        """What a checkpoint must have been made with."""
        return {
            "steps_per_round": self.steps_per_round,
            "batch_size": self.batch_size,
            "optimiser": self.optimiser.model_dump_json(),
            "loss": self.loss,
            "merge_every": self.merge_every,
            "labels": self.labels,
            "tail": self.tail,
            "variant": self.variant,
            "keep_optimiser": self.keep_optimiser,
            "up": None if self.up is None else json.dumps(dict(self.up), sort_keys=True),
            "down": None if self.down is None else json.dumps(dict(self.down), sort_keys=True),
            "noise": self.noise,
            "nopeek": self.nopeek,
            "seed": self.seed,
        }
