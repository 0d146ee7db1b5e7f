"""All fringes at once: towards the uncompressed model's scores and towards what it computes behind each cut.

Scores alone tell little of what a wide fringe should compute, the least on pictures that the teacher knows by heart.
Beside them stands here what `heal_locally` learns from, of all connections, and moved pictures are pictures more. All
arrays but those of the fringe layers stay as they are, see `healing_torch`.

Sources: towards features: Romero et al., "FitNets: Hints for thin deep nets", ICLR 2015; towards scores: Hinton,
Vinyals, Dean, "Distilling the knowledge in a neural network", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import fx
from torch.nn import functional

from ..errors import FringeError
from .channel_steps_torch import copied, outputs
from .healing_torch import Carry, Healed, Recipe, carried_by, healed_by, learning, narrowed_as
from .sections_torch import around, shortened, up_to

__all__ = ["teach_fringe"]

#: Samples of which the sizes of features are taken.
_SIZED: Final = 256


def teach_fringe(
    whole: Sequence[fx.GraphModule],
    pruned: Sequence[fx.GraphModule],
    x: torch.Tensor,
    consumers: Sequence[Sequence[str]],
    layers: Sequence[str],
    *,
    carries: Sequence[Carry],
    recipe: Recipe,
    temperature: float = 3.0,
    score: Callable[..., float] | None = None,
) -> Healed:
    """Train the fringe layers of a whole pipeline; loss: divergence + features x mean of the errors behind the fringes.

    Args:
        whole: parts before any compression, in order.
        pruned: the same after it; not changed.
        x: inputs of the model [samples, ...]; with `recipe.shift`, pictures [samples, channels, height, width].
        consumers: by connection, the fringe layers of the part that reads it.
        layers: names of all layers that may learn.
        carries: by connection, what becomes of the tensors on their way.
        recipe: how to train, with `features` and `shift`.
        temperature: divides both sides' scores.
        score: of all parts, more is better; healing is kept only if it is above that of no healing.

    Raises:
        FringeError: layers that are not in the parts; samples that are too few, or are no pictures and are to be moved.
    """
    if recipe.shift and x.dim() != 4:
        raise FringeError(
            f"inputs of shape {list(x.shape)} to be moved by {recipe.shift} pixels; give pictures [samples, channels, "
            "height, width], or shift=0"
        )
    parts = [copied(part) for part in pruned]
    parameters = learning(parts, layers)
    names = [_behind(part, own) for part, own in zip(whole[1:], consumers, strict=True)]
    told, made = _Told.of(whole, names), _Told.of(parts, names)
    with torch.no_grad():
        sizes = [float(one.square().mean()) or 1.0 for one in told(x[:_SIZED])[0]]
    moves = torch.Generator().manual_seed(recipe.seed)
    trained_on, _ = recipe.split(len(x))

    def loss(given: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features, scores = told(given)
        found, own = made(given, carries)
        soft = functional.softmax(scores.float() / temperature, dim=-1).flatten(0, -2)
        logs = functional.log_softmax(own.float() / temperature, dim=-1).flatten(0, -2)
        total = functional.kl_div(logs, soft, reduction="batchmean") * temperature**2
        if not recipe.features or not found:
            return total
        targets = [
            one
            for part, own_names, at in zip(parts[1:], names, told.places, strict=True)
            for one in narrowed_as(part, own_names, features[at])
        ]
        errors = [functional.mse_loss(one.float(), target.float()) for one, target in zip(found, targets, strict=True)]
        return total + recipe.features * torch.stack([e / size for e, size in zip(errors, sizes, strict=True)]).mean()

    def moved(numbers: torch.Tensor) -> torch.Tensor:
        if not recipe.shift:
            return loss(x[numbers])
        by = torch.randint(-recipe.shift, recipe.shift + 1, (2,), generator=moves).tolist()
        return loss(torch.roll(x[numbers], (by[0], by[1]), (2, 3)))

    return healed_by(parts, parameters, moved, trained_on, len(x), recipe, score, lambda numbers: loss(x[numbers]))


@dataclass(frozen=True, eq=False)
class _Told:
    """Parts that also give the tensors of some names.

    Attributes:
        first: the first part.
        others: the rest; each gives the tensors of its names, then its own.
        counts: of the names.
    """

    first: fx.GraphModule
    others: tuple[fx.GraphModule, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[fx.GraphModule], names: Sequence[Sequence[str]]) -> _Told:
        others = [
            shortened(part, [*own, *(node.name for node in outputs(part)[1])])
            for part, own in zip(parts[1:], names, strict=True)
        ]
        return cls(parts[0], tuple(others), tuple(len(own) for own in names))

    @property
    def places(self) -> list[slice]:
        """Of each part's own among all."""
        return [slice(sum(self.counts[:n]), sum(self.counts[: n + 1])) for n in range(len(self.counts))]

    def __call__(
        self, x: torch.Tensor, carries: Sequence[Carry] | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        features: list[torch.Tensor] = []
        tensors: Sequence[torch.Tensor] = self.first(x)
        for number, (part, count) in enumerate(zip(self.others, self.counts, strict=True)):
            given = part(*carried_by(tuple(tensors), None if carries is None else carries[number]))
            features += given[:count]
            tensors = given[count:]
        return features, tensors[0]


def _behind(part: fx.GraphModule, layers: Sequence[str]) -> list[str]:
    """Names of the first single tensor behind the fringe layers; none where it has none."""
    span = around(part, layers)
    return up_to(part, span[1]) if span else []
