"""fe_split_app: trains, and writes the model and what became of each device to a file."""

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.strategies.splitting.stream_plane import StreamPlane

from .task import ROUNDS, start, strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run over the stream, with TLS."""
    split = strategy(StreamPlane())
    found: dict[str, object]
    try:
        result = split.start(GridProxy(grid, expected_nodes=2), start(), num_rounds=ROUNDS)
        arrays = {name: array.numpy().tobytes().hex() for name, array in result.arrays.items()}
        found = {"arrays": arrays, "lost": [row["lost"] for row in split.history]}
        found["transfer_s"] = [row["transfer_s"] for row in split.history]
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    report = Path(str(context.run_config["report"]))
    report.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
    report.with_suffix(".part").rename(report)
