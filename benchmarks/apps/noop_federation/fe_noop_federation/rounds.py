"""Seconds per round on any Grid: of the messages alone, and of whole FedAvg rounds.

The same functions run in Flower's ServerApp and in process, so that both sides are measured by the same clock at the
same places. The first round of each kind is run before the measured ones and not reported.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypedDict

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

__all__ = ["SizeReport", "measure_sizes", "model_of"]

_ARRAYS = 4


class SizeReport(TypedDict):
    """What was measured with one model size.

    `begin_s` and `end_s` are on `time.monotonic`, which all processes of a machine share.
    """

    parameters: int
    begin_s: float
    end_s: float
    message_rounds_s: list[float]
    fedavg_rounds_s: list[float]


def measure_sizes(grid: Grid, nodes: int, sizes: Sequence[tuple[int, int]]) -> list[SizeReport]:
    """Measure one model size after the other on the same federation.

    Args:
        grid: where the nodes are; waits until they are all there.
        nodes: how many nodes it has.
        sizes: (number of parameters, rounds to measure), the smallest model first: memory that a process has had is
            not always given back.
    """
    node_ids = _wait_for(grid, nodes)
    reports: list[SizeReport] = []
    for parameters, rounds in sizes:
        gc.collect()
        begin_s = time.monotonic()
        arrays = model_of(parameters)
        message_rounds_s = _message_rounds_s(grid, node_ids, arrays, rounds + 1)[1:]
        fedavg_rounds_s = _fedavg_rounds_s(grid, nodes, arrays, rounds + 1)[1:]
        reports.append(
            SizeReport(
                parameters=parameters,
                begin_s=begin_s,
                end_s=time.monotonic(),
                message_rounds_s=message_rounds_s,
                fedavg_rounds_s=fedavg_rounds_s,
            )
        )
    return reports


def model_of(parameters: int) -> ArrayRecord:
    """A float32 model in four equal arrays of random numbers: equal ones Flower would store and send once."""
    rng = np.random.default_rng(0)
    size = parameters // _ARRAYS
    return ArrayRecord({f"layer{i}": Array(rng.standard_normal(size, dtype=np.float32)) for i in range(_ARRAYS)})


def _wait_for(grid: Grid, nodes: int, patience_s: float = 300.0) -> list[int]:
    end_s = time.monotonic() + patience_s
    while len(node_ids := list(grid.get_node_ids())) < nodes:
        if time.monotonic() > end_s:
            raise TimeoutError(f"{len(node_ids)} of {nodes} nodes were there after {patience_s:g} s")
        time.sleep(0.1)
    return node_ids


def _message_rounds_s(grid: Grid, node_ids: Sequence[int], arrays: ArrayRecord, rounds: int) -> list[float]:
    """Seconds from handing over a message for every node until the last reply is there; replies are dropped."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 0})})
    taken_s = []
    for _ in range(rounds):
        messages = [Message(content, node_id, "train") for node_id in node_ids]
        begin_s = time.perf_counter()
        replies = list(grid.send_and_receive(messages))
        taken_s.append(time.perf_counter() - begin_s)
        if len(replies) != len(node_ids) or any(reply.has_error() for reply in replies):
            errors = sum(reply.has_error() for reply in replies)
            raise RuntimeError(f"{len(replies)} replies, {errors} of them errors, to {len(node_ids)} messages")
        del messages, replies
    return taken_s


class _CountedFedAvg(FedAvg):
    """FedAvg that notes how many replies it averaged: a round with fewer would look fast."""

    def __init__(self, nodes: int) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
        self.averaged: list[int] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's own, with the count."""
        replies = list(replies)
        self.averaged.append(sum(not reply.has_error() for reply in replies))
        return super().aggregate_train(server_round, replies)


def _fedavg_rounds_s(grid: Grid, nodes: int, arrays: ArrayRecord, rounds: int) -> list[float]:
    """Seconds per round of Flower's own FedAvg loop, taken by the evaluation function it calls between rounds."""
    marks_s: list[float] = []

    def mark(server_round: int, model: ArrayRecord) -> MetricRecord | None:
        marks_s.append(time.perf_counter())
        return None

    strategy = _CountedFedAvg(nodes)
    strategy.start(grid, arrays, num_rounds=rounds, evaluate_fn=mark)
    if strategy.averaged != [nodes] * rounds:
        raise RuntimeError(f"FedAvg averaged {strategy.averaged} replies in its rounds, expected {nodes} in each")
    return [end_s - begin_s for begin_s, end_s in pairwise(marks_s)]
