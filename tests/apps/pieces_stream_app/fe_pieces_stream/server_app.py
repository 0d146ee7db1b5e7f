"""fe_pieces_stream: trains, and writes the model and what became of each piece to a file."""

import json
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.strategies.pieces.stream_plane import PieceStream

from .task import ROUNDS, start, strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run over channels with TLS, or with frames in messages."""
    config = context.run_config
    pieces = strategy(PieceStream() if config["plane"] == "stream" else None, int(config["steps"]))
    found: dict[str, object]
    try:
        begun_s = time.monotonic()
        result = pieces.start(GridProxy(grid, expected_nodes=3), start(), num_rounds=ROUNDS)
        arrays = {name: array.numpy().tobytes().hex() for name, array in result.arrays.items()}
        found = {"arrays": arrays, "lost": [row["lost"] for row in pieces.history]}
        found["run_s"] = time.monotonic() - begun_s
        passed = getattr(pieces.plane, "passed", {})
        found["turn_s"] = {str(place): one.turn_s for (_, place), one in passed.items()}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    report = Path(str(config["report"]))
    report.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
    report.with_suffix(".part").rename(report)
