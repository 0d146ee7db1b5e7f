"""fe_moody: clients that answer at once."""

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(msg: Message, context: Context) -> Message:
    """Answer with nothing."""
    return Message(content=RecordDict(), reply_to=msg)
