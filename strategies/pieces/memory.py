"""`Memory`: what the server keeps of chains between rounds, beside the model. Values; nothing here trains or sends.

A round begins from the loop's model, so of a chain's arrays nothing is kept. What is: where its batches go on, the
state of its optimiser where that is wanted, and the heads of pieces that learn by themselves. All of it follows units,
not terminals: a cut may move, and a piece may change hands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from flower_edge.pieces.heads import check_head
from flower_edge.splitting.optimiser_state import state_of
from flower_edge.splitting.profile import ModelProfile

from .plane import ChainTask

__all__ = ["Memory"]

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Memory:
    """Of a run; keys are numbers of chains and positions of cuts, as text.

    Attributes:
        steps: that a chain has made in the run.
        optimisers: by chain, state of the whole model's optimiser, by the names of `optimiser_state`.
        heads: by cut, parameters of the head behind it; averaged over the chains after each round.
        head_optimisers: by `chain/cut`.
    """

    steps: dict[str, int] = field(default_factory=dict)
    optimisers: dict[str, Arrays] = field(default_factory=dict)
    heads: dict[str, Arrays] = field(default_factory=dict)
    head_optimisers: dict[str, Arrays] = field(default_factory=dict)

    def first_step(self, chain: int) -> int:
        """Where a chain's batches go on."""
        return self.steps.get(str(chain), 0)

    def optimiser(self, chain: int, names: Collection[str]) -> Arrays:
        """State of the optimiser of these parameters; empty where they begin at rest."""
        return state_of(self.optimisers.get(str(chain), {}), names)

    def head(self, cut: int, profile: ModelProfile) -> Arrays:
        """Parameters of the head at a cut; of a cut that had none, its first ones, the same on every machine.

        Raises:
            SplitError: no head can be put there; names cuts nearby where one can.
        """
        if (kept := self.heads.get(str(cut))) is not None:
            return kept
        from flower_edge.models.heads_torch import classifier_head
        from flower_edge.models.train_torch import get_arrays

        check_head(profile, cut)
        return get_arrays(classifier_head(profile.cuts[cut].shapes[0], profile.cuts[-1].shapes[0], seed=cut))

    def head_optimiser(self, chain: int, cut: int) -> Arrays:
        """State of the optimiser of a chain's head."""
        return self.head_optimisers.get(f"{chain}/{cut}", {})

    def took(self, chains: Sequence[ChainTask], *, keep_optimiser: bool) -> None:
        """These chains have ended their round."""
        for chain in chains:
            number = str(chain.number)
            self.steps[number] = self.first_step(chain.number) + chain.tasks[0].order.work.steps
            if not keep_optimiser:
                continue
            self.optimisers[number] = {k: v for task in chain.tasks for k, v in task.new_optimiser.items()}
            for task in chain.tasks:
                if task.head:
                    self.head_optimisers[f"{number}/{task.order.stop}"] = dict(task.new_head_optimiser)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "steps": dict(self.steps),
            **{
                name: {key: dict(arrays) for key, arrays in getattr(self, name).items()}
                for name in ("optimisers", "heads", "head_optimisers")
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Memory:
        """Inverse of `state_dict`."""
        kept = {name: {k: dict(v) for k, v in state[name].items()} for name in ("optimisers", "heads")}
        kept["head_optimisers"] = {k: dict(v) for k, v in state["head_optimisers"].items()}
        return cls({key: int(steps) for key, steps in state["steps"].items()}, **kept)
