"""The centre: a hierarchy of Flower's own FedAvg at every edge, metered on both hops, on a virtual clock."""

from __future__ import annotations

import os

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import evaluate, get_arrays, set_arrays
from flower_edge.runtime import GridProxy, VirtualClock, draw_devices, draw_links, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical, Layered, Metered, blocks
from flower_edge.units import mbps_to_bps, ms_to_s
from flower_edge.wire import arrays_of, record_of
from quickstart_tiers import task
from quickstart_tiers.config import Quickstart

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and leave a run folder behind."""
    config = read_config(Quickstart, context.run_config)
    terminals = expected_nodes(grid)
    with RunFolder.create("quickstart", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        plot_partition(task.partition(config, terminals), task.datasets(config)[0].labels, run.artifacts / "data.png")

        proxy = GridProxy(grid, expected_nodes=terminals, seed=config.seed)
        clock = VirtualClock(
            proxy,
            draw_devices(
                terminals,
                config.seed,
                config.devices.sigma,
                median_step_s=ms_to_s(config.devices.median_step_ms),
            ),
            draw_links(terminals, config.seed, mbps_to_bps(config.links.low_mbps), mbps_to_bps(config.links.high_mbps)),
            seed=config.seed,
        )
        fraction_evaluate = 1.0 if config.evaluate_on_terminals else 0.0

        strategy = Layered(
            Hierarchical(
                edge=lambda cell: Layered(FedAvg(fraction_evaluate=fraction_evaluate), Metered()),
                cells=blocks(config.edges),
                edge_rounds=config.edge_rounds,
                seed=config.seed,
            ),
            Metered(),
        )
        with proxy:
            result = strategy.start(
                clock,
                initial_arrays=record_of(get_arrays(task.model(config))),
                num_rounds=config.num_server_rounds,
                timeout=config.round_timeout_s,
                evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
                run=run,
                resume=bool(earlier),
            )
        last = result.evaluate_metrics_serverapp[max(result.evaluate_metrics_serverapp)]
        run.finish(
            {
                "accuracy": float(last["accuracy"]),
                "loss": float(last["loss"]),
                "rounds": config.num_server_rounds,
                "virtual_s": clock.now_s,
            }
        )


def _evaluate(config: Quickstart, arrays: ArrayRecord) -> MetricRecord:
    _, test = task.datasets(config)
    model = task.model(config)
    set_arrays(model, arrays_of(arrays))
    found = evaluate(model, test.x, test.y, batch_size=256)
    return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})
