"""fe_pristine: a Flower / NumPy app."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fe_pristine.task import get_model, load_test_data
from fe_pristine.task import test as test_fn

# Create ServerApp
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    # Read run config
    num_rounds = int(context.run_config["num-server-rounds"])

    # Load global model
    arrays = ArrayRecord(get_model())

    # Initialize strategy
    strategy = FedAvg()

    # Start strategy, run for `num_rounds`
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=num_rounds, evaluate_fn=global_evaluate)


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Evaluate model on central data."""
    x, y = load_test_data()
    loss, accuracy = test_fn(arrays.to_numpy_ndarrays(), x, y)
    return MetricRecord({"loss": loss, "accuracy": accuracy})
