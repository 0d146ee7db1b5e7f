"""The ClientApp side: what runs on edges and terminals. Nothing here samples, merges or knows a strategy by name."""

from .edge import edge_app
from .properties import answer_properties

__all__ = ["answer_properties", "edge_app"]
