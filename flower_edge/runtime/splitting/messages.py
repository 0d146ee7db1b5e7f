"""What passes in Flower messages between `Split` and its devices: values, and how they become records. No behaviour.

Four messages, told apart by their type:

    query.split      `Asked`  -> `Offered`: has the device enough data, what are its moments, can it build the model
    train.split      `SplitOrder` (+ half, optimiser, frame) -> `SplitReport` (+ half, optimiser, frame)

A half and its optimiser are ordinary `ArrayRecord`s under the whole model's names; a frame is a packet.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from ...splitting.order import ArchitectureSpec, WorkOrder
from ..text_records import TextRecord

__all__ = [
    "FRAME_RECORD",
    "HALF_RECORD",
    "OPTIMISER_RECORD",
    "SCHEMA",
    "SPLIT_RECORD",
    "Asked",
    "Offered",
    "SplitOrder",
    "SplitReport",
]

#: ConfigRecord with an order, a report, a question or an answer.
SPLIT_RECORD: Final = "split"
#: ArrayRecord: arrays of the units that are the device's, by the whole model's names.
HALF_RECORD: Final = "split-half"
#: ArrayRecord: state of the optimiser of those, as `halves_torch` names it.
OPTIMISER_RECORD: Final = "split-optimiser"
#: ArrayRecord with a packet: an encoded `Frame`, where frames travel in messages.
FRAME_RECORD: Final = "split-frame"
#: Version of all of them.
SCHEMA: Final = "flower-edge.split/1"

Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
#: Of a device that measured nothing it is None.
Measured = Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None
#: What a device says of itself is believed within reason: a plan for all is made from it.
Claimed = Annotated[float, Field(ge=1.0, le=1e21)] | None
Delay = Annotated[float, Field(ge=0.0, le=86_400.0)] | None
Taken = Annotated[float, Field(ge=0.0, le=1e9)]


class _Text(TextRecord):
    """Of split learning."""

    schema_name: ClassVar[str] = SCHEMA
    made_with: ClassVar[str] = "split_client"


class Asked(_Text):
    """What the cloud asks a device before a run and between rounds.

    Attributes:
        least_samples: how many samples are enough to ask for training.
        moments: config of the standardisation whose moments are wanted; None for none.
        architecture: to be built and its digest compared; None where it has been.
        capacity: whether to measure what the device has left, see `Offered`.
        round: the round that comes.
    """

    least_samples: Count = 1
    moments: dict[str, Any] | None = None
    architecture: ArchitectureSpec | None = None
    capacity: bool = True
    round: Count = 0


class Offered(_Text):
    """What a device answers.

    Attributes:
        requests: it asks for training: it has at least so many samples.
        samples: how many it has.
        moments: counts, sums, squares and so on, as JSON values; never samples.
        digest: of the architecture as it built it; empty where none was asked for.
        flops_per_s, up_bps, down_bps, delay_s: what it has left now, each None where it has not measured it.
        memory_bytes: free for training.
        why: why it does not request, or could not build the model.
    """

    requests: bool
    samples: Count
    moments: dict[str, Any] | None = None
    digest: str = ""
    flops_per_s: Claimed = None
    up_bps: Claimed = None
    down_bps: Claimed = None
    delay_s: Delay = None
    memory_bytes: Count | None = None
    why: str = ""


class SplitOrder(_Text):
    """What a device is to do in one message.

    Attributes:
        session: of this run; a device forgets what it kept of another one.
        work: the order itself.
        plane: `messages`: the reply carries the next frame, or the half when the work is done. `stream`: frames travel
            over a channel the device dials, and the reply carries the half.
        begin: the half is in the message, and the work begins; else the frame that answers the last one is in it.
        address, token, certificate: of the channel: host:port, what admits this device to it in this round, and the
            PEM of the authority that signed the server's certificate; no certificate: a channel without TLS.
        up_bps, down_bps: what is reserved for this device's frames, and for the answers to them; None sends as fast as
            it goes.
        train_s, transfer_s: budgets of one step, told so that the device can report how often it exceeded them.
        peers: JSON of how halves are merged among devices, where they are; empty where the server does it.
        gauge: it measures what its first batch gives away of its inputs, see `SplitReport.leak`.
    """

    session: str
    work: WorkOrder
    plane: Literal["messages", "stream"] = "messages"
    begin: bool = True
    address: str = ""
    token: str = ""
    certificate: str = ""
    up_bps: Measured = None
    down_bps: Measured = None
    train_s: Seconds | None = None
    transfer_s: Seconds | None = None
    peers: str = ""
    gauge: bool = False


class SplitReport(_Text):
    """How it went at a device.

    Attributes:
        session, round, number: as in the order.
        steps: made in this round so far.
        done: the half is in the reply; else a frame is.
        lost: why it cannot go on (it was restarted, its channel broke); empty where it can. No half, then.
        compute_s, transfer_s: seconds the device computed, and seconds on the way, all steps so far: measured, or of a
            modelled device.
        flops: of the device's units, all steps so far.
        up_bits, down_bits: of the frames.
        late: how many transfers took longer than their budget.
        samples: drawn in this round.
        flops_per_s, up_bps, down_bps, delay_s: what it measured in this round, as in `Offered`.
        leak: distance correlation, 0 to 1, of the inputs of the round's first batch with what crosses the cut of it;
            None where it was not measured.
    """

    session: str
    round: Count
    number: Count
    steps: Count = 0
    done: bool = False
    lost: str = ""
    compute_s: Taken = 0.0
    transfer_s: Taken = 0.0
    flops: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    up_bits: Count = 0
    down_bits: Count = 0
    late: Count = 0
    leak: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    samples: Count = 0
    flops_per_s: Claimed = None
    up_bps: Claimed = None
    down_bps: Claimed = None
    delay_s: Delay = None
