"""The centre and its edges: who is in which cell changes while they train, on a virtual clock."""

from __future__ import annotations

import os
from collections import Counter
from logging import getLogger

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.config import read_config
from flower_edge.data import plot_partition
from flower_edge.models import evaluate, get_arrays, set_arrays
from flower_edge.rules import Rule
from flower_edge.runtime import GridProxy, SteppedGrid, VirtualClock, draw_devices, draw_links, expected_nodes
from flower_edge.selection import Oort, Pipeline, RandomScore
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical, Layered, Metered
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.mid_round import MidRound
from flower_edge.strategies.selected import Selected
from flower_edge.strategies.stop_when import StopWhen
from flower_edge.termination import Limits, Score
from flower_edge.units import mbps_to_bps, ms_to_s
from flower_edge.wire import arrays_of, record_of
from moving_terminals_app import task, world
from moving_terminals_app.config import MovingTerminals

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.moving_terminals")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, draw what happened, and leave a run folder behind."""
    config = read_config(MovingTerminals, context.run_config)
    terminals = expected_nodes(grid)
    with RunFolder.create("moving-terminals", config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            run.continue_from(RunFolder.open(earlier))
        proxy = GridProxy(grid, expected_nodes=terminals, seed=config.seed)
        clock = _clock(config, proxy, terminals)
        coverage = Coverage(world.located(config, terminals), join=config.join, handover=config.handover)
        stepped = SteppedGrid(
            clock,
            config.steps_per_message,
            _mid_round(config, coverage, clock, terminals),
            reachable=coverage.reachable,
        )
        with proxy:
            result = _strategy(config, coverage, clock).start(
                stepped,
                initial_arrays=record_of(get_arrays(task.model(config))),
                num_rounds=config.num_server_rounds,
                timeout=config.round_timeout_s,
                train_config=ConfigRecord({"local-steps": config.local_steps}),
                evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
                run=run,
                resume=bool(earlier),
            )
        if config.pictures:
            data = run.artifacts / "data.png"
            plot_partition(task.partition(config, terminals), task.datasets(config)[0].labels, data)
            world.draw(config, terminals, clock.now_s, run.artifacts)
        scores = result.evaluate_metrics_serverapp
        last, counts = scores[max(scores)], _counts(run)
        log.info("In %.0f s of virtual time: %s", clock.now_s, ", ".join(f"{n} {what}" for what, n in counts.items()))
        ended = {"rounds": max(scores), "virtual_s": clock.now_s}
        run.finish({"accuracy": float(last["accuracy"]), "loss": float(last["loss"]), **ended, **counts})


def _counts(run: RunFolder) -> dict[str, int]:
    """How often what happened, from the events of the run."""
    events = [row.values for row in run.rows("event")]
    happened = Counter(str(event.get("what", "")) for event in events)
    return {
        "handovers": happened["handed-over"],
        "left their edge": happened["left"],
        "left in mid-task": happened["exited"],
        "lost their work": sum(str(event.get("work", "")).startswith(("discarded", "lost")) for event in events),
        "replaced as too slow": happened["slow"],
        "merged late": happened["late-merged"],
    }


def _clock(config: MovingTerminals, proxy: GridProxy, terminals: int) -> VirtualClock:
    devices = draw_devices(
        terminals, config.seed, config.devices.sigma, median_step_s=ms_to_s(config.devices.median_step_ms)
    )
    links = draw_links(terminals, config.seed, mbps_to_bps(config.links.low_mbps), mbps_to_bps(config.links.high_mbps))
    load = world.load_model(config, terminals)
    return VirtualClock(proxy, devices, links, seed=config.seed, slowdown=load.slowdown)


def _mid_round(config: MovingTerminals, coverage: Coverage, clock: VirtualClock, terminals: int) -> MidRound:
    load = world.load_model(config, terminals)
    return MidRound(
        coverage,
        on_exit=config.on_exit,
        replace_slower_than=config.replace_slower_than or None,
        enlist=config.enlist,
        eligible=Rule(config.select.eligible) if config.select.eligible else None,
        # A policy must not send messages; here the model knows what the terminal would tell if it were asked.
        known=lambda node: load.at(coverage.index_of(node), clock.now_s).to_mapping(),
        # Any order that repeats will do; by default those that have just come are asked first.
        prefer=lambda nodes: sorted(nodes, key=coverage.index_of),
    )


def _strategy(config: MovingTerminals, coverage: Coverage, clock: VirtualClock) -> Layered:
    pipeline = Pipeline(
        config.terminals_per_edge,
        eligible=config.select.eligible or None,
        score=Oort() if config.select.score == "oort" else RandomScore(),
    )

    def edge(cell: str) -> Layered:
        inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        return Layered(inner, Covered(coverage), Selected(pipeline, seed=config.seed, loss_key="loss"), Metered())

    hierarchical = Hierarchical(
        edge=edge,
        cells=coverage,
        edge_rounds=config.edge_rounds,
        seed=config.seed,
        idle_s=config.area.away_s,
    )
    limits = Limits(
        virtual_s=config.stop.virtual_s or None,
        score=Score("accuracy", config.stop.accuracy) if config.stop.accuracy else None,
    )
    if limits == Limits():
        return Layered(hierarchical, Metered())
    return Layered(hierarchical, StopWhen(limits, now=lambda: clock.now_s), Metered())


def _evaluate(config: MovingTerminals, arrays: ArrayRecord) -> MetricRecord:
    _, test = task.datasets(config)
    model = task.model(config)
    set_arrays(model, arrays_of(arrays))
    found = evaluate(model, test.x, test.y, batch_size=256)
    return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})
