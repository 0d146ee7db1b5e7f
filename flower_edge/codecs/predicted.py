"""`Predicted`: only the difference from what everybody expects is coded. The prediction is the last public aggregate.

    sent = C(v - decay a)        decoded = decay a + C(v - decay a)        a: newest aggregate that both ends have

It pays while updates of successive rounds point the same way. Where they do not, v itself is coded: each payload says
which it is. The nodes keep nothing.

    payload: 1 byte, whether there is a prediction; the inner codec's bytes

Source: Ortega, Huang, Li, Jafarkhani, "Communication compression for distributed learning without control variates"
(CAFe), arXiv 2412.04538. There decay = 1 and the aggregate is always subtracted; here where that leaves less to send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import CodecError
from .energy import energy
from .layout import Floats, Layout
from .moment import Moment
from .nested import check_codec, check_number
from .sparse import Sparse, Update
from .teacher import Teacher
from .vector_codec import State, VectorCodec

__all__ = ["Predicted"]


@dataclass(frozen=True)
class Predicted(VectorCodec):
    """Wraps a codec; without an aggregate (the first round, after missed ones) it is that codec and a byte.

    Attributes:
        inner: codes the difference.
        decay: how much of the aggregate is expected again, above 0 and at most 1.
    """

    kind: ClassVar[str] = "predicted"

    inner: VectorCodec
    decay: float = 1.0

    def __post_init__(self) -> None:
        check_codec(self.inner, "inner")
        check_number(self.decay, "decay", 1e-6, 1.0)

    @property
    def unbiased(self) -> bool:
        """As the inner codec."""
        return self.inner.unbiased

    def teacher(self) -> Teacher | None:
        """That of the inner codec."""
        return self.inner.teacher()

    @property
    def public_rounds(self) -> int:
        """The newest aggregate, and what the codec inside looks at."""
        return max(1, self.inner.public_rounds)

    def start(self, layout: Layout) -> State:
        """The inner codec's."""
        return self.inner.start(layout)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """The inner codec's bytes of what was not expected."""
        expected = self._expected(layout, at)
        if expected is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name below
                surprise = v - expected
                pays = energy(surprise) < energy(v)
            if pays:
                data, after = self.inner.pack(surprise, layout, state, at)
                return b"\1" + data, after
        data, after = self.inner.pack(v, layout, state, at)
        return b"\0" + data, after

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """What was expected and what was not; dense where there is a prediction."""
        if not len(data) or data[0] > 1:
            raise CodecError(f"first byte {bytes(data[:1])!r}: expected 0 or 1; the payload was altered")
        update, after = self.inner.unpack(data[1:], layout, state, at)
        if not data[0]:
            return update, after
        expected = self._expected(layout, at)
        if expected is None:
            raise CodecError(
                "the payload is a difference from an aggregate that this side has not; "
                "let its sender know that, so that it sends without"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(update, Sparse):
                expected[update.indices] += update.values
            else:
                expected += update
        if not np.isfinite(expected).all():
            raise CodecError("a value that is not finite; the payload was altered")
        return expected, after

    def _expected(self, layout: Layout, at: Moment) -> Floats | None:
        """decay a, a copy."""
        if not at.public.aggregates:
            return None
        aggregate = at.public.aggregates[0]
        if aggregate.shape != (layout.size,):
            raise CodecError(f"an aggregate of shape {aggregate.shape}, expected ({layout.size},), that of the vector")
        return np.float32(self.decay) * aggregate
