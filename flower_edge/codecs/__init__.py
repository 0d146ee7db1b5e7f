"""Codecs: a model to bytes and back, rebuilt at the other end from plain values. Nothing here sends."""

from __future__ import annotations

from .codec import Codec, from_config, label
from .identity import Identity

__all__ = [
    "Codec",
    "Identity",
    "from_config",
    "label",
]
