"""Shared by all tests: quiet Flower, one thread per process."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import flwr.app  # noqa: F401  Flower sets its logger's level when it is imported
import pytest

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


#: A file is run in one process. The longest come first, or one process would still be at them when the others are done.
LONGEST = (
    "quality/test_pages.py",
    "quality/test_wheel.py",
    "runtime/test_launcher.py",
    "runtime/test_node_state_restart.py",
    "store/test_reward_book_crash.py",
    "benchmarks/test_split_deployment.py",
    "benchmarks/test_pieces_stream_deployment.py",
    "benchmarks/test_benchmark_simulation.py",
    "benchmarks/test_topology_control.py",
    "scenarios/test_gossip_scenario.py",
    "strategies/test_split_peers.py",
    "strategies/test_split_stream.py",
    "strategies/test_resume.py",
    "strategies/test_hierarchical.py",
    "runtime/test_grid_review.py",
    "quality/test_docstrings.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, else in the order in which they were found; none of the slow ones is lost."""
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))
    for item in items:
        if item.get_closest_marker("flwr") and not item.get_closest_marker("slow"):
            raise pytest.UsageError(f"{item.nodeid} is marked flwr and not slow, so that it would run twice; mark both")
    for name in ("slow", "flwr", "alone"):
        for path in {item.path for item in items if item.get_closest_marker(name)}:
            if f"mark.{name}" not in path.read_text("utf-8"):
                # By this `make test` knows the files that it runs again.
                raise pytest.UsageError(f"{path} has tests marked {name}, but 'mark.{name}' is not in its text")


@pytest.fixture(autouse=True)
def torch_draws_the_same() -> None:
    """What a test draws with torch's own generator does not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A benchmark or a command that a test calls quietens loggers for its process; the next test reads them again."""
    loggers = [logging.getLogger(name) for name in ("flwr", "flower_edge")]
    before = [(one.level, one.propagate, one.disabled) for one in loggers]
    yield
    for one, (level, one.propagate, one.disabled) in zip(loggers, before, strict=True):
        one.setLevel(level)


#: Tracked by the garbage collector and not frozen; from here on a collection is noticed (some 50 ms).
MANY_OBJECTS = 150_000


def pytest_collection_finish() -> None:
    """Flower's records collect garbage when they are converted; what was imported need not be looked at each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """As after collection, once the tests of a file have imported much more."""
    if nextitem is not None and nextitem.path != item.path and len(gc.get_objects()) > MANY_OBJECTS:
        gc.collect()
        gc.freeze()
