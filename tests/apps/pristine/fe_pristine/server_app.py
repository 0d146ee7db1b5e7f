"""fe_pristine: a Flower / NumPy app."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fe_pristine.task import get_model

# Create ServerApp
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Main entry point for the ServerApp."""
    # Read run config
    num_rounds = int(context.run_config["num-server-rounds"])

    # Load global model
    arrays = ArrayRecord(get_model())

    # Initialize FedAvg strategy
    strategy = FedAvg()

    # Start strategy, run FedAvg for `num_rounds`
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=num_rounds)

    # Print the final model
    print("final model:", *(array.round(6).tolist() for array in result.arrays.to_numpy_ndarrays()))
