"""Cloud rounds over edges that are hosts; the model is judged here, on pictures that no terminal has."""

from __future__ import annotations

from logging import getLogger

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from pydantic import Field

from flower_edge.config import RunConfig, read_config
from flower_edge.data import load_dataset
from flower_edge.models.numpy_mlp import NumpyMLP, evaluate
from flower_edge.runtime import GridProxy
from flower_edge.store import RunFolder
from flower_edge.strategies import BridgeTier, Hierarchical
from flower_edge.wire import arrays_of, record_of

app = ServerApp()
log = getLogger("flwr.three_hosts")


class Centre(RunConfig):
    """What the centre can be told."""

    seed: int = Field(5, ge=0)
    edges: int = Field(2, ge=1)
    cloud_rounds: int = Field(4, ge=1)
    edge_rounds: int = Field(5, ge=1)
    #: Units of the one hidden layer.
    hidden: int = Field(32, ge=1)
    round_timeout_s: float = Field(300.0, gt=0)
    #: Of the run; "": where runs are kept otherwise.
    folder: str = ""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and leave a run folder behind."""
    config = read_config(Centre, context.run_config)
    _, test = load_dataset("digits", seed=config.seed)
    model = NumpyMLP([test.x[0].size, config.hidden, test.num_classes], seed=config.seed)

    def judge(number: int, arrays: ArrayRecord) -> MetricRecord:
        model.load(arrays_of(arrays))
        found = evaluate(model, test.x, test.y)
        log.info("after cloud round %d: accuracy %.3f", number, found.accuracy)
        return MetricRecord({"accuracy": found.accuracy, "loss": found.loss})

    told = config.model_dump(by_alias=True)
    with RunFolder.create("three-hosts", config=told, seed=config.seed, path=config.folder or None) as run:
        proxy = GridProxy(grid, expected_nodes=config.edges, join_timeout_s=120.0, seed=config.seed)
        strategy = Hierarchical(tier=BridgeTier(), edge_rounds=config.edge_rounds, seed=config.seed, idle_s=1.0)
        with proxy:
            result = strategy.start(
                proxy,
                initial_arrays=record_of(model.arrays()),
                num_rounds=config.cloud_rounds,
                timeout=config.round_timeout_s,
                evaluate_fn=judge,
                run=run,
            )
        last = result.evaluate_metrics_serverapp[max(result.evaluate_metrics_serverapp)]
        run.finish(
            {"accuracy": float(last["accuracy"]), "loss": float(last["loss"]), "rounds": config.cloud_rounds}
        )  # fmt: skip
