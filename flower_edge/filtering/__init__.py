"""Tests of replies against each other and against held-out data, and what is remembered of nodes. No Flower here.

judging            the promise of a test, and what it says
norm, copies, cosine
                   cheap tests: replies against each other
held_out           the merge with a reply against the merge without it
trial, defaults    tests one after the other, and those that are asked where nothing else is said
track_record       what is remembered of a node
"""

from .copies import Copies
from .cosine import Cosine
from .defaults import default_judges
from .held_out import AtLeastReference, WithAndWithout
from .judging import Evaluate, Judge, Judgement
from .norm import Norm
from .track_record import TrackRecord
from .trial import Trial, try_updates

__all__ = [
    "AtLeastReference",
    "Copies",
    "Cosine",
    "Evaluate",
    "Judge",
    "Judgement",
    "Norm",
    "TrackRecord",
    "Trial",
    "WithAndWithout",
    "default_judges",
    "try_updates",
]
