"""Bits of models, and the ratios a `Compressed` layer reports. Nothing here sends."""

from __future__ import annotations

import math

import numpy as np
from flwr.app import ArrayRecord

from flower_edge.codecs.model_update import Form
from flower_edge.wire import model_spec

from .state import CompressedState, Tally

__all__ = ["form_as_told", "form_bits", "plain_bits", "ratios"]


def plain_bits(record: ArrayRecord) -> tuple[int, int]:
    """Bits of a record's numbers as they are, and with its floats as float32. No array is read.

    >>> from flwr.app import Array
    >>> plain_bits(ArrayRecord({"w": Array(np.zeros(3))}))
    (192, 96)
    """
    return form_bits(form_as_told(record))


def form_bits(form: Form) -> tuple[int, int]:
    """The same for a model of that form."""
    own = float32 = 0
    for shape, name in zip(form["shapes"], form["dtypes"], strict=True):
        try:
            dtype = np.dtype(name)
        except TypeError:  # of another package: bfloat16, as a rule
            dtype = np.dtype(np.float16)
        numbers = 8 * math.prod(shape)
        own += numbers * dtype.itemsize
        float32 += numbers * (4 if dtype.kind == "f" else dtype.itemsize)
    return own, float32


def form_as_told(record: ArrayRecord) -> Form:
    """Names, shapes and dtypes as a record declares them."""
    spec = model_spec(record)
    return {
        "names": list(spec),
        "shapes": [list(shape) for shape, _ in spec.values()],
        "dtypes": [dtype for _, dtype in spec.values()],
    }


def ratios(state: CompressedState) -> dict[str, float]:
    """Ratios and counts of this round, and of the whole run under `total_…`; none where nothing was sent."""
    total = state.now + state.before
    return {**_of(state.now, ""), **_of(total, "total_")}


def _of(tally: Tally, prefix: str) -> dict[str, float]:
    found: dict[str, float] = {
        "coded_up_bits": tally.up_bits,
        "coded_down_bits": tally.down_bits,
        "plain_sent": tally.plain_sent,
        "refused_replies": tally.refused,
    }
    both = tally.up_bits + tally.down_bits, tally.up_plain_bits + tally.down_plain_bits
    for name, (bits, plain) in {
        "up_ratio": (tally.up_bits, tally.up_plain_bits),
        "down_ratio": (tally.down_bits, tally.down_plain_bits),
        "round_trip_ratio": both,
    }.items():
        if bits:
            found[name] = plain / bits
    return {prefix + name: value for name, value in found.items()}
