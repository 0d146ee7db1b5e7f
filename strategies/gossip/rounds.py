"""A run of gossip on the round loop that all strategies share: rounds, an end by convergence, averaging at the end.

Nothing here mixes or decides: the strategy does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flower_edge.errors import NotEnoughNodes, RoundFailed, TopologyError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.exchange import train_once
from flower_edge.store.rows import Row
from flower_edge.store.run_folder import RunFolder
from flower_edge.wire import arrays_of

from ..flat_work import FlatWork
from ..loop import drive
from .averaging import Averaging

if TYPE_CHECKING:
    from .gossip import Gossip

__all__ = ["drive_gossip"]

log = getLogger("flwr.edge")


@dataclass(frozen=True)
class GossipWork(FlatWork):
    """A flat strategy's round, with its end by convergence."""

    strategy: Gossip

    def stop(self, round: Round) -> str | None:
        """Whether the models have converged."""
        return self.strategy.converged()


def drive_gossip(
    strategy: Gossip,
    grid: Grid,
    initial_arrays: ArrayRecord,
    num_rounds: int,
    timeout: float,
    train_config: ConfigRecord | None,
    evaluate_config: ConfigRecord | None,
    evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
    *,
    run: RunFolder | None,
    resume: bool,
) -> Result:
    """Rounds as in `drive`, then the final averaging where it is asked for."""
    result = drive(
        GossipWork(strategy),
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
    if strategy.final == "averaging":
        event = average(strategy, grid, result, timeout)
        if run is not None and event is not None and result.arrays is not None:
            last = max(result.train_metrics_clientapp, default=0)
            run.record_rows([Row("event", last, event.row(), virtual_s=event.time_s)])
            if event.what == "averaged":
                run.save_model(last, arrays_of(result.arrays), None)
    return result


def average(strategy: Gossip, grid: Grid, result: Result, timeout: float) -> Event | None:
    """Let the workers average their models among themselves, over links in use; `result` gets what they agree on.

    Where that fails, a run's result is the mean that the server has formed, which is told.

    Source: [1] ¶43, distributed averaging instead of sending the models to the server.
    """
    if result.arrays is None or not strategy.begun:
        return None
    try:
        rounds = _average(strategy, grid, result, timeout)
    except (RoundFailed, NotEnoughNodes, TopologyError) as error:
        log.warning("\tThe workers could not average, the result is the mean by the server: %s", error)
        return Event("not-averaged", f"the workers could not average among themselves: {error}", time_s=now_s(grid))
    text = f"the workers averaged among themselves in {rounds} rounds; models still differ by {strategy.distance:.3g}"
    log.info("\t%s", text)
    return Event("averaged", text, time_s=now_s(grid), values={"rounds": rounds})


def _average(strategy: Gossip, grid: Grid, result: Result, timeout: float) -> int:
    assert result.arrays is not None
    strategy.know(result.arrays)
    group = strategy.group or strategy.defined(grid, list(grid.get_node_ids()), 1)
    averaging = Averaging.plan(group, strategy.averaged_to)
    averaged = result.arrays
    # Posted once as they are, then mixed as often as it takes.
    first = group.last_round + 1
    for number in range(first, first + averaging.rounds + 1):
        averaging.prepare(group)
        strategy.averaging = averaging
        try:
            done = train_once(strategy, grid, Round(number), number, averaged, ConfigRecord(), timeout_s=timeout)
        finally:
            strategy.averaging = None
        averaged = averaged if done.arrays is None else done.arrays
    result.arrays = averaged
    return averaging.rounds + 1
