"""fe_pristine: a Flower / NumPy app."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fe_pristine.task import load_data
from fe_pristine.task import test as test_fn
from fe_pristine.task import train as train_fn

# Flower ClientApp
app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    # Load the model that came with the message
    model = msg.content["arrays"].to_numpy_ndarrays()

    # Load the data of this partition
    partition_id = int(context.node_config["partition-id"])
    num_partitions = int(context.node_config["num-partitions"])
    x, y = load_data(partition_id, num_partitions)

    # Call the training function
    model, loss = train_fn(
        model, x, y, float(context.run_config["learning-rate"]), int(context.run_config["local-epochs"])
    )

    # Construct and return the reply Message
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(y)})
    content = RecordDict({"arrays": ArrayRecord(model), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    # Load the model that came with the message
    model = msg.content["arrays"].to_numpy_ndarrays()

    # Load the data of this partition
    partition_id = int(context.node_config["partition-id"])
    num_partitions = int(context.node_config["num-partitions"])
    x, y = load_data(partition_id, num_partitions)

    # Construct and return the reply Message
    loss, accuracy = test_fn(model, x, y)
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(y)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
