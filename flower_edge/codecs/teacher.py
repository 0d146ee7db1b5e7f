"""The `Teacher` promise: what a server makes public for a codec, from the updates it has decoded. Nothing here sends.

A codec that lives on shared information says by `VectorCodec.teacher()` who provides it: the support that a lagged
leader used, or the weights of an autoencoder. Whoever runs the rounds (a layer of a strategy, a gradient exchange)
shows the teacher what was decoded and sends what it tells with the next round's messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .layout import Layout
from .sparse import Update

__all__ = ["Teacher", "Told"]

State = dict[str, Any]


@dataclass(frozen=True)
class Told:
    """What all nodes are told before a round; it becomes `Public.leader` and `Public.codebook`.

    Attributes:
        leader: sorted places, int64 [k], for this round only; `None` where there is none.
        codebook: in force from now on, until another comes; `None` where there is none.
    """

    leader: npt.NDArray[np.int64] | None = None
    codebook: bytes | None = None


class Teacher(Protocol):
    """Learns from decoded updates, between rounds. A frozen value; its state is handed in and handed back."""

    def init(self, layout: Layout) -> State:
        """The state before the first round: nested plain values and arrays, keys are str."""
        ...

    def learn(self, state: State, round: int, updates: Mapping[int, Update]) -> State:
        """What the nodes' updates of a round were, as decoded, by the node's stable number. None at all is allowed."""
        ...

    def tell(self, state: State, round: int) -> tuple[Told, State]:
        """What is public in a round, asked once before it."""
        ...

    def metrics(self, state: State) -> Mapping[str, float]:
        """Numbers to record: what a gate decided, how good a learned coder is."""
        ...
