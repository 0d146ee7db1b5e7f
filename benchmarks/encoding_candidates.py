"""The codecs that are tried, declared before anything is measured, and the rule by which one is chosen. No measuring.

The rule: of the candidates whose accuracy is at most half a point under that of the dense run of the same seeds, mean
over the seeds, the one with the largest ratio. Without encoding the ratio is 1, so there always is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import Codec
from flower_edge.codecs.eden import Eden
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.log4 import Log4
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec

from .harness.figures import mean_and_error

__all__ = [
    "CHOSEN_ROUNDTRIP",
    "CHOSEN_STATEFUL",
    "CHOSEN_STATELESS",
    "DENSE",
    "HALF_POINT",
    "OWN",
    "ROUNDTRIP",
    "SHARED",
    "STATEFUL",
    "STATELESS",
    "Choice",
    "Ways",
    "chosen",
]

#: Points of accuracy that may be lost.
HALF_POINT: Final = 0.5


@dataclass(frozen=True)
class Ways:
    """Codecs of both directions.

    Attributes:
        up: of updates.
        down: of the change of the model, `None` for a plain one.
        first: of the first model.
    """

    up: VectorCodec
    down: Codec | None = None
    first: Codec | None = None


#: In the short form only the chosen one of each list is run.
STATELESS: Final[Mapping[str, Ways]] = {
    "int8": Ways(Block(bits=8)),
    "int4": Ways(Block(bits=4)),
    "EDEN 1 bit": Ways(Eden(bits=1)),
    "EDEN 1 bit of a half": Ways(Eden(bits=1, fraction=0.5)),
    "EDEN 1 bit of 0.4": Ways(Eden(bits=1, fraction=0.4)),
    "EDEN 1 bit of a quarter": Ways(Eden(bits=1, fraction=0.25)),
    "EDEN 1 bit of a tenth": Ways(Eden(bits=1, fraction=0.1)),
    "top 1 %, no memory": Ways(TopK(0.01)),
}
CHOSEN_STATELESS: Final = "EDEN 1 bit of a half"

STATEFUL: Final[Mapping[str, Ways]] = {
    f"STC {100 * fraction:g} %": Ways(stc(fraction)) for fraction in (0.03, 0.02, 0.015, 0.01, 0.007)
} | {
    "shared support 5 %": Ways(ErrorFeedback(SharedSupport(0.05, innovation=0.002, fallback=TopK(0.01)))),
}
CHOSEN_STATEFUL: Final = {"iid": "STC 1 %", "dirichlet": "STC 2 %"}

#: Signs with one magnitude hurt on the way down: what nodes hold jumps about what they should.
ROUNDTRIP: Final[Mapping[str, Ways]] = {
    f"STC {100 * up:g} %, top {100 * down:g} % by {name} down": Ways(stc(up), TopK(down, values), Half())
    for up, down, name, values in (
        (0.02, 0.05, "4 bits", Log4()),
        (0.02, 0.03, "4 bits", Log4()),
        (0.01, 0.03, "4 bits", Log4()),
        (0.02, 0.05, "signs", Sign()),
    )
}
CHOSEN_ROUNDTRIP: Final = "STC 2 %, top 5 % by 4 bits down"

#: For the leader that is missing every round, beside the same without a leader.
SHARED: Final = ErrorFeedback(SharedSupport(0.05, innovation=0.002, fallback=TopK(0.01)))
OWN: Final = stc(0.01)
DENSE: Final = Ways(Identity())


@dataclass(frozen=True)
class Choice:
    """One candidate's figures.

    Attributes:
        name: of the candidate.
        ratio: float32 over what travelled, mean over seeds.
        loss, loss_error: points of accuracy under the dense run, and its standard error.
    """

    name: str
    ratio: float
    loss: float
    loss_error: float

    @classmethod
    def of(cls, name: str, ratios: Sequence[float], dense: Sequence[float], coded: Sequence[float]) -> Choice:
        """From one value per seed.

        >>> Choice.of("x", [60.0, 62.0], dense=[95.0, 96.0], coded=[94.5, 96.0])
        Choice(name='x', ratio=61.0, loss=0.25, loss_error=0.25)
        """
        return cls(name, float(np.mean(ratios)), *mean_and_error(np.subtract(dense, coded)))


def chosen(choices: Sequence[Choice], most: float = HALF_POINT) -> Choice:
    """By the rule.

    >>> chosen([Choice("a", 60.0, 0.25, 0.1), Choice("b", 90.0, 0.75, 0.1)]).name
    'a'
    >>> chosen([Choice("b", 90.0, 0.75, 0.1)])
    Choice(name='none', ratio=1.0, loss=0.0, loss_error=0.0)
    """
    fit = [choice for choice in choices if choice.loss <= most]
    return max(fit, key=lambda choice: choice.ratio, default=Choice("none", 1.0, 0.0, 0.0))
