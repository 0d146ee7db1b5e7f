"""The edge server: defines the network, lets the nodes gossip over it, and draws what happened."""

from __future__ import annotations

import os
from contextlib import nullcontext
from logging import getLogger

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result

from flower_edge.config import read_config
from flower_edge.control.named import find, make_controller, pruning_below
from flower_edge.data import plot_partition
from flower_edge.models import get_arrays
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.joined_grid import JoinedGrid, server_worker
from flower_edge.store import RunFolder
from flower_edge.strategies import Layered, Metered
from flower_edge.strategies.gossip.gossip import Gossip
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import record_of
from gossip_app import config as keys
from gossip_app import pictures, task
from gossip_app.client_app import app as worker

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.gossip")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Gossip, draw what happened, and leave a run folder behind."""
    config = read_config(keys.Gossip, context.run_config)
    for name in config.named:
        find(name)  # before anything is sent
    others = expected_nodes(grid)
    nodes = others + config.server_is_worker
    with RunFolder.create("gossip", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        # The server's own node knows the number of all already.
        here = {**context.run_config, "server-is-worker": False}
        own = (
            server_worker(worker, others, nodes, run_config=here, seed=config.seed) if nodes > others else nullcontext()
        )
        with (
            own as local,
            GridProxy(
                grid if local is None else JoinedGrid(grid, local), expected_nodes=nodes, seed=config.seed
            ) as proxy,
        ):
            strategy, clock = _strategy(config, nodes), RoundClock(proxy)
            result = Layered(strategy, Metered()).start(
                clock,
                initial_arrays=record_of(get_arrays(task.model(config))),
                num_rounds=config.rounds,
                timeout=config.round_timeout_s,
                run=run,
                resume=bool(earlier),
            )
            beside = {name: _beside(config, name, proxy, nodes) for name in _others(config)}
        if config.pictures:
            plot_partition(task.partition(config, nodes), task.datasets(config)[0].labels, run.artifacts / "data.png")
            pictures.draw(config, strategy, {config.controller: result, **beside}, run.artifacts)
        summary = _summary(result, clock.now_s)
        log.info("In %.1f s of virtual time: %s", clock.now_s, ", ".join(f"{k} {v:.4g}" for k, v in summary.items()))
        run.finish(summary)


def _strategy(config: keys.Gossip, nodes: int) -> Gossip:
    controller = make_controller(config.controller, seed=config.seed)
    if config.prune >= 0.0:
        controller = pruning_below(controller, config.prune)
    return Gossip(
        controller,
        world=set_up(config.set_up, config.seed, nodes),
        mailbox=config.mailbox,
        signalling=config.signalling,
        final=config.final,
        staleness=config.staleness,
        watch=0,
        seed=config.seed,
    )


def _others(config: keys.Gossip) -> list[str]:
    """Controllers to learn under beside the run's own."""
    return [] if config.quick else [name for name in config.compare.learned.split() if name != config.controller]


def _beside(config: keys.Gossip, name: str, proxy: GridProxy, nodes: int) -> Result:
    """The same nodes once more, with the same data and first model, under another controller."""
    log.info("Once more: %s", name)
    controller = make_controller(name, seed=config.seed)
    strategy = Gossip(controller, world=set_up(config.set_up, config.seed, nodes), watch=0, seed=config.seed)
    first = record_of(get_arrays(task.model(config)))
    return strategy.start(proxy, first, config.rounds, config.round_timeout_s)


def _summary(result: Result, virtual_s: float) -> dict[str, float]:
    trained = result.train_metrics_clientapp
    read = {n: metrics for n, metrics in result.evaluate_metrics_clientapp.items() if "accuracy" in metrics}
    last, end = read[max(read)], trained[max(trained)]
    values = {
        "accuracy": last["accuracy"],
        "worst device": last["accuracy_worst"],
        "loss": last["loss"],
        "rounds": max(trained),
        "virtual_s": virtual_s,
        "links": end["links"],
    }
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
