"""What a `SplitService` is told of one device's round, and what it tells afterwards. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...splitting.frame import Frame
from ...splitting.frames import FrameCoder
from ...splitting.order import WorkOrder
from ...splitting.results import WorkResult
from .edge_part import EdgePart

__all__ = ["Job", "Outcome", "Patience"]


@dataclass(frozen=True)
class Patience:
    """How long a service waits, in seconds.

    Attributes:
        silence_s: for the next frame of a device, its computing included.
        dial_s: from the first device's call until all others have called, where devices need one another: the batches
            of SplitFed v2, which take turns, and the pieces of a chain.
        round_s: how long a token admits.
    """

    silence_s: float = 120.0
    dial_s: float = 120.0
    round_s: float = 86_400.0


@dataclass(frozen=True)
class Job:
    """One device's round.

    Attributes:
        order: as the device has it.
        coder: of the frames between it and here.
        answer: computes the answer to a frame.
        drop: forgets the batch that is under way; called before the next one's turn.
        down_bps: what answers may take of the device's link; None sends as fast as it goes.
        edge: of an edge that stands between, its part; None: the device dials itself. `order`, `coder` and `answer` are
            then of the frames between the edge and here.
    """

    order: WorkOrder
    coder: FrameCoder
    answer: Callable[[Frame], Frame]
    drop: Callable[[], None] = lambda: None
    down_bps: float | None = None
    edge: EdgePart | None = None


@dataclass
class Outcome:
    """What became of a job.

    Attributes:
        lost: why it is not done; empty where it is.
        steps: answered in full.
        cloud_s: seconds in which answers were computed; waiting for a turn is not among them.
        waited_s: seconds frames waited for their turn or for the processor.
        up_bits, down_bits: of frames, without what TLS and HTTP/2 add.
        edge: what an edge handed back.
    """

    lost: str = "it did not dial"
    steps: int = 0
    cloud_s: float = 0.0
    waited_s: float = 0.0
    up_bits: int = 0
    down_bits: int = 0
    edge: WorkResult | None = None
