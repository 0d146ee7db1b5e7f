"""fe_steps: FedAvg three times: whole messages, slices, slices with a node that asks to stop."""

import json

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.steps.grid import SteppedGrid

app = ServerApp()


def trained(grid: Grid, steps: int, busy: bool) -> list[float]:
    """The model after two rounds."""
    start = ArrayRecord([np.zeros(3)])
    config = ConfigRecord({"local-steps": steps, "busy": busy})
    result = FedAvg(fraction_evaluate=0.0).start(grid, start, 2, timeout=120, train_config=config)
    return result.arrays.to_numpy_ndarrays()[0].tolist()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Print the three models and what was decided as one line of JSON."""
    steps, size = int(context.run_config["local-steps"]), int(context.run_config["steps-per-message"])
    with GridProxy(grid, expected_nodes=2) as proxy:
        whole = trained(proxy, steps, busy=False)
        stepped = SteppedGrid(proxy, size)
        sliced = trained(stepped, steps, busy=False)
        decided = len(stepped.events)
        stopped = trained(stepped, steps, busy=True)
    events = [[event.round, event.step, event.request, event.decision] for event in stepped.events[decided:]]
    told = {"whole": whole, "sliced": sliced, "decided": decided, "stopped": stopped, "events": events}
    print(f"told={json.dumps(told)}")
