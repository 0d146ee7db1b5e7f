"""The gate of a learned coder: it may code only while it beats the best scalar coder at equal bytes, and pays its way.

    open  <=>  mean error of the learned coder < margin * mean error of the best scalar coder    over the last rounds
               and  bytes saved per message * pay_back_rounds >= bytes of the codebook           when it opens

Errors are normalised squared ones, ||v - decoded||^2 / ||v||^2, on nodes the coder was not trained on. Nothing here
trains or codes for the wire: a decision from measurements, and what it was taken on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...errors import CodecError
from ..eden import Eden
from ..layout import Floats, Layout
from ..log4 import Log4
from ..moment import Moment
from ..sign import Sign
from ..sparse import dense
from ..vector_codec import VectorCodec

__all__ = ["SCALARS", "Gate", "Measured", "at_equal_bytes", "compared", "nmse"]

State = dict[str, Any]

#: What a learned coder has to beat.
SCALARS: Final[Mapping[str, VectorCodec]] = {
    "sign+mean": Sign(),
    "log-q4": Log4(),
    "eden-1": Eden(1),
    "eden-2": Eden(2),
    "eden-4": Eden(4),
}
#: Bytes per value where no scalar coder reaches the learned one's error: half precision.
_PLAIN = 2


def nmse(v: Floats, decoded: Floats) -> float:
    """||v - decoded||^2 / ||v||^2; zero for a zero vector.

    >>> nmse(np.array([3, 4], np.float32), np.array([3, 0], np.float32))
    0.64
    """
    whole = float(np.square(v, dtype=np.float64).sum())
    return float(np.square(v - decoded, dtype=np.float64).sum()) / whole if whole else 0.0


def at_equal_bytes(codec: VectorCodec, v: Floats, budget_bytes: float) -> float:
    """Error of a coder that may spend so many bytes: on the whole vector, or as large a share as they suffice for.

    A share f of the places at error e, and nothing of the others, is an error of 1 - f + f e.
    """
    return _shared(budget_bytes, *_error(codec, v))


def _shared(budget_bytes: float, error: float, spent: int) -> float:
    share = min(1.0, budget_bytes / spent) if spent else 1.0
    return 1.0 - share + share * error


def _error(codec: VectorCodec, v: Floats) -> tuple[float, int]:
    layout, at = Layout.flat(v.size), Moment()
    data, _ = codec.pack(v, layout, codec.start(layout), at)
    decoded, _ = codec.unpack(memoryview(data), layout, codec.start(layout), at)
    return nmse(v, dense(decoded)), len(data)


@dataclass(frozen=True)
class Measured:
    """One held-out vector, coded by the learned coder and by the best scalar one.

    Attributes:
        lgc_nmse: error of the learned coder.
        scalar_nmse: error of the best scalar coder at the same bytes.
        lgc_bytes: of the learned coder.
        saved_bytes: how many more a scalar coder needs for an error as small; 0 where it needs no more.
    """

    lgc_nmse: float
    scalar_nmse: float
    lgc_bytes: float
    saved_bytes: float


def compared(v: Floats, decoded: Floats, lgc_bytes: int) -> Measured:
    """A vector, what the learned coder made of it, and its bytes, beside every scalar coder."""
    error = nmse(v, decoded)
    tried = [_error(codec, v) for codec in SCALARS.values()]
    best = min(_shared(lgc_bytes, *one) for one in tried)
    # What a share of the places would cost: an error of 1 is had for nothing.
    enough = [max(0.0, 1 - error) / (1 - other) * spent for other, spent in tried if other <= error and other < 1]
    return Measured(error, best, float(lgc_bytes), max(0.0, min([*enough, _PLAIN * v.size]) - lgc_bytes))


@dataclass(frozen=True)
class Gate:
    """Decides from what was measured in the last rounds.

    Attributes:
        margin: how much better the learned coder has to be.
        window: rounds that count; only those in which something was measured.
        pay_back_rounds: rounds within which a message's saved bytes have to make up for the codebook that a node has
            to be sent; `None`: the codebook is not counted. One that is out already has been paid.

    >>> gate = Gate(pay_back_rounds=None)
    >>> better, worse = Measured(0.1, 0.2, 10, 5), Measured(0.2, 0.2, 10, 0)
    >>> state = gate.see(gate.init(), [better])
    >>> gate.decide(state, codebook_bytes=100, out=False)  # one round is not yet two
    False
    >>> gate.decide(gate.see(state, [better]), codebook_bytes=100, out=False)
    True
    >>> gate.decide(gate.see(state, [worse]), codebook_bytes=100, out=True)
    True
    >>> gate.decide(gate.see(gate.see(state, [worse]), [worse]), codebook_bytes=100, out=True)
    False
    """

    margin: float = 0.9
    window: int = 2
    pay_back_rounds: int | None = 50

    def __post_init__(self) -> None:
        if not (0.0 < self.margin <= 1.0 and self.window >= 1):
            raise CodecError(f"margin {self.margin} and window {self.window}: expected (0, 1], and 1 or more rounds")
        if self.pay_back_rounds is not None and self.pay_back_rounds < 1:
            raise CodecError(f"pay_back_rounds = {self.pay_back_rounds}: expected 1 or more, or None")

    def init(self) -> State:
        """Nothing measured yet."""
        return {"rounds": []}

    def see(self, state: State, measured: Iterable[Measured]) -> State:
        """What was measured in one round; nothing at all is allowed, and counts as no round."""
        each = [[m.lgc_nmse, m.scalar_nmse, m.lgc_bytes, m.saved_bytes] for m in measured]
        if not each:
            return state
        mean = [float(value) for value in np.mean(each, axis=0)]
        return {"rounds": [*state["rounds"], mean][-self.window :]}

    def decide(self, state: State, codebook_bytes: int, *, out: bool) -> bool:
        """Whether the learned coder may code. `out`: the nodes have its codebook already."""
        rounds = state["rounds"]
        if len(rounds) < self.window:
            return False
        learned, scalar, _, saved = np.mean(rounds, axis=0)
        pays = out or self.pay_back_rounds is None or saved * self.pay_back_rounds >= codebook_bytes
        return bool(learned < self.margin * scalar and pays)

    def metrics(self, state: State) -> dict[str, float]:
        """Means over the window: `lgc_nmse`, `scalar_nmse`, `lgc_bytes`, `lgc_saved_bytes`; empty before any."""
        names = ("lgc_nmse", "scalar_nmse", "lgc_bytes", "lgc_saved_bytes")
        if not state["rounds"]:
            return {}
        return dict(zip(names, map(float, np.mean(state["rounds"], axis=0)), strict=True))
