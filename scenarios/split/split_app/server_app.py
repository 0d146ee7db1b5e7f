"""The cloud: plans a cut per device and round, trains its halves, merges; and the same with other plans beside it."""

from __future__ import annotations

import os
from logging import getLogger

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import evaluate, get_arrays, set_arrays
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.strategies import Layered, Metered, Split
from flower_edge.wire import arrays_of, record_of
from split_app import config as keys
from split_app import pictures, planning, task

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.split")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, compare, draw, and leave a run folder behind."""
    config = read_config(keys.Split, context.run_config)
    devices = expected_nodes(grid)
    config.check(devices)
    strategies = {name: _strategy(config, name) for name in (config.planner, *config.beside)}
    with RunFolder.create("split", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        told: dict[str, pictures.Told] = {}
        with GridProxy(grid, expected_nodes=devices, seed=config.seed) as proxy:
            for name, strategy in strategies.items():
                if name == config.planner:
                    _train(config, strategy, proxy, run, resume=bool(earlier))
                    pictures.write_rows(strategy.history, run.artifacts / "steps.csv")
                    accuracy = _accuracies(run)
                else:
                    log.info("Once more: planner %s", name)
                    with RunFolder.create(
                        name, config={"planner": name}, seed=config.seed, root=run.artifacts / "beside"
                    ) as other:
                        _train(config, strategy, proxy, other)
                        accuracy = _accuracies(other)
                        other.finish({})
                told[name] = pictures.told(config, strategy.history, accuracy)
        if config.pictures:
            plot_partition(task.partition(config, devices), task.datasets(config)[0].labels, run.artifacts / "data.png")
            pictures.draw(config, told, run.artifacts)
        summary = _summary(config, told)
        for name, one in told.items():
            log.info(
                "%s: accuracy %.3f after %.1f s, modelled; a step takes %.0f ms, devices %.0f ms apart; %.0f MB",
                name,
                one.accuracy[-1],
                one.clock_s[-1],
                1e3 * one.step_s.max(axis=0).mean(),
                1e3 * one.spread_s.mean(),
                one.traffic_bits[-1] / 8e6,
            )
        run.finish(summary)


def _strategy(config: keys.Split, name: keys.PlannerName) -> Split:
    return Split(
        task.architecture(config),
        planner=planning.planner(config, name),
        strategy=FedAvg(fraction_evaluate=0.0),
        steps_per_round=config.train.steps,
        batch_size=config.train.batch_size,
        optimiser=planning.optimiser(config),
        merge_every=config.train.merge_every,
        labels=config.cut.labels,
        tail=config.cut.tail,
        seed=config.seed,
    )


def _train(config: keys.Split, strategy: Split, grid: Grid, run: RunFolder, *, resume: bool = False) -> None:
    Layered(strategy, Metered()).start(
        grid,
        initial_arrays=record_of(get_arrays(task.model(config))),
        num_rounds=config.rounds,
        timeout=config.round_timeout_s,
        evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
        run=run,
        resume=resume,
    )


def _evaluate(config: keys.Split, arrays: ArrayRecord) -> MetricRecord:
    _, test = task.datasets(config)
    model = task.model(config)
    set_arrays(model, arrays_of(arrays))
    found = evaluate(model, test.x, test.y, batch_size=256)
    return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})


def _accuracies(run: RunFolder) -> list[float]:
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    return [scores[number] for number in sorted(scores)]


def _summary(config: keys.Split, told: dict[str, pictures.Told]) -> dict[str, float]:
    own = told[config.planner]
    found = {
        "accuracy": own.accuracy[-1],
        "rounds": config.rounds,
        "modelled_s": own.clock_s[-1],
        "step_ms": 1e3 * own.step_s.max(axis=0).mean(),
        "spread_ms": 1e3 * own.spread_s.mean(),
        "traffic_mb": own.traffic_bits[-1] / 8e6,
    }
    for name, one in told.items():
        if name != config.planner:
            found[f"times {name}'s clock"] = own.clock_s[-1] / one.clock_s[-1]
            found[f"{name}'s spread over it"] = one.spread_s.mean() / own.spread_s.mean()
    return {name: float(value) for name, value in found.items()}
