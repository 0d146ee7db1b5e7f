"""Codecs: a model to bytes and back, rebuilt at the other end from plain values. Nothing here sends."""

from __future__ import annotations

from .affine import Affine
from .aggregate import Aggregator
from .block import Block
from .by_layer import ByLayer
from .by_size import BySize
from .codec import Codec, from_config, label, register
from .correlated import Correlated
from .delta import Delta
from .eden import Eden
from .error_feedback import ErrorFeedback, stc
from .half import Half
from .identity import Identity
from .layout import Layout
from .lgc.lgc import Lgc
from .log4 import Log4
from .low_rank import LowRank
from .moment import Moment, Public
from .named import make_codec
from .predicted import Predicted
from .random_k import RandomK
from .rate_controlled import RateControlled
from .shared_support import SharedSupport
from .sign import Sign
from .sparse import Sparse, dense
from .teacher import Teacher, Told
from .top_k import TopK
from .vector_codec import VectorCodec

__all__ = [
    "Affine",
    "Aggregator",
    "Block",
    "ByLayer",
    "BySize",
    "Codec",
    "Correlated",
    "Delta",
    "Eden",
    "ErrorFeedback",
    "Half",
    "Identity",
    "Layout",
    "Lgc",
    "Log4",
    "LowRank",
    "Moment",
    "Predicted",
    "Public",
    "RandomK",
    "RateControlled",
    "SharedSupport",
    "Sign",
    "Sparse",
    "Teacher",
    "Told",
    "TopK",
    "VectorCodec",
    "dense",
    "from_config",
    "label",
    "make_codec",
    "register",
    "stc",
]
