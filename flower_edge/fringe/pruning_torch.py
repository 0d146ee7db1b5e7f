"""A connection between two parts of a model with fewer channels on it: rank them, then narrow both its ends.

What is sent gets smaller, and so do the layers on both sides; other layers are not touched. Nothing here trains or
sends: `healing_torch` trains, and whoever serves replays the same call on its own copy of a part and then sets arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import fx

from ..errors import FringeError
from .channel_choice import ChannelRanking, ranking
from .channel_steps_torch import does_not_fit
from .parts_torch import evaluating
from .pruning_inputs_torch import narrow_inputs, reader_gram
from .pruning_outputs_torch import Narrowed, narrow_outputs, writer_norms
from .reconstruction import second_moment

__all__ = ["Narrowed", "PrunedConnection", "narrow_inputs", "narrow_outputs", "prune_connection", "rank_channels",
           "reader_gram", "run_part", "writer_norms"]  # fmt: skip


@dataclass(frozen=True, eq=False)
class PrunedConnection:
    """Both ends of a connection after pruning, and what it saved.

    Attributes:
        producer, consumer: new parts with copies of all arrays; what they were made of is as it was.
        sent_bytes: of the tensors of one sample, without headers: before, after.
        parameters: in both parts: before, after.
    """

    producer: Narrowed
    consumer: Narrowed
    sent_bytes: tuple[int, int]
    parameters: tuple[int, int]


def run_part(part: fx.GraphModule, inputs: Sequence[torch.Tensor], batch_size: int = 256) -> list[torch.Tensor]:
    """What a part gives in evaluation mode, without gradients, in batches; modes are left as they were.

    Args:
        part: of a pipeline.
        inputs: tensors [samples, ...], as many as it takes.
        batch_size: samples at a time.

    Returns:
        tensors [samples, ...].

    Raises:
        FringeError: tensors that the part cannot take.
    """
    try:
        with torch.no_grad(), evaluating(part):
            found = []
            for first in range(0, max(1, len(inputs[0])), batch_size):
                given = part(*(tensor[first : first + batch_size].clone() for tensor in inputs))
                found.append(list(given) if isinstance(given, tuple | list) else [given])
    except Exception as error:  # the model's own code
        raise does_not_fit(inputs, error) from error
    return [torch.cat(batches) for batches in zip(*found, strict=True)]


def rank_channels(
    producer: fx.GraphModule,
    consumer: fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    *,
    tensor: int = 0,
    axis: int = 1,
    allowed: Sequence[str] | None = None,
) -> ChannelRanking:
    """Channels of one tensor of a connection, in the order in which they are given up; see `ranking`.

    Args:
        producer, consumer: neighbouring parts.
        inputs: tensors [samples, ...] as the producer takes them; no labels are needed.
        tensor: which of those that are sent.
        axis: of the channels.
        allowed: layers of the consumer that may change.

    Raises:
        FringeError: as `narrow_inputs`; or activations that are not finite.
    """
    sent = _sent(producer, inputs, tensor)
    gram = reader_gram(consumer, tensor, example=[t[:1] for t in sent], axis=axis, allowed=allowed)
    return ranking(second_moment(sent[tensor].cpu().numpy(), axis), gram)


def prune_connection(
    producer: fx.GraphModule,
    consumer: fx.GraphModule,
    keep: Sequence[int],
    A: npt.ArrayLike | None = None,
    *,
    example: Sequence[torch.Tensor],
    tensor: int = 0,
    axis: int = 1,
    allowed: Sequence[str] | None = None,
) -> PrunedConnection:
    """Send only some channels of one tensor, and make both ends fit.

    The two new parts, one after the other, compute what the old ones compute with A times the kept channels between
    them (0 in the others, without A). With all channels kept and no A that is the same bit for bit.

    Args:
        producer, consumer: neighbouring parts; the tensors one gives are those the other takes. Not changed.
        keep: channels, increasing: `ranking.keep(8)`.
        A: [channels, kept]: `ranking.map(keep)`.
        example: tensors as the producer takes them.
        tensor: which of those that are sent.
        axis: of the channels: 1 for [samples, channels, ...], 2 for [samples, steps, features].
        allowed: names of the layers, of either part, that may change; None: all.

    Raises:
        FringeError: as `narrow_outputs` and `narrow_inputs`; parts that do not fit.
    """
    sent = [t[:1] for t in _sent(producer, [t[:1] for t in example], tensor)]
    reader = narrow_inputs(consumer, tensor, keep, A, example=sent, axis=axis, allowed=allowed)
    writer = narrow_outputs(producer, tensor, keep, example=example, axis=axis, allowed=allowed)
    size = sum(t.numel() * t.element_size() for t in sent)
    own = sent[tensor]
    less = own.numel() * own.element_size() // own.shape[axis] * (own.shape[axis] - len(keep))
    return PrunedConnection(
        writer,
        reader,
        (size, size - less),
        (_count(producer) + _count(consumer), _count(writer.part) + _count(reader.part)),
    )


def _sent(producer: fx.GraphModule, inputs: Sequence[torch.Tensor], tensor: int) -> list[torch.Tensor]:
    sent = run_part(producer, inputs)
    if not 0 <= tensor < len(sent):
        raise FringeError(f"tensor {tensor} of a connection that carries {len(sent)}; use 0 or more, below that")
    return sent


def _count(part: fx.GraphModule) -> int:
    return sum(parameter.numel() for parameter in part.parameters())
