"""What `flower-edge --version` prints: the versions a report of a problem needs. Imports none of what it names."""

from __future__ import annotations

import platform
from importlib import metadata

from .. import __version__

__all__ = ["line"]


def line() -> str:
    """One line: flower-edge, the Flower beside it, Python."""
    try:
        flower = metadata.version("flwr")
    except metadata.PackageNotFoundError:
        flower = "not installed"
    return f"flower-edge {__version__} (flwr {flower}, Python {platform.python_version()})"
