"""From what chains trained to one model: pieces put together, edges averaged, and any Flower strategy beside it.

    by chains    each chain's pieces are one whole model: the strategy merges those as it merges clients' models
    by edges     CASE 2: edge m averages its part over its terminals, the parts are put together, and the strategy gets
                 the one model, as of a client with all samples

With FedAvg both are the same to the bit, since every chain runs through every edge: the mean of an array is the mean of
the same values in the same order. A strategy that looks at single models, such as Krum, merges by chains.

Source: [4] ¶17-26 (docs/sources.md): the edge averages, the centre recombines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, Strategy

from flower_edge.pieces.cuts import recombined
from flower_edge.wire import ModelSpec, arrays_of, record_of

from ..splitting.merging import whole_reply
from .plane import ChainTask

__all__ = ["averaged_heads", "by_edges", "by_strategy", "samples_of", "whole_of"]

Arrays = Mapping[str, npt.NDArray[Any]]


def samples_of(chain: ChainTask) -> int:
    """Weight of a chain: samples that it draws from."""
    report = chain.tasks[0].report
    return max(1, report.samples) if report is not None else 1


def whole_of(chain: ChainTask, spec: ModelSpec) -> dict[str, npt.NDArray[Any]]:
    """The model of a chain that is done.

    Raises:
        ModelMismatch: its pieces do not make the model.
    """
    return recombined([task.new_arrays for task in chain.tasks], spec)


def by_strategy(
    strategy: Strategy, round: int, chains: Sequence[ChainTask], spec: ModelSpec
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Whole models of all chains, handed to a strategy as if each were a client's.

    Raises:
        ModelMismatch: pieces that do not make the model.
    """
    key = str(getattr(strategy, "arrayrecord_key", "arrays"))
    replies = [
        whole_reply(
            chain.tasks[0].node, record_of(whole_of(chain, spec)), _metrics(strategy, samples_of(chain), chain), key
        )
        for chain in chains
    ]
    return strategy.aggregate_train(round, replies)


def by_edges(
    strategy: Strategy, round: int, chains: Sequence[ChainTask], spec: ModelSpec, parts: Mapping[str, Sequence[str]]
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Each edge averages its part over the chains; the parts together are one model for the strategy.

    Args:
        strategy: makes the next model of it.
        round: of the loop.
        chains: that are done, in order.
        spec: of the whole model.
        parts: by edge, names of the arrays of its part.

    Raises:
        ModelMismatch: pieces, or parts, that do not make the model.
    """
    wholes = [whole_of(chain, spec) for chain in chains]
    edges = [
        _mean([({name: whole[name] for name in names}, chain) for whole, chain in zip(wholes, chains, strict=True)])
        for names in parts.values()
        if names
    ]
    model = record_of(recombined(edges, spec))
    total, key = sum(map(samples_of, chains)), str(getattr(strategy, "arrayrecord_key", "arrays"))
    loss = sum(samples_of(chain) * _loss(chain) for chain in chains) / total
    metrics = {str(getattr(strategy, "weighted_by_key", "num-examples")): total, "train_loss": loss}
    return strategy.aggregate_train(round, [whole_reply(chains[0].tasks[0].node, model, metrics, key)])


def averaged_heads(chains: Sequence[ChainTask]) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """By cut, as text, the mean of the heads that chains have there, weighted as their models are."""
    found: dict[int, list[tuple[Arrays, ChainTask]]] = {}
    for chain in chains:
        for task in chain.tasks:
            if task.head:
                found.setdefault(task.order.stop, []).append((task.new_head, chain))
    return {str(cut): _mean(heads) for cut, heads in sorted(found.items())}


def _mean(parts: Sequence[tuple[Arrays, ChainTask]]) -> dict[str, npt.NDArray[Any]]:
    """As FedAvg makes it, so that an edge's mean of its part is the bits that FedAvg of whole models has there."""
    replies: list[Message] = [
        whole_reply(chain.tasks[0].node, record_of(arrays), {"num-examples": samples_of(chain)}, "arrays")
        for arrays, chain in parts
    ]
    mean, _ = FedAvg().aggregate_train(1, replies)
    assert mean is not None
    return arrays_of(mean)


def _metrics(strategy: Strategy, samples: int, chain: ChainTask) -> dict[str, float]:
    return {str(getattr(strategy, "weighted_by_key", "num-examples")): samples, "train_loss": _loss(chain)}


def _loss(chain: ChainTask) -> float:
    """The model's: of the piece that gives its output."""
    report = chain.tasks[-1].report
    return 0.0 if report is None or report.loss is None else report.loss
