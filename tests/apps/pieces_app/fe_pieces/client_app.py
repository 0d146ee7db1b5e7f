"""fe_pieces: a terminal. Number 1 fails at every frame but its first."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fe_pieces.task import MODELS, segment
from flower_edge.clients.pieces import pieces_client
from flower_edge.clients.properties import answer_properties
from flower_edge.runtime.pieces.messages import PIECE_RECORD, PieceCall


def leaving(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod: terminal 1 leaves in the middle of every round."""
    if message.metadata.message_type == "train.piece" and context.node_config["partition-id"] == 1:
        call = PieceCall.read(message.content.config_records.get(PIECE_RECORD), sender="the server")
        if call.what == "go-on":
            raise RuntimeError("this terminal has left")
    return call_next(message, context)


app = answer_properties(
    pieces_client(lambda context, number: segment(number), app=ClientApp(mods=[leaving]), models=MODELS)
)
