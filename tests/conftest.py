"""Shared by all tests: quiet Flower, one thread per process."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import flwr.app  # noqa: E402, F401  Flower sets its logger's level when it is imported

logging.getLogger("flwr").setLevel(logging.WARNING)
