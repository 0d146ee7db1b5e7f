"""`ErrorFeedback`: what a codec left out is not lost but added to the next vector. Only the sender remembers.

    sent = C(v + m)          m <- v + m - sent

With momentum the sender keeps the optimiser's velocity as well, so that what waits is not stale when it is sent:

    u <- momentum u + v      sent = C(m + u)      m <- m + u - sent      u <- 0 where something was sent

Sources: Seide et al., "1-bit stochastic gradient descent", Interspeech 2014; Karimireddy et al., "Error feedback fixes
SignSGD", ICML 2019; for the momentum Lin et al., "Deep gradient compression", ICLR 2018 (momentum correction and factor
masking; there m is zeroed where something was sent, here it keeps what the values' coding left out, which is the same
where values are exact). `stc` is Sattler et al., "Robust and communication-efficient federated learning", TNNLS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .layout import Floats, Layout
from .moment import Moment
from .nested import check_codec, check_number
from .sign import Sign
from .sparse import Sparse, Update
from .teacher import Teacher
from .top_k import TopK
from .vector_codec import State, VectorCodec

__all__ = ["ErrorFeedback", "stc"]


@dataclass(frozen=True)
class ErrorFeedback(VectorCodec):
    """Wraps a codec that leaves something out.

    Over a contractive codec the memory stays bounded, ||m|| <= sqrt(1 - delta) / (1 - sqrt(1 - delta)) max ||v||. Over
    one whose error can exceed the vector (an unbiased random-k) it grows without end: such codecs need no memory.

    Attributes:
        inner: the codec.
        momentum: of the sender's velocity, 0 is none. Where the optimiser has its own, leave it 0.
        reset_after: so many rounds missed in a row empty the memory; `None` never does. What was left out of a model
            that is long gone points nowhere.
    """

    kind: ClassVar[str] = "error_feedback"

    inner: VectorCodec
    momentum: float = 0.0
    reset_after: int | None = None

    def __post_init__(self) -> None:
        check_codec(self.inner, "inner")
        check_number(self.momentum, "momentum", 0.0, 0.9999)
        if self.reset_after is not None:
            check_number(self.reset_after, "reset_after", 1, 2**31, whole=True)

    def teacher(self) -> Teacher | None:
        """That of the inner codec."""
        return self.inner.teacher()

    def start(self, layout: Layout) -> State:
        """`memory` [params] and `velocity` [params], empty until there is something; `round` of the last payload."""
        nothing = np.empty(0, np.float32)
        return {"inner": self.inner.start(layout), "memory": nothing, "velocity": nothing, "round": -1}

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """The inner codec's bytes of what was left out until now and this vector."""
        fresh = self.reset_after is not None and at.round - state["round"] > self.reset_after
        memory = state["memory"] if state["memory"].size and not fresh else None
        velocity = state["velocity"] if state["velocity"].size and not fresh else None
        u = v
        if self.momentum:
            u = v.copy() if velocity is None else np.float32(self.momentum) * velocity
            if velocity is not None:
                u += v
        data, left, inner = self.inner.feed(u, memory, layout, state["inner"], at)
        if self.momentum:
            u[left != (u if memory is None else u + memory)] = 0
        kept = {"memory": left, "velocity": u if self.momentum else state["velocity"][:0]}
        return data, {"inner": inner, **kept, "round": at.round}

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """As the inner codec; the receiver needs no memory."""
        update, inner = self.inner.unpack(data, layout, state["inner"], at)
        return update, {**state, "inner": inner}

    def give_back(self, state: State, data: bytes, layout: Layout, at: Moment) -> State:
        """The sender's state after a payload was lost: what that carried is still to be sent.

        Args:
            state: of the sender, now.
            data: the payload that `pack` made and that did not arrive.
            at: the moment at which it was made.

        Raises:
            CodecError: it is no payload of this codec.
        """
        update, _ = self.inner.unpack(memoryview(data), layout, state["inner"], at)
        memory = state["memory"].copy() if state["memory"].size else np.zeros(layout.size, np.float32)
        if isinstance(update, Sparse):
            memory[update.indices] += update.values
        else:
            memory += update
        return {**state, "memory": memory}


def stc(fraction: float = 0.01) -> ErrorFeedback:
    """Sparse ternary compression: the largest `fraction` of the numbers as signs and one magnitude, the rest later.

    >>> stc(0.05).inner.fraction
    0.05
    """
    return ErrorFeedback(TopK(fraction, values=Sign()))
