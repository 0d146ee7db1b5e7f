"""The server: a federation trains the model, then three machines serve it, and its traffic shrinks while they do."""

from __future__ import annotations

import os
from logging import getLogger

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import Model, evaluate, get_arrays, set_arrays
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.strategies import Layered, Metered
from flower_edge.wire import arrays_of, record_of
from fringe_app import pictures, serving, task
from fringe_app.config import FringeRun
from fringe_app.serving import Served

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.fringe")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, serve, compress, draw, and leave a run folder behind."""
    config = read_config(FringeRun, context.run_config)
    config.check()
    serving.settings_of(config)  # goals that are none are refused before anything is trained
    terminals = expected_nodes(grid)
    with RunFolder.create("fringe", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        with GridProxy(grid, expected_nodes=terminals, seed=config.seed) as proxy:
            model = _train(config, proxy, run, resume=bool(earlier))
        served = serving.serve(config, model, run.artifacts / "session")
        for at_s, text in served.happened:
            run.event(config.rounds, f"{at_s:.1f} s after the first request: {text}")
        pictures.write_tables(served, run.artifacts)
        if config.pictures:
            pictures.draw(config, served, run.artifacts)
            labels = task.terminals_data(config).labels
            plot_partition(task.partition(config, terminals), labels, run.artifacts / "data.png")
        trained = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}[config.rounds]
        for line in pictures.lines(served, trained):
            log.info("%s", line)
        run.finish(_summary(config, served, trained))


def _train(config: FringeRun, grid: Grid, run: RunFolder, *, resume: bool) -> Model:
    result = Layered(FedAvg(fraction_evaluate=0.0), Metered()).start(
        grid,
        initial_arrays=record_of(get_arrays(task.model(config))),
        num_rounds=config.rounds,
        timeout=config.round_timeout_s,
        evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
        run=run,
        resume=resume,
    )
    model = task.model(config)
    set_arrays(model, arrays_of(result.arrays))
    return model


def _evaluate(config: FringeRun, arrays: ArrayRecord) -> MetricRecord:
    _, test = task.datasets(config)
    model = task.model(config)
    set_arrays(model, arrays_of(arrays))
    found = evaluate(model, test.x, test.y, batch_size=256)
    return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})


def _summary(config: FringeRun, served: Served, trained: float) -> dict[str, float]:
    assert served.told is not None
    total = served.told["total"]
    assert total is not None
    metric = total["metric"]
    found = {
        "accuracy": served.accuracy,
        "rounds": config.rounds,
        "accuracy before compression": trained,
        f"{metric} on test": total["test_score"],
        f"{metric} on test before": total["test_before"],
        "bytes of an inference": total["now_bytes"],
        "bytes of an inference before": total["before_bytes"],
        "fewest bytes of an inference": min(sum(one.sizes_bytes) for one in served.versions),
        "requests answered": len(served.answers) - served.lost,
        "requests lost": served.lost,
        "answers of mixed versions": served.mixed,
        "swaps": len(served.versions) - 1,
        **{f"p50 {phase.name}, ms": 1e3 * served.p50_s(phase) for phase in served.phases},
    }
    return {name: float(value) for name, value in found.items() if value is not None}
