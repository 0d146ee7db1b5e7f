"""The centre: starts the federation, draws what happened, and leaves a run folder with one report."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from logging import getLogger

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from everything_app import pictures, task, world
from everything_app.config import Everything
from everything_app.federation import evaluation, federation
from flower_edge.config import read_config
from flower_edge.errors import ConfigError
from flower_edge.models import get_arrays
from flower_edge.rewards.credits import MICRO_PER_CREDIT
from flower_edge.runtime import GridProxy, expected_nodes
from flower_edge.store import RunFolder
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import Coverage
from flower_edge.wire import arrays_of, record_of

app = ServerApp()
# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.everything")

#: The book's file, where `flower-edge rewards` looks for it, and the run's name in it, which outlives a resume.
BOOK, NAME = "rewards.sqlite", "everything"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, draw what happened, and leave a run folder behind."""
    config = read_config(Everything, context.run_config)
    terminals = expected_nodes(grid)
    if strange := [terminal for terminal in sorted(config.faults.noisy) if terminal >= terminals]:
        raise ConfigError(f"faults.noise names terminal {strange[0]}; terminals go from 0 to {terminals - 1}")
    with RunFolder.create(NAME, config=config.model_dump(by_alias=True), seed=config.seed) as run:
        earlier = os.environ.get("FLOWER_EDGE_RESUME")
        if earlier:
            before = RunFolder.open(earlier)
            run.continue_from(before)
            for path in sorted(before.path.glob(f"{BOOK}*")):
                shutil.copy(path, run.path / path.name)
        coverage = Coverage(world.located(config, terminals))
        with (
            RewardBook(run.path / BOOK) as book,
            GridProxy(grid, expected_nodes=terminals, seed=config.seed) as proxy,
        ):
            clock = world.clock(config, proxy, terminals)
            federation(config, terminals, coverage, book, NAME).start(
                clock,
                initial_arrays=record_of(get_arrays(task.model(config))),
                num_rounds=config.rounds,
                timeout=config.round_timeout_s,
                evaluate_fn=lambda number, arrays: _evaluate(config, arrays),
                run=run,
                resume=bool(earlier),
            )
            paid = {node: micro / MICRO_PER_CREDIT for node, micro in book.balances().items()}
        if config.pictures:
            world.draw(config, terminals, clock.now_s, run.artifacts)
            pictures.draw(run, paid, run.artifacts)
        summary = _summary(run, paid, clock.now_s)
        log.info("In %.0f s of virtual time: %s", clock.now_s, ", ".join(f"{k} {v:.4g}" for k, v in summary.items()))
        run.finish(summary)


def _evaluate(config: Everything, arrays: ArrayRecord) -> MetricRecord:
    found = evaluation(config, task.data(config).test)(arrays_of(arrays))
    return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})


def _summary(run: RunFolder, paid: dict[str, float], virtual_s: float) -> dict[str, float]:
    happened = Counter(str(row.values.get("what", "")) for row in run.rows("event"))
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    traffic = [row.values for row in run.rows("traffic") if not row.cell]
    return {
        "accuracy": scores[max(scores)],
        "rounds": max(scores),
        "virtual_s": virtual_s,
        "handovers": happened["handed-over"],
        "models refused": happened["refused"],
        "credits paid": sum(paid.values()),
        "centre's round trip ratio": float(traffic[-1]["total_round_trip_ratio"]),
    }
