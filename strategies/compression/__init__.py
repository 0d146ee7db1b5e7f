"""Codes instead of models between a strategy and its nodes. The other half is `flower_edge.clients.codec_mod`."""

from .compressed import Compressed
from .state import CompressedState

__all__ = ["Compressed", "CompressedState"]
