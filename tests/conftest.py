"""Shared by all tests: quiet Flower, one thread per process."""

from __future__ import annotations

import ast
import gc
import importlib.util
import logging
import os
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

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
    "scenarios/test_fringe_scenario.py",
    "runtime/test_compression_stages.py",
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


#: Markers of tests that go one after the other in one process, while the others of them go on beside it.
ONE_AT_A_TIME = ("ray", "flwr")


@cache
def one_at_a_time(path: Path) -> dict[str, str]:
    """By the name of a test function in a file, the marker whose tests it waits for; told by the text alone."""
    tree = ast.parse(path.read_text("utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    whole = [ast.unparse(node.value) for node in assigned if ast.unparse(node.targets[0]) == "pytestmark"]
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            words = " ".join([*whole, *map(ast.unparse, node.decorator_list)])
            found |= next(({node.name: name} for name in ONE_AT_A_TIME if f"mark.{name}" in words), {})
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`: a file in one process, but for tests that go one at a time, which have their own.

    Groups of xdist 3.8 are not there for this: it writes them into an attribute that pytest 9.2 no longer reads.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneAtATime(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, name = nodeid.partition("::")
            return one_at_a_time(config.rootpath / file).get(name.partition("[")[0], file)

    return OneAtATime(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, else in the order in which they were found; none of the slow ones is lost."""
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))
    # What is one at a time starts first.
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ONE_AT_A_TIME])
    for item in items:
        if item.get_closest_marker("flwr") and not item.get_closest_marker("slow"):
            raise pytest.UsageError(f"{item.nodeid} is marked flwr and not slow, so that it would run twice; mark both")
        marked = any(map(item.get_closest_marker, ONE_AT_A_TIME))
        if marked and item.name.partition("[")[0] not in one_at_a_time(item.path):
            raise pytest.UsageError(f"{item.nodeid} is marked where `make test` does not see it; use a decorator")
    for name in ("slow", "flwr", "alone"):
        for path in {item.path for item in items if item.get_closest_marker(name)}:
            if f"mark.{name}" not in path.read_text("utf-8"):
                # By this `make test` knows the files that it runs again.
                raise pytest.UsageError(f"{path} has tests marked {name}, but 'mark.{name}' is not in its text")


@pytest.fixture(autouse=True)
def draws_are_the_same() -> None:
    """What a test draws does not depend on the tests before it, nor on the day.

    Flower's strategies take nodes in the order of a draw from `random`, even where they take all of them, and so add
    up floats in that order.
    """
    random.seed(0)
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
