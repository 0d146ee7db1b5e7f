"""What distillation is asked for (`DistilGoal`) and how it is trained (`DistilRecipe`). Nothing here trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from ..errors import FringeError
from .links import Link
from .pair_shapes import transfer_budget_bytes

__all__ = ["DistilGoal", "DistilRecipe", "Phase", "phases"]


@dataclass(frozen=True)
class DistilGoal:
    """What one inference may cost at a connection: bytes, a latency over a known link, or both.

    Attributes:
        most_bytes: of its frame, header included.
        latency_s: from the producer's first number to the consumer's last; needs `link`.
        link: its goodput and delay.
        compute_s: of encoder and decoder.

    Raises:
        FringeError: neither bytes nor a latency, a latency without a link, or one that delay alone exceeds.

    >>> DistilGoal(latency_s=0.0105, link=Link(10e6, 0.010)).budget_bytes
    625
    """

    most_bytes: int | None = None
    latency_s: float | None = None
    link: Link | None = None
    compute_s: float = 0.0

    def __post_init__(self) -> None:
        if self.most_bytes is None and self.latency_s is None:
            raise FringeError(
                "a goal of neither bytes nor latency; give DistilGoal(most_bytes=552), or latency_s=0.011"
            )
        if (self.latency_s is None) != (self.link is None):
            raise FringeError(
                f"latency_s = {self.latency_s} and link = {self.link}; give both, or neither: it is that of a link"
            )
        _ = self.budget_bytes

    @property
    def budget_bytes(self) -> int:
        """The bytes that keep all of it."""
        budgets = [] if self.most_bytes is None else [int(self.most_bytes)]
        if self.latency_s is not None and self.link is not None:
            budgets.append(transfer_budget_bytes(self.latency_s, self.link, self.compute_s))
        return min(budgets)


@dataclass(frozen=True)
class DistilRecipe:
    """How pairs are trained: first to the tensors at the cut, then to the outputs of the uncompressed model.

    Attributes:
        regress_epochs: over at most `regress_samples` samples, of one pair by itself. Without them a pair that begins
            at random stays at chance.
        distil_epochs: end to end; 0 leaves it at regression.
        regress_samples: whose activations are kept in memory.
        batch: samples of a step.
        regress_lr, distil_lr: step sizes of Adam, which fall to zero along a cosine.
        outputs: "classes", scores along the last axis, or "numbers".
        temperature: that softens the scores of both models; of classes only.
        shift: pixels by which each batch of pictures is moved at most, end to end only; what leaves on one side comes
            back on the other. 0 moves nothing.
        label_share: of the labels' own loss, where there are labels; the rest is the uncompressed model's.
        order: "together" trains all pairs end to end at once, "in turn" one connection after the other, as given.
        search: how many shapes of code are tried by a short regression where only a budget is given; 1 takes the first.
        seed: of initial parameters and of the order of samples.

    Raises:
        FringeError: a value that is none of these.
    """

    regress_epochs: int = 4
    distil_epochs: int = 3
    regress_samples: int = 2500
    batch: int = 64
    regress_lr: float = 4e-3
    distil_lr: float = 1e-3
    outputs: Literal["classes", "numbers"] = "classes"
    temperature: float = 3.0
    shift: int = 0
    label_share: float = 0.3
    order: Literal["together", "in turn"] = "together"
    search: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"regress_epochs": 0, "distil_epochs": 0, "regress_samples": 2, "batch": 2, "search": 1}
        least |= {"shift": 0, "seed": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise FringeError(f"{name} = {value!r}: expected a whole number of {lowest} or more")
        for name in ("regress_lr", "distil_lr", "temperature"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
                raise FringeError(f"{name} = {getattr(self, name)!r}: expected a positive number")
        if not 0 <= self.label_share <= 1:
            raise FringeError(f"label_share = {self.label_share!r}: expected 0 to 1")
        if self.outputs not in ("classes", "numbers") or self.order not in ("together", "in turn"):
            raise FringeError(
                f"outputs = {self.outputs!r} and order = {self.order!r}; expected 'classes' or 'numbers', and "
                "'together' or 'in turn'"
            )

    def config(self) -> dict[str, str | int | float]:
        """Plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Attributes:
        kind: "regress" or "distil".
        trained: connections whose pairs move.
        active: connections whose pairs are in the pipeline meanwhile; at the others tensors pass as they are.
        epochs: how many.
    """

    kind: Literal["regress", "distil"]
    trained: tuple[int, ...]
    active: tuple[int, ...]
    epochs: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kind} {', '.join(map(str, self.trained))}"


def phases(connections: tuple[int, ...], recipe: DistilRecipe) -> tuple[Phase, ...]:
    """What is trained after what.

    Args:
        connections: in the order in which they are asked for, such as the slowest first.
        recipe: its order and epochs.

    >>> [phase.name for phase in phases((1, 0), DistilRecipe())]
    ['regress 0', 'regress 1', 'distil 0, 1']
    >>> [phase.name for phase in phases((1, 0), DistilRecipe(order="in turn"))]
    ['regress 1', 'distil 1', 'regress 0', 'distil 0']
    """
    found: list[Phase] = []
    if recipe.order == "together":
        rising = tuple(sorted(connections))
        for place, one in enumerate(rising):
            # A pair sees what the pairs before it make, and learns to give what there was without them.
            found.append(Phase("regress", (one,), rising[: place + 1], recipe.regress_epochs))
        return (*found, Phase("distil", rising, rising, recipe.distil_epochs))
    for place, one in enumerate(connections):
        active = connections[: place + 1]
        found.append(Phase("regress", (one,), active, recipe.regress_epochs))
        found.append(Phase("distil", (one,), active, recipe.distil_epochs))
    return tuple(found)
