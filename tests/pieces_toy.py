"""A small federation for models in pieces: terminals with samples, and one process that trains whole models to compare.

The model and the samples are those of `split_toy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.fedopt import FedOpt
from split_toy import BATCH, MODELS, MOMENTUM, SPEC, initial, merged, samples, start

from flower_edge.clients.pieces import pieces_client
from flower_edge.models import train_torch
from flower_edge.runtime import LocalGrid
from flower_edge.splitting.capacity import Capacity
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.wire import arrays_of, record_of

STEPS = 2


def number_of(context: Context) -> int:
    """Of the node."""
    return int(context.node_config["partition-id"])


def own(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """A terminal's own samples; as many as its number says."""
    return samples(number_of(context))


def segment(context: Context, segment: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a segment, whoever loads it."""
    return samples(segment)


def steady(context: Context, round: int) -> Capacity:
    """Every terminal's."""
    return Capacity(1e6 * (1 + number_of(context)))


def terminals(data: Any = own, **options: Any) -> ClientApp:
    """Their app."""
    return pieces_client(data, **{"models": MODELS, "capacity": steady, "modelled": True, **options})


@cache
def _default() -> ClientApp:
    """Made once: what it keeps of models need not be made for every test."""
    return terminals()


def pieces(**options: Any) -> Pieces:
    """A `Pieces` of the toy's sizes."""
    told = {"steps_per_round": STEPS, "batch_size": BATCH, "optimiser": MOMENTUM, "models": MODELS, **options}
    return Pieces(told.pop("architecture", SPEC), **told)


def run(strategy: Pieces, count: int, rounds: int = 1, *, app: ClientApp | None = None, **options: Any) -> ArrayRecord:
    """What it ends with on so many terminals."""
    with LocalGrid(app or _default(), count, **options) as grid:
        found = strategy.start(grid, start(), rounds).arrays
    assert found is not None
    return found


def oracle(
    segments: Sequence[int], rounds: int = 1, strategy: Strategy | None = None, *, steps: int = STEPS
) -> ArrayRecord:
    """One process that trains the whole model on each of these segments, and merges them as FedAvg would.

    Args:
        segments: numbers of the chains; chain n draws with seed n.
        rounds: of `steps` batches each, momentum anew.
        strategy: merges; one FedAvg by default.
        steps: of a round.
    """
    model, arrays, merging = initial(), start(), strategy or FedAvg()
    for round in range(rounds):
        if isinstance(merging, FedOpt):
            merging.current_arrays = {name: array.numpy() for name, array in arrays.items()}
        models: dict[int, ArrayRecord] = {}
        for number in segments:
            train_torch.set_arrays(model, arrays_of(arrays))
            train_torch.train(
                model,
                *samples(number),
                steps=steps,
                batch_size=BATCH,
                lr=0.1,
                momentum=0.9,
                seed=number,
                first_step=round * steps,
            )
            models[number] = record_of(train_torch.get_arrays(model))
        arrays = merged(models, merging, round + 1)
    return arrays
