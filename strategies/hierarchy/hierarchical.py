"""`Hierarchical`: terminals, edges and a centre, in edge rounds inside cloud rounds.

The centre sends its model to every edge; the edge runs κ2 rounds of its own strategy with its terminals and answers
with (w_e, n_e); the centre merges. Who the terminals of an edge are is the cells' business, how an edge is reached the
tier's, what an edge does the inner strategy's, what a cloud round is `CloudRounds`'. Nothing here samples.

Letters, as in the paper:
    κ1    steps a terminal makes in an edge round: its `local-steps`
    κ2    `edge_rounds`, edge rounds per cloud round

Source: Liu, Zhang, Song, Letaief, "Client-edge-cloud hierarchical federated learning", ICC 2020 (HierFAVG).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.errors import ConfigError, NestingError
from flower_edge.monitoring.attendance import sentences
from flower_edge.runtime.narrowed_grid import minimum_nodes
from flower_edge.runtime.strategy_state import load_strategy_state, strategy_state
from flower_edge.store.run_folder import RunFolder
from flower_edge.wire import model_spec

from ..idling import check_idle_s
from ..layered import Layered, LayeredGrid
from ..loop import drive
from ..start_only import StartOnly
from .asynchronous import FedBuff
from .cell_tier import CellTier, Reachable
from .cells import Cells, blocks
from .cloud_rounds import CloudRounds
from .drift import LowerEdgeRounds
from .merging import EdgeResult, merge_edges
from .progress import Progress
from .tiers import EdgeFactory, Tier

__all__ = ["EdgeResult", "Hierarchical", "merge_edges"]

log = getLogger("flwr.edge")


class Hierarchical(StartOnly):
    """Three tiers: a centre, edges, and their terminals.

    Args:
        edge: makes the inner strategy of a cell from its name: `lambda cell: FedAvg()`, or
            `lambda cell: Layered(Krum(...), Metered())`; called once per cell.
        cells: which nodes belong to which cell, see `flower_edge.strategies.blocks` and `Coverage`; by default all in
            one.
        edge_rounds: κ2, at least 1.
        tier: how edges are reached; by default `CellTier(edge, cells)`. With `LocalTier()` the edges bring their own
            strategies, so `edge`, `cells` and `reachable` stay away.
        seed: if given, every cell samples from generators of its own, seeded by (seed, cell, round): models do not
            depend on where an edge runs (but for edges in threads of one process, which share Python's global
            generators). Otherwise cells draw from the global `random`, one after the other, as
            Flower's strategies do.
        centre: a Flower strategy whose nodes are the edges: a server optimiser (`FedAdam(eta=0.01, ...)`), a robust
            merge (`Krum`), a sample of the edges. By default the exact weighted mean of all of them.
        asynchronous: do not wait for every edge, see `FedBuff` and `FedAsync`.
        lower: lowers κ2 when the edges drift apart, see `LowerEdgeRounds`.
        reachable: `CellTier`'s: whether the centre reaches a cell in a cloud round.
        idle_s: what a cloud round to which no edge contributes lets pass (virtual seconds on a virtual clock) before
            the next; `None` raises `RoundFailed` instead. Where terminals move, a round may find all of them away.

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
        centre: Strategy | None = None,
        asynchronous: FedBuff | None = None,
        lower: LowerEdgeRounds | None = None,
        reachable: Reachable | None = None,
        idle_s: float | None = None,
    ) -> None:
        if type(edge_rounds) is not int or edge_rounds < 1:
            raise ConfigError(f"edge_rounds = {edge_rounds}: a whole number, at least one round per cloud round")
        check_idle_s(idle_s)
        if seed is not None:
            try:
                seed = operator.index(seed)
            except TypeError:
                raise ConfigError(f"seed = {seed!r}: expected a whole number, or None") from None
        _check_kinds(edge, cells, reachable, asynchronous, lower)
        if tier is not None and (edge is not None or cells is not None or reachable is not None):
            raise ConfigError("edge=, cells= and reachable= belong to CellTier(edge, cells); with tier= leave them out")
        if tier is None:
            if edge is None:
                raise ConfigError("Hierarchical needs edge=, a factory of inner strategies, or tier=")
            tier = CellTier(edge, cells or blocks(1), reachable=reachable)
        _check_centre(centre)
        if asynchronous is not None:
            if centre is not None and minimum_nodes(centre) > asynchronous.buffer:
                name, buffer = type(centre).__name__, asynchronous.buffer
                raise ConfigError(
                    f"centre={name}(...) needs {minimum_nodes(centre)} edges and FedBuff({buffer}) gives it {buffer}; "
                    f"{name}(min_train_nodes={buffer}, min_available_nodes={buffer}), or a larger buffer"
                )
            if lower is not None and asynchronous.buffer == 1:
                raise ConfigError(
                    "lower= needs the drift of several edges, and FedBuff(1) merges one; FedBuff(2) or more"
                )
        self.tier = tier
        self.edge_rounds = edge_rounds
        self.seed = seed
        self.centre = centre
        self.asynchronous = asynchronous
        self.lower = lower
        self.idle_s = idle_s
        self._progress = Progress(edge_rounds)

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
            RoundFailed: a cloud round to which no edge contributed, where `idle_s` was not given.
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
        self._progress = Progress(self.edge_rounds)
        self.tier.begin(recorded=run is not None)
        try:
            result = drive(
                CloudRounds(self, model_spec(initial_arrays)),
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
        finally:
            self.tier.end()
        # The last lines of a log are read by everybody, the warnings of each round by nobody.
        for line in sentences(self._progress.attended.values()):
            log.warning("\t%s", line)
        return result

    @property
    def progress(self) -> Progress:
        """Where the run is: κ2 now, the version of the model, what is under way."""
        return self._progress

    def summary(self) -> None:
        """Log the configuration."""
        log.info("\t├──> Tiers:")
        log.info("\t│\t├── Edge rounds per cloud round: %d", self.edge_rounds)
        if self.asynchronous is not None:
            log.info("\t│\t├── The centre merges: %s", self.asynchronous)
        if self.centre is not None:
            log.info("\t│\t├── At the centre: %s", type(self.centre).__name__)
        log.info("\t│\t└── Edges are reached by: %s", type(self.tier).__name__)

    def state_dict(self) -> dict[str, Any]:
        """The edges' inner strategies and layers, the centre's strategy, and where the run is."""
        return {
            "progress": self._progress.state_dict(),
            "tier": self.tier.state_dict(),
            "centre": None if self.centre is None else strategy_state(self.centre),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Edges that were under way begin anew, from the model of the checkpoint."""
        self._progress.load_state_dict(state["progress"])
        self.tier.load_state_dict(state["tier"])
        if self.centre is not None:
            load_strategy_state(self.centre, state["centre"])


def _check_kinds(edge: object, cells: object, reachable: object, asynchronous: object, lower: object) -> None:
    if isinstance(edge, Strategy) or (isinstance(edge, type) and issubclass(edge, Strategy)):
        name = edge.__name__ if isinstance(edge, type) else type(edge).__name__
        raise ConfigError(f"edge is a {name}; pass a factory, one strategy per cell: edge=lambda cell: {name}(...)")
    if edge is not None and not callable(edge):
        raise ConfigError(f"edge = {edge!r}: expected a factory, edge=lambda cell: FedAvg(...)")
    if cells is not None and (not callable(cells) or isinstance(cells, type)):
        raise ConfigError(f"cells = {cells!r}: expected a cell function, such as blocks(3) or a Coverage")
    if reachable is not None and not callable(reachable):
        raise ConfigError(f"reachable = {reachable!r}: expected a function, reachable=lambda round, cell: True")
    if asynchronous is not None and not isinstance(asynchronous, FedBuff):
        raise ConfigError(f"asynchronous = {asynchronous!r}: expected FedBuff(2), FedAsync(0.6) or None")
    if lower is not None and not isinstance(lower, LowerEdgeRounds):
        raise ConfigError(f"lower = {lower!r}: expected LowerEdgeRounds(growth=1.5) or None")


def _check_centre(centre: Strategy | None) -> None:
    if centre is None:
        return
    name = centre.__name__ if isinstance(centre, type) else type(centre).__name__
    if not isinstance(centre, Strategy):
        raise ConfigError(
            f"centre is {name} itself; pass a Flower strategy whose nodes are the edges: centre=FedAdam(...)"
        )
    if isinstance(centre, Layered):
        raise NestingError("centre=Layered(...): layers on the centre's hop go around: Layered(Hierarchical(...), ...)")
    if type(centre).start is not Strategy.start:
        raise NestingError(f"centre={name}(...) brings its own start; the centre runs one round at a time")
    if why := getattr(centre, "not_at_the_centre", ""):
        raise NestingError(f"centre={name}(...) {why}")
