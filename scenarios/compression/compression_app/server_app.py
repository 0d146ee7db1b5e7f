"""The server: Flower's own FedAvg, with codes instead of models on the wire, and the same beside it for comparison."""

from __future__ import annotations

import os
from logging import getLogger

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from compression_app import config as keys
from compression_app import pictures, task
from flower_edge.codecs.named import make_codec
from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import evaluate, get_arrays, set_arrays
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.strategies import Compressed, Layered, Metered
from flower_edge.wire import arrays_of, record_of

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.compression")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, compare, draw, and leave a run folder behind."""
    config = read_config(keys.Compression, context.run_config)
    for layer in [_layer(config), *(_layer(config, up) for up in config.beside)]:
        log.info("%r", layer)  # a codec that is none is refused before anything is sent
    rates_bps, terminals = config.links.rates_bps, expected_nodes(grid)
    with RunFolder.create("compression", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        with GridProxy(grid, expected_nodes=terminals, seed=config.seed) as proxy:
            _train(config, _layer(config), proxy, run, resume=bool(earlier))
            curves = {_name(config): pictures.curve(run, terminals)}
            for up in config.beside:
                log.info("Once more: %s up, plain models down", up)
                with RunFolder.create(up, config={"up": up}, seed=config.seed, root=run.artifacts / "beside") as other:
                    _train(config, _layer(config, up), proxy, other)
                    curves[f"{up} up, plain down"] = pictures.curve(other, terminals)
                    other.finish({})
        if config.pictures:
            plot_partition(
                task.partition(config, terminals), task.datasets(config)[0].labels, run.artifacts / "data.png"
            )
            pictures.draw(config, curves, run.artifacts)
        summary = _summary(run, config.rounds)
        log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in summary.items()))
        target = 0.98 * max(one[0][-1] for one in curves.values())
        rates = ", ".join(f"{rate / 1e6:g}" for rate in rates_bps)
        for name, one in curves.items():
            times = ", ".join(f"{time_s:.0f}" for time_s in pictures.reached_s(config, one, target))
            log.info("%s: accuracy %.3f after %s s at %s Mbit/s", name, target, times, rates)
        run.finish(summary)


def _name(config: keys.Compression) -> str:
    return f"{config.up} up, {'plain' if config.down == 'none' else config.down} down"


def _layer(config: keys.Compression, up: str | None = None) -> Compressed:
    """The layer of the run; with `up`, that of a comparison."""
    if up is not None:
        return Compressed(make_codec(up, seed=config.seed))
    down = None if config.down == "none" else make_codec(config.down, seed=config.seed)
    return Compressed(make_codec(config.up, seed=config.seed), down=down, first=make_codec(config.first))


def _train(config: keys.Compression, layer: Compressed, grid: Grid, run: RunFolder, *, resume: bool = False) -> None:
    Layered(FedAvg(fraction_evaluate=0.0), layer, Metered()).start(
        grid,
        initial_arrays=record_of(get_arrays(task.model(config))),
        num_rounds=config.rounds,
        timeout=config.round_timeout_s,
        evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
        run=run,
        resume=resume,
    )


def _evaluate(config: keys.Compression, arrays: ArrayRecord) -> MetricRecord:
    _, test = task.datasets(config)
    model = task.model(config)
    set_arrays(model, arrays_of(arrays))
    found = evaluate(model, test.x, test.y, batch_size=256)
    return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})


def _summary(run: RunFolder, rounds: int) -> dict[str, float]:
    last = {row.round: row.values for row in run.rows("central")}[rounds]
    traffic = {row.round: row.values for row in run.rows("traffic")}[rounds]
    names = {"up ratio": "total_up_ratio", "down ratio": "total_down_ratio", "round trip": "total_round_trip_ratio"}
    return {
        "accuracy": float(last["accuracy"]),
        "loss": float(last["loss"]),
        "rounds": float(rounds),
        **{name: float(traffic[key]) for name, key in names.items()},
    }
