"""fe_pieces: trains over two edges, and writes the model and who trained what to a file."""

import json
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fe_pieces.task import MODELS, SPEC, TERMINALS, initial
from flower_edge.models.train_torch import get_arrays
from flower_edge.runtime import GridProxy
from flower_edge.splitting.order import OptimiserSpec
from flower_edge.strategies.hierarchy.cells import blocks
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.wire import record_of

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run."""
    strategy = Pieces(
        SPEC,
        edges=blocks(2),
        cuts=(2,),
        data="segments",
        segments=2,
        steps_per_round=2,
        batch_size=4,
        optimiser=OptimiserSpec(lr=0.1, options={"momentum": 0.9}),
        models=MODELS,
    )
    rounds = int(context.run_config["num-server-rounds"])
    with GridProxy(grid, expected_nodes=TERMINALS) as proxy:
        result = strategy.start(proxy, record_of(get_arrays(initial())), rounds)
    assert result.arrays is not None
    found = {
        "model": {name: array.numpy().tolist() for name, array in result.arrays.items()},
        "who": [
            [row[name] for name in ("round", "chain", "attempt", "terminal", "merged")] for row in strategy.history
        ],
    }
    Path("pieces.json").write_text(json.dumps(found), encoding="utf-8")
