"""Shared by all tests: quiet Flower, one thread per process."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import flwr.app  # noqa: F401  Flower sets its logger's level when it is imported

logging.getLogger("flwr").setLevel(logging.WARNING)

# Numba looks for the package of this name, and would find the folder of our tests of coverage.
if getattr(importlib.util.find_spec("coverage"), "origin", None) is None:
    sys.modules["coverage"] = None  # type: ignore[assignment]

try:
    from hypothesis import settings
except ImportError:  # the wheel is tested in an environment without it
    pass
else:
    # Machines are slow when they are busy, and CI should fail for a change, not for a draw.
    settings.register_profile("flower-edge", deadline=None, derandomize=bool(os.environ.get("CI")))
    settings.load_profile("flower-edge")


def pytest_collection_finish() -> None:
    """Some of Flower's strategies collect garbage in every round; what was imported need not be looked at again."""
    gc.collect()
    gc.freeze()
