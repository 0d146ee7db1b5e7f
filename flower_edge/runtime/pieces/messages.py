"""What passes in Flower messages between `Pieces` and its terminals: values, and how they become records. No behaviour.

Two messages, told apart by their type:

    query.pieces    `Asked`  -> `PieceOffered`: has it samples, which model did it build, what has it left
    train.piece     `PieceCall` (+ arrays, optimiser, head, frame) -> `PieceReport` (+ the same)

What is asked is what split learning asks, see `runtime.splitting.messages`. Arrays and optimisers are ordinary
`ArrayRecord`s under the whole model's names, a head's under its own; a frame is a packet.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from ...pieces.order import PieceOrder
from ...splitting.frames import FrameCoder
from ...splitting.profile import ModelProfile
from ..splitting.messages import Claimed, Count, Offered, Taken
from ..text_records import TextRecord

__all__ = [
    "ARRAYS_RECORD",
    "FRAME_RECORD",
    "HEAD_OPTIMISER_RECORD",
    "HEAD_RECORD",
    "OPTIMISER_RECORD",
    "PIECE_RECORD",
    "QUERY",
    "SCHEMA",
    "TRAIN",
    "PieceCall",
    "PieceOffered",
    "PieceReport",
    "coder_at",
]

#: Types of the messages.
QUERY: Final = "query.pieces"
TRAIN: Final = "train.piece"
#: ConfigRecord with a call or a report.
PIECE_RECORD: Final = "piece"
#: ArrayRecord: arrays of the piece's units, by the whole model's names.
ARRAYS_RECORD: Final = "piece-arrays"
#: ArrayRecord: state of the optimiser of those.
OPTIMISER_RECORD: Final = "piece-optimiser"
#: ArrayRecords: of the classifier behind a piece that learns by itself, and the state of its optimiser.
HEAD_RECORD: Final = "piece-head"
HEAD_OPTIMISER_RECORD: Final = "piece-head-optimiser"
#: ArrayRecord with a packet: an encoded `Frame`. In a report `piece-frame-next` and `piece-frame-previous`.
FRAME_RECORD: Final = "piece-frame"
#: Version of all of them.
SCHEMA: Final = "flower-edge.pieces/1"


class _Text(TextRecord):
    """Of pieces."""

    schema_name: ClassVar[str] = SCHEMA
    made_with: ClassVar[str] = "pieces_client"


class PieceOffered(Offered):
    """What a terminal answers; see `Offered`. It requests training where it can build the model.

    Attributes:
        segments: it can load any segment of the training data, where `samples` counts its own.
    """

    made_with: ClassVar[str] = "pieces_client"

    segments: bool = False


class PieceCall(_Text):
    """What a terminal is to do in one message.

    Attributes:
        session: of this run; a terminal forgets what it kept of another one.
        attempt: how often this chain has begun in the round, from 0 on.
        piece: the order itself.
        segment: of the training data, for place 0; None: the terminal's own data.
        plane: `messages`: frames travel in calls and reports. `stream`: over a channel the terminal dials, and the
            report is of the whole round.
        what: `begin`: the piece is in the message, and the work begins. `go-on`: it is what the terminal waits for: a
            frame, or, at place 0 of a decoupled chain, nothing but the next turn. `end`: the round is over, and what is
            remembered of it can go.
        counts: at the end, the terminal's share of the samples behind its chain: what it replies as its weight.
        heard: step of the frame in the message, and where it comes from; None where there is none.
        address, token, certificate: of the channel: host:port, what admits this terminal to it in this round, and the
            PEM of the authority that signed the server's certificate; no certificate: a channel without TLS.
    """

    session: str
    piece: PieceOrder
    attempt: Count = 0
    segment: Count | None = None
    plane: Literal["messages", "stream"] = "messages"
    what: Literal["begin", "go-on", "end"] = "begin"
    counts: Count = 0
    heard: tuple[Literal["next", "previous"], Count] | None = None
    address: str = ""
    token: str = ""
    certificate: str = ""


class PieceReport(_Text):
    """How it went at a terminal.

    Attributes:
        session, round, number, place, attempt: as in the call; `number` is the chain's.
        steps: made in this round so far.
        done: all are made, and the piece is in the reply.
        lost: why it cannot go on (it was restarted, its channel broke); empty where it can. No piece, then.
        broken_by: where it cannot go on because of another place of the chain, which one; None: because of itself.
        compute_s: seconds it computed, all steps so far: measured, or of a modelled terminal.
        flops: of its units, all steps so far.
        up_bits, down_bits: of frames it sent and got.
        samples: that the chain draws from, of place 0; 0 elsewhere.
        loss: mean over the steps made; None before the first.
        flops_per_s: what training reached.
    """

    session: str
    round: Count
    number: Count
    place: Count
    attempt: Count = 0
    steps: Count = 0
    done: bool = False
    lost: str = ""
    broken_by: Count | None = None
    compute_s: Taken = 0.0
    flops: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    up_bits: Count = 0
    down_bits: Count = 0
    samples: Count = 0
    loss: Annotated[float, Field(allow_inf_nan=False)] | None = None
    flops_per_s: Claimed = None


def coder_at(order: PieceOrder, profile: ModelProfile, side: Literal["next", "previous"]) -> FrameCoder:
    """Of the frames between a piece and the one on this side of it, both ways; both pieces come to the same one.

    Raises:
        SplitError: units the model does not have.
        CodecError: a codec that cannot be used at a cut.
    """
    cut = order.stop if side == "next" else order.start
    return FrameCoder(order.work.model_copy(update={"cut": cut}), profile)
