"""`Hierarchical`: terminals, edges and a centre, in edge rounds inside cloud rounds.

The centre sends its model to every edge; the edge runs κ2 rounds of its own strategy with its terminals and answers
with (w_e, n_e); the centre merges. Who the terminals of an edge are is the cells' business, how an edge is reached the
tier's, what an edge does the inner strategy's. Nothing here samples.

Letters, as in the paper:
    w_e   model of edge e, in the model's dtypes
    n_e   number of examples behind it
    κ2    `edge_rounds`, edge rounds per cloud round

Source: Liu, Zhang, Song, Letaief, "Client-edge-cloud hierarchical federated learning", ICC 2020 (HierFAVG).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.errors import ConfigError, ModelMismatch, NestingError, RoundFailed, WireError
from flower_edge.rounds import Kind, Round
from flower_edge.runtime.edge_rounds import EDGE_RECORD, LAYER_PREFIX, WEIGHT_KEY, edge_order
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.store.run_folder import RunFolder
from flower_edge.wire import ModelSpec, cast_like, check_model, error_reason, model_spec, record_of, weight_of

from .cells import Cells, blocks
from .layered import LayeredGrid
from .loop import RoundReport, drive
from .start_only import StartOnly
from .tiers import CellTier, EdgeFactory, Tier

__all__ = ["EdgeResult", "Hierarchical", "merge_edges"]

log = getLogger("flwr.edge")

#: What of a round's timeout the edges may use; the rest is for the hop between them and the centre.
EDGE_SHARE_OF_TIMEOUT = 0.95


@dataclass(frozen=True)
class EdgeResult:
    """(w_e, n_e) and how it came about.

    Attributes:
        cell: the edge's name.
        arrays: w_e, `None` if the edge has nothing to merge.
        weight: n_e, 0 where `arrays` is `None`.
        metrics: aggregated metrics of its terminals.
        report: numbers of the edge's rounds.
        trouble: what went wrong; where there is nothing to merge, why.
    """

    cell: str
    arrays: ArrayRecord | None
    weight: float
    metrics: Mapping[str, Any]
    report: Mapping[str, Any]
    trouble: str = ""


def merge_edges(results: Iterable[EdgeResult], spec: ModelSpec) -> ArrayRecord:
    """The centre's model: Σ n_e·w_e / Σ n_e in float64, cast once to the model's dtypes.

    Edges are added in the order of their names: float addition is not associative, and replies arrive in any order.
    One edge alone is taken as it is.

    Args:
        results: those with something to merge; every weight above 0.
        spec: names, shapes and dtypes of the model.

    Raises:
        ConfigError: several edges sent byte strings (boosters), which have no mean.
    """
    edges = sorted((result for result in results if result.arrays is not None), key=lambda result: result.cell)
    if len(edges) == 1 and edges[0].arrays is not None:
        return cast_like(edges[0].arrays, spec)
    for name, (shape, dtype) in spec.items():
        lengths = {tuple(edge.arrays[name].shape) for edge in edges if edge.arrays is not None}
        if dtype == "uint8" and len(shape) == 1 and (len(lengths) > 1 or len(spec) == 1):
            raise ConfigError(
                f"{len(edges)} edges sent the byte string {name!r}, and byte strings have no mean; "
                "train Flower's XGBoost strategies in one cell"
            )
    total = sum(edge.weight for edge in edges)
    merged: dict[str, np.ndarray[Any, Any]] = {}
    for name in spec:
        acc: Any = 0.0
        for edge in edges:
            assert edge.arrays is not None
            acc = acc + edge.weight * edge.arrays[name].numpy().astype(np.float64)
        merged[name] = np.asarray(acc / total)
    return cast_like(record_of(merged), spec)


class Hierarchical(StartOnly):
    """Three tiers: a centre, edges, and their terminals.

    Args:
        edge: makes the inner strategy of a cell from its name: `lambda cell: FedAvg()`, or
            `lambda cell: Layered(Krum(...), Metered())`; called once per cell.
        cells: which nodes belong to which cell, see `flower_edge.strategies.blocks`; by default all in one.
        edge_rounds: κ2, at least 1.
        tier: how edges are reached; by default `CellTier(edge, cells)`. With `LocalTier()` the edges bring their own
            strategies, so `edge` and `cells` stay away.
        seed: if given, every cell samples from generators of its own, seeded by (seed, cell, round): models do not
            depend on where an edge runs (but for edges in threads of one process, which share Python's global
            generators). Otherwise cells draw from the global `random`, one after the other, as
            Flower's strategies do.

    A cell with fewer nodes than its inner strategy's minimums is skipped in that round, logged and counted; it has
    weight 0. With one cell and κ2 = 1 the result is the inner strategy's own; with several cells and κ2 = 1 it is
    flat FedAvg.

    Raises:
        ConfigError, NestingError: arguments that do not fit together.
    """

    right_nesting = (
        "a wrapper around Hierarchical, which brings its own loop; wrap the inner strategies: "
        "Hierarchical(edge=lambda cell: Wrapper(FedAvg(), ...))"
    )

    def __init__(
        self,
        edge: EdgeFactory | None = None,
        *,
        cells: Cells | None = None,
        edge_rounds: int = 1,
        tier: Tier | None = None,
        seed: int | None = None,
    ) -> None:
        if type(edge_rounds) is not int or edge_rounds < 1:
            raise ConfigError(f"edge_rounds = {edge_rounds}: a whole number, at least one round per cloud round")
        given: object = edge
        if isinstance(given, Strategy):
            name = type(given).__name__
            raise ConfigError(f"edge is a {name}; pass a factory, one strategy per cell: edge=lambda cell: {name}(...)")
        if tier is not None and (edge is not None or cells is not None):
            raise ConfigError("edge= and cells= belong to CellTier(edge, cells); with tier= leave them out")
        if tier is None:
            if edge is None:
                raise ConfigError("Hierarchical needs edge=, a factory of inner strategies, or tier=")
            tier = CellTier(edge, cells or blocks(1))
        self.tier = tier
        self.edge_rounds = edge_rounds
        self.seed = seed
        self._edge_rounds_done = 0

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        *,
        run: RunFolder | None = None,
        resume: bool = False,
    ) -> Result:
        """Run `num_rounds` cloud rounds. Arguments as Flower's `Strategy.start`; `run` and `resume` as in `drive`.

        Raises:
            RoundFailed: a cloud round to which no edge contributed.
        """
        layered = grid if isinstance(grid, LayeredGrid) else None
        if layered is not None and not self.tier.nodes_are_edges:
            for layer in layered.layers:
                if layer.narrows:
                    name = type(layer).__name__
                    raise NestingError(
                        f"{name} around Hierarchical would narrow the edges, and these are no nodes of the Grid; "
                        f"put it inside: Hierarchical(edge=lambda cell: Layered(FedAvg(), {name}(...)), ...)"
                    )
        self._edge_rounds_done = 0
        self.tier.begin(recorded=run is not None)
        return drive(
            _Tiers(self, model_spec(initial_arrays)),
            grid,
            initial_arrays,
            num_rounds,
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn,
            run=run,
            resume=resume,
        )

    def summary(self) -> None:
        """Log the configuration."""
        log.info("\t├──> Tiers:")
        log.info("\t│\t├── Edge rounds per cloud round: %d", self.edge_rounds)
        log.info("\t│\t└── Edges are reached by: %s", type(self.tier).__name__)

    def state_dict(self) -> dict[str, Any]:
        """The edges' inner strategies and layers, and how many edge rounds there have been."""
        return {"edge_rounds_done": self._edge_rounds_done, "tier": self.tier.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._edge_rounds_done = state["edge_rounds_done"]
        self.tier.load_state_dict(state["tier"])


class _Tiers:
    """The work of a cloud round."""

    def __init__(self, strategy: Hierarchical, spec: ModelSpec) -> None:
        self.strategy = strategy
        self.spec = spec
        self._cells: Mapping[str, int] = {}

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Edge rounds at every edge, then the centre's merge."""
        results = self._ask(grid, "train", number, arrays, config, timeout_s)
        self.strategy._edge_rounds_done += self.strategy.edge_rounds
        good = [result for result in results if result.arrays is not None]
        for result in results:
            if result.arrays is None:
                log.warning("\tround %d: cell %s skipped: %s", number, result.cell, result.trouble)
        if not good:
            why = "; ".join(f"{result.cell}: {result.trouble}" for result in results) or "there are no cells"
            raise RoundFailed(f"round {number}: no edge contributed ({why})")
        sampled, replied = _total(results, "nodes-sampled"), _total(results, "nodes-replied")
        counts = {
            "nodes_sampled": sampled,
            "nodes_replied": replied,
            "nodes_failed": sampled - replied,
            "messages": _total(results, "messages"),
            "messages_failed": _total(results, "messages-failed"),
            "cells": float(len(results)),
            "cells_skipped": float(len(results) - len(good)),
        }
        return RoundReport(
            arrays=merge_edges(good, self.spec),
            metrics=_weighted_metrics(good),
            counts=counts,
            cells={result.cell: _row(result) for result in results},
            traffic=_traffic(results),
            events=[
                f"cell {result.cell}{' skipped' if result.arrays is None else ''}: {result.trouble}"
                for result in results
                if result.trouble
            ],
        )

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Let the terminals evaluate the merged model, through their edges."""
        results = self._ask(grid, "evaluate", number, arrays, config, timeout_s)
        good = [result for result in results if result.weight > 0]
        for result in results:
            if result.trouble:
                log.warning("\tround %d: evaluation in cell %s: %s", number, result.cell, result.trouble)
        return RoundReport(
            metrics=_weighted_metrics(good) if good else None,
            cells={result.cell: _row(result) for result in good},
            traffic=_traffic(results),
            events=[f"evaluation in cell {result.cell}: {result.trouble}" for result in results if result.trouble],
        )

    def _ask(
        self, grid: Grid, kind: Kind, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> list[EdgeResult]:
        strategy = self.strategy
        round = Round(number, kind=kind)
        announce(grid, round)
        # Layers around Hierarchical are about the centre's hop: the terminals are asked below them.
        layered = grid if isinstance(grid, LayeredGrid) else None
        base = grid.inner if isinstance(grid, LayeredGrid) else grid
        if kind == "train":
            self._cells = strategy.tier.cells(grid if strategy.tier.nodes_are_edges else base, round)
        cells = self._cells
        # In `evaluate`, this cloud round's edge rounds are done already.
        first = strategy._edge_rounds_done + 1 - (strategy.edge_rounds if kind == "evaluate" else 0)
        # All of an edge's rounds, and the way back, have to fit into the centre's time.
        each_s = EDGE_SHARE_OF_TIMEOUT * timeout_s / (strategy.edge_rounds if kind == "train" else 1)
        config["server-round"] = number
        messages = []
        for cell, node in cells.items():
            order = edge_order(cell, number, first, strategy.edge_rounds, each_s, strategy.seed)
            content = RecordDict({"arrays": arrays, "config": config, EDGE_RECORD: order})
            messages.append(Message(content, node, kind))

        def deliver(outgoing: list[Message]) -> list[Message]:
            return strategy.tier.deliver(base, outgoing, timeout_s)

        replies = layered.hop(messages, deliver) if layered is not None else deliver(messages)
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        return [self._result(cell, by_node.get(node), kind) for cell, node in cells.items()]

    def _result(self, cell: str, reply: Message | None, kind: Kind) -> EdgeResult:
        if reply is None:
            return EdgeResult(cell, None, 0.0, {}, {}, "no reply")
        if reply.has_error():
            return EdgeResult(cell, None, 0.0, {}, {}, error_reason(reply))
        report = dict(reply.content.config_records.get(EDGE_RECORD, ConfigRecord()).items())
        metrics = {
            name: value
            for record in reply.content.metric_records.values()
            for name, value in record.items()
            if name != WEIGHT_KEY
        }
        try:
            weight = weight_of(reply, WEIGHT_KEY)
            if not (np.isfinite(weight) and weight >= 0):
                raise WireError(f"edge {cell} sent the weight {weight}; it is finite and not below 0")
            arrays = next(iter(reply.content.array_records.values()), None)
            if kind == "evaluate":
                return EdgeResult(cell, None, weight, metrics, report, str(report.get("trouble", "")))
            if arrays is None or weight == 0:
                return EdgeResult(cell, None, 0.0, metrics, report, str(report.get("trouble", "no model")))
            check_model(arrays, self.spec, sender=f"edge {cell}")
        except (WireError, ModelMismatch) as error:
            return EdgeResult(cell, None, 0.0, {}, report, str(error))
        trouble = str(report.get("trouble", ""))
        return EdgeResult(cell, cast_like(arrays, self.spec), weight, metrics, report, trouble)


def _total(results: Iterable[EdgeResult], name: str) -> float:
    return float(sum(value for result in results if isinstance(value := result.report.get(name, 0), int | float)))


def _weighted_metrics(results: list[EdgeResult]) -> MetricRecord:
    """Mean of each metric over the edges that have it, weighted by n_e."""
    names = dict.fromkeys(name for result in results for name in result.metrics)
    merged: dict[str, Any] = {}
    for name in names:
        having = [result for result in results if name in result.metrics]
        if len({np.shape(result.metrics[name]) for result in having}) > 1:
            log.warning("metric %r has another length at every edge; it is left out", name)
            continue
        weights = np.array([result.weight for result in having])
        values = np.array([result.metrics[name] for result in having], dtype=float)
        mean = np.tensordot(weights / weights.sum(), values, axes=1)
        merged[name] = mean.tolist() if mean.ndim else float(mean)
    return MetricRecord(merged)


def _row(result: EdgeResult) -> dict[str, Any]:
    numbers = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
    report = {
        name.replace("-", "_"): value
        for name, value in result.report.items()
        if isinstance(value, int | float) and not name.startswith(LAYER_PREFIX)
    }
    return {**numbers, **report, "num-examples": result.weight}


def _traffic(results: Iterable[EdgeResult]) -> dict[str, dict[str, Any]]:
    """What the layers inside each cell measured."""
    measured = {
        result.cell: {
            name.removeprefix(LAYER_PREFIX): value
            for name, value in result.report.items()
            if name.startswith(LAYER_PREFIX)
        }
        for result in results
    }
    return {cell: values for cell, values in measured.items() if values}
