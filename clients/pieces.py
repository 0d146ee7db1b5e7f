"""`pieces_client`: a terminal that trains a piece of a model, from a function that gives its data.

    app = pieces_client(lambda context: my_samples(context))             # each terminal has samples of its own
    app = pieces_client(lambda context, segment: my_segment(segment))    # or loads a segment of the training data
    app = pieces_client()                                                # or lends what it can compute

It answers two messages of `Pieces`: `query.pieces`, what it has, and `train.piece`, a part of a round. The model is
built from the architecture the server names; no code travels. A terminal keeps nothing between rounds. What it does
with a message is in pieces_round.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.errors import DataError, SplitError
from flower_edge.runtime.pieces.messages import PIECE_RECORD, PieceCall, PieceOffered
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, Asked
from flower_edge.splitting.capacity import Capacity

from .pieces_kept import Data, Kept, Source
from .pieces_round import Round
from .split_capacity import measured_capacity, offered_capacity

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["pieces_client"]


def pieces_client(
    data: Source | None = None,
    *,
    app: ClientApp | None = None,
    models: Mapping[str, Callable[..., Any]] | None = None,
    capacity: Callable[[Context, int], Capacity] | None = None,
    modelled: bool = False,
) -> ClientApp:
    """Register the answers to `Pieces` on an app, and return it.

    Args:
        data: gives samples [samples, ...] and targets: of (context), what the terminal has itself; of (context,
            segment), any segment of the training data. Asked when a round begins; within a round it must not change.
            None: the terminal has none, and holds any piece but the first.
        app: yours, with train and evaluate of its own; a new one by default.
        models: factories of models of your own by name, as `Pieces` has them.
        capacity: what the terminal has left in a round; by default it is measured: `measured_capacity`.
        modelled: report the times that training would take with that capacity, instead of those it took: for
            simulations.

    Raises:
        EdgeError: (as an error reply) a piece that cannot be trained here.

    >>> import numpy as np
    >>> app = pieces_client(lambda context: (np.zeros((8, 4), np.float32), np.zeros(8, np.int64)))
    """
    app = ClientApp() if app is None else app
    kept, has = Kept(data, models), capacity or measured_capacity

    @app.query("pieces")
    def answer(message: Message, context: Context) -> Message:
        asked = Asked.read(message.content.config_records.get(SPLIT_RECORD), sender="the server")
        offered = _offer(kept, asked, context, has)
        return Message(RecordDict({SPLIT_RECORD: offered.write()}), reply_to=message)

    @app.train("piece")
    def train(message: Message, context: Context) -> Message:
        call = PieceCall.read(message.content.config_records.get(PIECE_RECORD), sender="the server")

        def load() -> tuple[CutModel, Data | None]:
            return kept.model(call.piece.work.architecture), kept.data(context, call)

        def now() -> float | None:
            return has(context, call.piece.work.round).flops_per_s if modelled else None

        return Round(call, message, context, load, now).answer()

    return app


def _offer(kept: Kept, asked: Asked, context: Context, has: Callable[[Context, int], Capacity]) -> PieceOffered:
    """What a terminal answers."""
    found: dict[str, Any] = {"requests": True, "samples": 0, "segments": kept.segments}
    try:
        found["samples"] = kept.own_samples(context)
    except DataError as error:
        found["why"] = str(error)
    if asked.architecture is not None:
        try:
            # The digest it comes to is told: the server compares.
            found["digest"] = kept.model(asked.architecture.model_copy(update={"digest": ""})).digest
        except SplitError as error:
            found |= {"requests": False, "why": str(error)}
    if asked.capacity:
        found |= offered_capacity(has(context, asked.round))
    return PieceOffered(**found)
