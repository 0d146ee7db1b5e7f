"""Codecs measured on arrays, one message each: bytes, error, seconds; and which is soonest through a link.

    pays up to   B with 1/encode + 1/decode = (1 - 1/R) / B   in bits of the model a second

Nothing here prints or reads files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codecs.codec import Codec
from ..codecs.delta import kinds_in
from ..codecs.kernels import Path, available, using
from ..codecs.moment import Moment
from ..codecs.vector_codec import VectorCodec
from ..errors import CodecError
from ..store.tree import tree_to_bytes
from .codec_subjects import Arrays, Subject

__all__ = ["Pace", "Trial", "breaks_even_bps", "measure", "remembers", "round_s", "soonest"]


@dataclass(frozen=True)
class Pace:
    """How fast a codec is on one way of computing.

    Attributes:
        encode_s, decode_s: the fastest of a few calls.
    """

    encode_s: float
    decode_s: float


@dataclass(frozen=True)
class Trial:
    """A codec on a subject.

    Attributes:
        name: the codec's.
        payload_bytes: of one message.
        ratio: bytes as they are over those.
        error: squared error over squared size, of the first message. NaN where everything is zero.
        remembers: whether what a message leaves out comes with later ones.
        unbiased: whether it is right on average over seeds.
        paces: by `reference` (NumPy) and `fast` (compiled), what there is.
        trouble: why it could not be measured; empty where it was.
        shared: whether it lives on what a server publishes, of which there is nothing here.
    """

    name: str
    payload_bytes: int = 0
    ratio: float = 0.0
    error: float = float("nan")
    remembers: bool = False
    unbiased: bool = False
    paces: dict[str, Pace] | None = None
    trouble: str = ""
    shared: bool = False

    @property
    def pace(self) -> Pace:
        """The faster of what there is."""
        return min((self.paces or {}).values(), key=lambda pace: pace.encode_s + pace.decode_s)


def remembers(codec: Codec) -> bool:
    """Whether what a message leaves out comes with later ones."""
    return bool({"error_feedback", "delta"} & set(kinds_in(codec.config())))


def lives_on_shared(codec: Codec) -> bool:
    """Whether it is at its best only where a server publishes something for it."""
    return isinstance(codec, VectorCodec) and codec.teacher() is not None


def keeps_state(codec: Codec, arrays: Arrays) -> bool:
    """Whether anything of one message is kept for the next."""
    before = codec.init(arrays)
    _, after = codec.encode(arrays, before, Moment(1, 0))
    return tree_to_bytes(before) != tree_to_bytes(after)


def measure(name: str, codec: Codec, on: Subject, *, within_s: float = 2.0, paths: Sequence[Path] = ()) -> Trial:
    """A codec on a subject, one after the other on each way of computing there is.

    Args:
        within_s: about how long encoding, and decoding, is repeated.
        paths: `reference`, `fast`; nothing for all that run here.
    """
    ways: Sequence[Path] = paths or (("reference", "fast") if available() else ("reference",))
    at, payload = Moment(1, 0), b""
    paces: dict[str, Pace] = {}
    try:
        start = codec.init(on.arrays)
        for way in ways:
            with using(way):
                payload, _ = codec.encode(on.arrays, start, at)  # compiles, where there is something to compile
                decoded, _ = codec.decode(payload, start, at)
                encode_s = _fastest(lambda: codec.encode(on.arrays, start, at), within_s)
                told = payload
                decode_s = _fastest(lambda told=told: codec.decode(told, start, at), within_s)  # type: ignore[misc]
            paces[way] = Pace(encode_s, decode_s)
    except CodecError as error:
        return Trial(name, trouble=str(error))
    return Trial(
        name,
        len(payload),
        on.bytes / max(len(payload), 1),
        _error(on.arrays, decoded),
        remembers(codec),
        bool(getattr(codec, "unbiased", False)),
        paces,
        shared=lives_on_shared(codec),
    )


def _fastest(call: Callable[[], Any], within_s: float) -> float:
    least_s, begun_s = float("inf"), time.perf_counter()
    for _ in range(20):
        call_s = time.perf_counter()
        call()
        now_s = time.perf_counter()
        least_s = min(least_s, now_s - call_s)
        if now_s - begun_s > within_s:
            break
    return least_s


def _error(arrays: Arrays, decoded: Arrays) -> float:
    left = size = 0.0
    for name, array in arrays.items():
        if array.dtype.kind == "f" and array.size:
            x = array.astype(np.float64).reshape(-1)
            d = decoded[name].astype(np.float64).reshape(-1) - x
            left, size = left + float(d @ d), size + float(x @ x)
    return left / size if size else float("nan")


def round_s(trial: Trial, link_bps: float) -> float:
    """Seconds from a model at the sender to one at the receiver: encode, transfer, decode."""
    return trial.pace.encode_s + 8 * trial.payload_bytes / link_bps + trial.pace.decode_s


def breaks_even_bps(trial: Trial, on: Subject) -> float:
    """Up to which link it is sooner there than the arrays as they are; 0 where it never is."""
    saved_bits = 8 * (on.bytes - trial.payload_bytes)
    busy_s = trial.pace.encode_s + trial.pace.decode_s
    return max(0.0, saved_bits / busy_s) if busy_s > 0 else float("inf")


def soonest(trials: Sequence[Trial], link_bps: float, most_error: float, *, memory: bool) -> list[Trial]:
    """Those that may be taken, the soonest first.

    Args:
        most_error: of one message, at most.
        memory: take codecs that remember what they left out whatever the error of one message.
    """
    fit = [
        trial
        for trial in trials
        if not trial.trouble and ((memory and trial.remembers) or not trial.error > most_error)
    ]
    return sorted(fit, key=lambda trial: round_s(trial, link_bps))
