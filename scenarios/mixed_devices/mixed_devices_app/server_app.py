"""Two edges and a centre: the run, the same model trained otherwise beside it, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from logging import getLogger

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import evaluate, get_arrays, set_arrays
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.submodels.mlp import narrow_mlp
from flower_edge.wire import arrays_of, record_of
from mixed_devices_app import devices, pictures, tables, task
from mixed_devices_app.config import MixedDevices, RunName
from mixed_devices_app.federation import Federation, everybody, number_of, virtual_clock, whole_only
from mixed_devices_app.tables import Lasted, Part

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.mixed_devices")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, compare, draw, and leave a run folder behind."""
    config = read_config(MixedDevices, context.run_config)
    terminals = expected_nodes(grid)
    config.check(terminals)
    with RunFolder.create("mixed-devices", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        (run.artifacts / "models.csv").write_text(task.models(config).to_csv(), encoding="utf-8")
        federation = Federation(config)
        with GridProxy(grid, expected_nodes=terminals, seed=config.seed) as proxy:
            accuracy = {"assigned": _train(config, federation, terminals, proxy, run, resume=bool(earlier))}
            for name in config.beside:
                log.info("Once more: %s", pictures.RUNS[name])
                root = run.artifacts / "beside"
                with RunFolder.create(name, config={"run": name}, seed=config.seed, root=root) as other:
                    accuracy[name] = _beside(config, name, proxy, other)
                    other.finish({})
        parts = tables.parts(config, terminals, run.rows(), federation.hall.history)
        lasted = tables.lasted(config, run.rows("seconds"))
        tables.write(tables.parts_table(parts), run.artifacts / f"{pictures.TRAINED}.csv")
        if config.pictures:
            pictures.draw_trained(config, terminals, parts, run.artifacts)
            pictures.draw_accuracy(accuracy, run.artifacts)
            pictures.draw_seconds(config, lasted, run.artifacts)
            plot_partition(
                task.partition(config, terminals), task.datasets(config)[0].labels, run.artifacts / "data.png"
            )
        summary = _summary(config, accuracy, parts, lasted)
        _tell(accuracy, summary)
        run.finish(summary)


def _train(
    config: MixedDevices, federation: Federation, terminals: int, grid: Grid, run: RunFolder, *, resume: bool
) -> list[float]:
    """The run itself: the accuracy before the first round and after each."""
    clock = virtual_clock(config, grid, terminals)
    stepped = federation.stepped(config, clock)

    def after_round(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number:
            for node in grid.get_node_ids():
                terminal, round_s = number_of(grid, node), stepped.last_duration_s(node)
                if devices.edge_of(terminal) == "street" and round_s is not None:
                    told = {"round_s": round_s}
                    run.record("seconds", number, told, cell="street", node=str(terminal), virtual_s=clock.now_s)
        return _evaluate(config, arrays)

    federation.strategy.start(
        stepped,
        initial_arrays=record_of(get_arrays(task.model(config))),
        num_rounds=config.rounds,
        timeout=config.round_timeout_s,
        train_config=ConfigRecord({"local-steps": config.train.steps}),
        evaluate_fn=after_round,
        run=run,
        resume=resume,
    )
    return _accuracies(run)


def _beside(config: MixedDevices, name: RunName, grid: Grid, run: RunFolder) -> list[float]:
    """The accuracy of another run, with Flower's FedAvg alone."""
    whole = task.model(config)
    start = get_arrays(whole if name == "whole" else narrow_mlp(whole, task.models(config).lightest.shapes))
    (whole_only(config) if name == "whole" else everybody(config)).start(
        grid,
        initial_arrays=record_of(start),
        num_rounds=config.rounds,
        timeout=config.round_timeout_s,
        train_config=ConfigRecord({"local-steps": config.train.steps, "quiet": True}),
        evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
        run=run,
    )
    return _accuracies(run)


def _evaluate(config: MixedDevices, arrays: ArrayRecord) -> MetricRecord:
    """Of a model of any size, on data that nobody trains on."""
    _, test = task.datasets(config)
    found = arrays_of(arrays)
    model = narrow_mlp(task.model(config), {name: array.shape for name, array in found.items()})
    set_arrays(model, found)
    scores = evaluate(model, test.x, test.y)
    return MetricRecord({"accuracy": scores.accuracy, "loss": scores.loss})


def _accuracies(run: RunFolder) -> list[float]:
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    return [scores[number] for number in sorted(scores)]


def _summary(
    config: MixedDevices,
    accuracy: Mapping[str, Sequence[float]],
    parts: Sequence[Part],
    lasted: Sequence[Lasted],
) -> dict[str, float]:
    street = [part for part in parts if part.edge == "street"]
    return {
        "accuracy": accuracy["assigned"][-1],
        "rounds": config.rounds,
        **{f"accuracy, {pictures.RUNS[name]}": scores[-1] for name, scores in accuracy.items()},
        "changes in mid-round": sum(part.first_step > 0 for part in street),
        "pieces reassigned": sum(part.reassigned for part in parts),
        "mean share of the parameters, street": tables.mean_share(street),
        "longest round of the street, s": max(one.round_s for one in lasted),
        "longest with the whole model, s": max(one.whole_s for one in lasted),
    }


def _tell(accuracy: Mapping[str, Sequence[float]], summary: Mapping[str, float]) -> None:
    for name, scores in accuracy.items():
        log.info("%s: accuracy %.3f after %d rounds", pictures.RUNS[name], scores[-1], len(scores) - 1)
    log.info(
        "street: %.0f %% of the parameters on average, %d changes in mid-round; hall: %d pieces reassigned",
        100 * summary["mean share of the parameters, street"],
        summary["changes in mid-round"],
        summary["pieces reassigned"],
    )
    log.info(
        "longest round of a terminal of the street: %.1f virtual seconds, %.1f if all had the whole model",
        summary["longest round of the street, s"],
        summary["longest with the whole model, s"],
    )
