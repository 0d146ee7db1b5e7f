"""The warm node: Flower's SuperNode with an executor beside it that stays, for round trips of tenths of a second."""

from .settings import WarmSettings

__all__ = ["WarmSettings"]
