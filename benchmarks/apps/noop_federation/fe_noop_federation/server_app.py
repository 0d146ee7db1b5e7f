"""The same measurement as in process, inside Flower's own simulation."""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from .rounds import measure_sizes

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Measure every model size of the run config and write the report."""
    config = context.run_config
    parameters, rounds = ([int(word) for word in str(config[key]).split(",")] for key in ("parameters", "rounds"))
    sizes = measure_sizes(grid, int(config["nodes"]), list(zip(parameters, rounds, strict=True)))
    Path(str(config["report"])).write_text(json.dumps({"sizes": sizes}), "utf-8")
