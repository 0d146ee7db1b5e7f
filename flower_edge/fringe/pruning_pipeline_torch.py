"""Pruning of one connection of a `Pipeline`: rank its channels, prune it, heal it. Each gives a new pipeline.

The pipeline that is handed in stays as it was, so rolling back is to go on with it. Nothing here decides how many
channels to keep, or in which order connections are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy.typing as npt
import torch

from ..errors import FringeError
from .channel_choice import ChannelRanking
from .fringe_torch import Fringe
from .healing_torch import Carry, Healed, Recipe, distil_fringe, heal_locally
from .pipeline_torch import Pipeline
from .pruning_torch import prune_connection, rank_channels, run_part
from .together_torch import teach_fringe
from .wire_torch import carried

__all__ = ["heal", "heal_together", "prune", "rank", "received"]

#: Samples whose scores are taken at once.
_BATCH: Final = 256


def rank(
    pipeline: Pipeline, connection: int, x: torch.Tensor, fringe: Fringe, *, tensor: int = 0, axis: int = 1
) -> ChannelRanking:
    """Channels of one tensor of a connection, in the order in which they are given up.

    Args:
        pipeline: compressed or not.
        connection: its number.
        x: inputs of the model [samples, ...]; a few hundred do, without labels.
        fringe: the layers that may change.
        tensor: which of those that cross.
        axis: of its channels, in a tensor with the batch first: 2 for [batch, steps, features].

    Raises:
        FringeError: no such connection; as `narrow_inputs`.
    """
    _check(pipeline, connection)
    producer, consumer = (part.module for part in pipeline.parts[connection : connection + 2])
    given = received(pipeline, connection, x)
    return rank_channels(producer, consumer, given, tensor=tensor, axis=axis, allowed=fringe.layers())


def prune(
    pipeline: Pipeline,
    connection: int,
    keep: Sequence[int],
    A: npt.ArrayLike | None = None,
    *,
    fringe: Fringe,
    tensor: int = 0,
    axis: int = 1,
) -> Pipeline:
    """The pipeline with fewer channels on one connection, and smaller fringe layers on both of its sides.

    What crosses is one version on; wire forms stay. Another host that holds the same pipeline gets the same shapes from
    the same call, and the arrays by `with_state`.

    Args:
        keep: of the channels that cross now: `ranking.keep(8)`.
        A: `ranking.map(keep)`; None: channels that are not sent are 0.

    Raises:
        FringeError: no such connection; as `prune_connection`; a wire form that the fewer channels do not go with.
    """
    _check(pipeline, connection)
    producer, consumer = pipeline.parts[connection : connection + 2]
    example = received(pipeline, connection, pipeline.example)
    found = prune_connection(
        producer.module, consumer.module, keep, A,
        example=example, tensor=tensor, axis=axis, allowed=fringe.layers(),
    )  # fmt: skip
    return pipeline.with_modules({producer.machine: found.producer.part, consumer.machine: found.consumer.part})


def heal(
    whole: Pipeline,
    pruned: Pipeline,
    connection: int,
    x: torch.Tensor,
    fringe: Fringe,
    *,
    recipe: Recipe | None = None,
    score: Callable[[Pipeline], float] | None = None,
) -> tuple[Pipeline, Healed]:
    """Local healing of one connection, through its wire; see `heal_locally`.

    Args:
        whole: before any compression: it says what the fringe should compute.
        pruned: not changed.
        connection: its number.
        x: inputs of the model [samples, ...], without labels.
        fringe: the layers that may learn.
        recipe: how to train.
        score: of a pipeline, more is better; healing that does not raise it is dropped.

    Returns:
        The healed pipeline, or `pruned` itself where healing did not help; and what was found.

    Raises:
        FringeError: no such connection; a whole pipeline of another model, or cut elsewhere; as `heal_locally`.
    """
    _check(pruned, connection)
    if whole.digest != pruned.digest or [part.units for part in whole.parts] != [part.units for part in pruned.parts]:
        raise FringeError(
            f"a whole pipeline on {', '.join(whole.machines)} and a pruned one on {', '.join(pruned.machines)}, of "
            "another model or cut elsewhere; give the pipeline that the pruned one was made of"
        )
    producer, consumer = pruned.parts[connection : connection + 2]
    teacher = whole.parts[connection : connection + 2]
    layers = [*fringe.side(connection, "producer").layers, *fringe.side(connection, "consumer").layers]

    def scored(*modules: torch.fx.GraphModule) -> float:
        assert score is not None
        return score(pruned.with_modules(dict(zip((producer.machine, consumer.machine), modules, strict=True))))

    carry: Carry = partial(carried, pruned.wires[connection])
    found = heal_locally(
        (teacher[0].module, teacher[1].module),
        (producer.module, consumer.module),
        received(pruned, connection, x),
        layers,
        teacher_inputs=received(whole, connection, x),
        carry=carry,
        recipe=recipe,
        score=None if score is None else scored,
    )
    if not found.healed:
        return pruned, replace(found, parts=(producer.module, consumer.module))
    modules = {producer.machine: found.parts[0], consumer.machine: found.parts[1]}
    return pruned.with_modules(modules), found


def heal_together(
    whole: Pipeline,
    pruned: Pipeline,
    x: torch.Tensor,
    fringe: Fringe,
    *,
    recipe: Recipe | None = None,
    score: Callable[[Pipeline], float] | None = None,
) -> tuple[Pipeline, Healed]:
    """The fringe layers of all machines learn towards the uncompressed model's scores, through all wires.

    Local healing looks at one connection at a time and counts every number at it alike; here those count that the
    classes depend on. It runs the whole model, so it takes much longer. See `distil_fringe`, and with `features` or
    `shift` in the recipe `teach_fringe`.

    Args:
        whole: before any compression: the teacher.
        pruned: not changed.
        x: inputs of the model [samples, ...], without labels.
        fringe: the layers that may learn.
        recipe: how to train.
        score: of a pipeline, more is better; healing that does not raise it is dropped.

    Returns:
        The healed pipeline, or `pruned` itself where healing did not help; and what was found.

    Raises:
        FringeError: as `distil_fringe`.
    """
    carries = [partial(carried, wire) for wire in pruned.wires]
    scored = None if score is None else lambda *modules: score(_with(pruned, modules))
    if recipe is not None and (recipe.features or recipe.shift):
        found = teach_fringe(
            [part.module for part in whole.parts],
            [part.module for part in pruned.parts],
            x,
            [fringe.side(number, "consumer").layers for number in range(len(pruned.wires))],
            fringe.layers(),
            carries=carries,
            recipe=recipe,
            score=scored,
        )
        return (_with(pruned, found.parts) if found.healed else pruned), found
    teacher = torch.cat([whole.run(x[first : first + _BATCH]) for first in range(0, len(x), _BATCH)])
    found = distil_fringe(
        [part.module for part in pruned.parts],
        [x],
        teacher,
        fringe.layers(),
        carries=carries,
        recipe=recipe,
        score=scored,
    )
    return (_with(pruned, found.parts) if found.healed else pruned), found


def _with(pipeline: Pipeline, modules: Sequence[torch.fx.GraphModule]) -> Pipeline:
    return pipeline.with_modules(dict(zip(pipeline.machines, modules, strict=True)))


def received(pipeline: Pipeline, number: int, x: torch.Tensor) -> list[torch.Tensor]:
    """What part `number` takes when the model takes x: through all parts and wires before it."""
    tensors = [x]
    for part, wire in zip(pipeline.parts[:number], pipeline.wires, strict=False):
        with torch.no_grad():
            tensors = list(carried(wire, tuple(run_part(part.module, tensors))))
    return tensors


def _check(pipeline: Pipeline, connection: int) -> None:
    if isinstance(connection, bool) or not isinstance(connection, int) or not 0 <= connection < len(pipeline.wires):
        raise FringeError(
            f"connection {connection!r} of a pipeline that has {len(pipeline.wires)}; use 0 or more, below that"
        )
