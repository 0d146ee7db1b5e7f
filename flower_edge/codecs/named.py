"""Codecs by name, for run configs and the command line: `make_codec("stc-1")`. The library itself takes codecs.

A name stands for a composition that has been measured (docs/codecs.md); whoever wants another writes it in Python, or
gives its config as JSON. Nothing here encodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from ..errors import CodecError
from .block import Block
from .codec import Codec, from_config
from .correlated import Correlated
from .eden import Eden
from .error_feedback import ErrorFeedback, stc
from .half import Half
from .identity import Identity
from .low_rank import LowRank
from .random_k import RandomK
from .shared_support import SharedSupport
from .sign import Sign
from .top_k import TopK
from .vector_codec import VectorCodec

__all__ = ["CODECS", "Named", "make_codec"]


@dataclass(frozen=True)
class Named:
    """A codec with a name.

    Attributes:
        says: what it does, in a few words.
        make: makes one, from a seed that only those use which draw.
    """

    says: str
    make: Callable[[int], VectorCodec]


CODECS: Final[Mapping[str, Named]] = {
    "identity": Named("the arrays' own bytes", lambda seed: Identity()),
    "fp16": Named("half precision", lambda seed: Half("fp16")),
    "bf16": Named("half of float32's bits, its whole range", lambda seed: Half("bf16")),
    "int8": Named("8 bits, a scale per block, unbiased", lambda seed: Block(8, seed=seed)),
    "int4": Named("4 bits, a scale per block, unbiased", lambda seed: Block(4, seed=seed)),
    "eden-2": Named("2 bits after a random rotation, unbiased", lambda seed: Eden(2, seed=seed)),
    "eden-1": Named("1 bit after a random rotation, unbiased", lambda seed: Eden(1, seed=seed)),
    "eden-1-half": Named("1 bit for every second number, at random, unbiased", lambda seed: Eden(1, 0.5, seed=seed)),
    "eden-1-quarter": Named("1 bit for every fourth number, at random", lambda seed: Eden(1, 0.25, seed=seed)),
    "correlated": Named("1 bit, errors of nodes cancel in the mean", lambda seed: Correlated(seed=seed)),
    "sign": Named("signs and their mean, with error feedback", lambda seed: ErrorFeedback(Sign())),
    "top-1": Named("the largest 1 %, signs and their mean, nothing remembered", lambda seed: TopK(0.01)),
    "random-10": Named("a tenth at random, unbiased", lambda seed: RandomK(0.1, seed=seed)),
    "stc-5": Named("the largest 5 %, signs and their mean, with error feedback", lambda seed: stc(0.05)),
    "stc-1": Named("the largest 1 %, signs and their mean, with error feedback", lambda seed: stc(0.01)),
    "low-rank-4": Named("PowerSGD of rank 4, with error feedback", lambda seed: ErrorFeedback(LowRank(4, seed=seed))),
    "shared-5": Named(
        "5 % where a lagged leader's were, with error feedback", lambda seed: ErrorFeedback(SharedSupport(0.05))
    ),
}


def make_codec(text: str, *, seed: int = 0) -> Codec:
    """The codec of that name, or of a config written as JSON.

    Raises:
        CodecError: no such name, with the nearest; or a config that is none.

    >>> make_codec("fp16")
    Half(format='fp16')
    >>> make_codec('{"kind": "identity"}')
    Identity()
    """
    if text in CODECS:
        return CODECS[text].make(seed)
    if text.lstrip().startswith("{"):
        try:
            return from_config(json.loads(text))
        except (ValueError, RecursionError) as error:
            if isinstance(error, CodecError):
                raise
            raise CodecError(f"codec {text[:80]!r}: {error}; expected a config as `codec.config()` gives it") from None
    near = get_close_matches(text, CODECS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise CodecError(f"codec {text!r}: expected one of {', '.join(CODECS)}, or a config as JSON{hint}")
