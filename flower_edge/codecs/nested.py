"""What codecs ask of the codecs and numbers they are given. Nothing here encodes."""

from __future__ import annotations

import math

import numpy as np

from ..errors import CodecError
from .vector_codec import VectorCodec

__all__ = ["check_codec", "check_number"]


def check_codec(value: object, option: str) -> None:
    """Refuse what is no codec of vectors.

    Raises:
        CodecError: names the option.
    """
    if not isinstance(value, VectorCodec):
        raise CodecError(
            f"{option} = {repr(value)[:80]}: expected a codec of vectors, such as Half(); "
            "a class is not one yet: write its parentheses"
        )


def check_number(value: object, option: str, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is no number of a range, both ends of which belong to it.

    Raises:
        CodecError: names the option, the value and the range.
    """
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not low <= value <= high:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        ends = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"
        own = f"; write {'int' if whole else 'float'}(...) around it" if isinstance(value, np.generic) else ""
        raise CodecError(f"{option} = {repr(value)[:80]}: expected {kind} {ends}{own}")
