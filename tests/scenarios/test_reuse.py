"""The five diffs of the README, applied to an app in the shape of Flower's own template: do they work as they stand?

`tests/apps/pristine` is that app, `tests/apps/diffs` are the diffs. Each is applied by git to a copy whose package has
a name of its own, and run for two rounds.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from flower_edge.coverage import ByPosition, RandomWaypoint, Regions
from flower_edge.runtime.gossip_messages import letters_in
from flower_edge.runtime.launching.launcher import LaunchResult, launch
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.store.reward_book import RewardBook
from flower_edge.wire import wire_bits

ROOT = Path(__file__).parents[2]
PRISTINE = ROOT / "tests" / "apps" / "pristine"
DIFFS = ROOT / "tests" / "apps" / "diffs"
#: In the order of the README.
NAMES = ["coverage_selection", "gate_and_rewards", "gradient_encoding", "hierarchy", "gossip"]
CONFIG: dict[str, Any] = {"num-server-rounds": 2, "learning-rate": 0.1, "local-epochs": 1}
NODES = 6
#: Of the model's 650 numbers, as float32.
MODEL_BYTES = 4 * 650


class Watched(WrappedGrid):
    """A Grid that remembers the training messages, and how large their replies were."""

    def __init__(self, inner: LocalGrid) -> None:
        super().__init__(inner)
        self.sent: list[list[Message]] = []
        #: Of each training reply as it came, before a layer put something else in its place.
        self.up_bytes: list[int] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return super().push_messages(self._noted(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._kept(super().pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._kept(super().send_and_receive(self._noted(messages), timeout=timeout))

    def _noted(self, messages: Iterable[Message]) -> list[Message]:
        batch = list(messages)
        train = [message for message in batch if message.metadata.message_type == "train"]
        self.sent += [train] if train else []
        return batch

    def _kept(self, replies: Iterable[Message]) -> list[Message]:
        batch = list(replies)
        self.up_bytes += [wire_bits(reply) // 8 for reply in batch if reply.metadata.message_type == "train"]
        return batch

    @property
    def asked(self) -> list[list[int]]:
        """The partition ids that were asked to train together, by exchange."""
        return [sorted(message.metadata.dst_node_id - 1000 for message in batch) for batch in self.sent]


@dataclass(frozen=True)
class Run:
    """What came of an app: what passed its Grid, and what its log says."""

    grid: Watched
    lines: list[str]

    @property
    def accuracy(self) -> list[float]:
        """Of the centre's evaluations: before the first round and after each."""
        scores = [re.search(r"^(?:Initial global|\t└──> ).*'accuracy': ([0-9.]+)", line) for line in self.lines]
        return [float(score[1]) for score in scores if score]


RunApp = Callable[[str], Run]


def patched(name: str, folder: Path) -> Path:
    """A copy of the pristine app with a diff applied in its package; "nothing" is no diff."""
    app, package = folder / name, f"fe_reused_{name}"
    shutil.copytree(PRISTINE, app, ignore=shutil.ignore_patterns("__pycache__"))
    if name != "nothing":
        # Where a folder above is a repository, git would pass over files that are not in it.
        alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(app)}
        command = ["git", "apply", "--whitespace=nowarn", str(DIFFS / f"{name}.diff")]
        subprocess.run(command, cwd=app / "fe_pristine", check=True, env=alone)
    for path in [*app.rglob("*.py"), app / "pyproject.toml"]:
        path.write_text(
            path.read_text().replace("fe_pristine", package).replace("fe-pristine", package.replace("_", "-"))
        )
    (app / "fe_pristine").rename(app / package)
    return app


@pytest.fixture
def run_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[RunApp]:
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> Run:
        app = patched(name, tmp_path)
        monkeypatch.syspath_prepend(str(app))
        client = importlib.import_module(f"fe_reused_{name}.client_app").app
        server = importlib.import_module(f"fe_reused_{name}.server_app").app
        random.seed(1)
        caplog.clear()
        with LocalGrid(client, NODES, run_config=CONFIG) as local, caplog.at_level(logging.INFO, logger="flwr"):
            grid = Watched(local)
            server(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=CONFIG))
        return Run(grid, [record.getMessage() for record in caplog.records])

    yield run
    for name in [name for name in sys.modules if name.startswith("fe_reused_")]:
        del sys.modules[name]


def test_the_readme_shows_these_diffs_and_no_others() -> None:
    shown = re.findall(r"```diff\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert shown == [(DIFFS / f"{name}.diff").read_text() for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_adds_no_more_than_twelve_lines(name: str) -> None:
    lines = (DIFFS / f"{name}.diff").read_text().splitlines()
    assert sum(line.startswith("+") and not line.startswith("+++") for line in lines) <= 12
    assert all(len(line) <= 120 for line in lines)


def test_the_app_as_its_author_wrote_it_asks_everybody_and_sends_whole_models(run_app: RunApp) -> None:
    run = run_app("nothing")
    assert run.grid.asked == [list(range(NODES))] * 2
    assert min(run.grid.up_bytes) > MODEL_BYTES
    assert run.accuracy[0] < 0.2
    assert run.accuracy[-1] > 0.85


def test_coverage_and_selection_ask_three_of_those_in_reach(run_app: RunApp) -> None:
    run = run_app("coverage_selection")
    assert [len(asked) for asked in run.grid.asked] == [3, 3]
    people = RandomWaypoint(NODES, (500, 500), speed_mps=(1, 5), pause_s=(0, 10), seed=1)
    located = ByPosition(people, Regions(["edge"], [[250, 250]], radius_m=[240]))
    for asked, time_s in zip(run.grid.asked, (0.0, 30.0), strict=True):
        inside = {node for node, cell in enumerate(located.where(time_s)) if cell == 0}
        assert set(asked) <= inside < set(range(NODES))
    assert len(run.accuracy) == 3
    assert run.accuracy[-1] > 0.6


def test_gate_and_rewards_book_what_every_round_has_paid(run_app: RunApp, tmp_path: Path) -> None:
    run = run_app("gate_and_rewards")
    with RewardBook(tmp_path / "rewards.sqlite") as book:
        balances = book.balances()
        assert book.verify().ok
    assert sorted(balances) == [str(node) for node in range(NODES)]
    assert sum(balances.values()) == 2_000_000
    assert run.accuracy[-1] > 0.85


def test_gradient_encoding_sends_a_fraction_of_the_bytes(run_app: RunApp) -> None:
    run = run_app("gradient_encoding")
    assert max(run.grid.up_bytes) < MODEL_BYTES / 2  # Flower's own bytes around a code are most of it
    ratios = [float(line.split("up_ratio ")[1].split(",")[0]) for line in run.lines if " up_ratio " in line]
    assert len(ratios) == 2
    assert min(ratios) > 10
    assert run.accuracy[-1] > 0.5


def test_a_hierarchy_has_three_cells_and_two_edge_rounds_in_each_round(run_app: RunApp) -> None:
    run = run_app("hierarchy")
    assert run.grid.asked == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5], [4, 5]] * 2
    assert run.accuracy[-1] > 0.85


def test_gossip_mixes_packets_of_neighbours(run_app: RunApp) -> None:
    run = run_app("gossip")
    first, second = run.grid.sent
    assert not any(letters_in(message.content, sender="the server") for message in first)
    assert sum(len(letters_in(message.content, sender="the server")) for message in second) > NODES
    assert sum("'links': " in line for line in run.lines) >= 2
    assert run.accuracy[-1] > 0.85


def ran(name: str, folder: Path) -> tuple[LaunchResult, str]:
    """Through Flower's own command."""
    lines: list[str] = []
    result = launch(
        patched(name, folder), num_supernodes=NODES, runs=folder / "runs", on_line=lines.append, timeout_s=300
    )
    log = "\n".join(lines)
    assert result.status == "completed", log[-3000:]
    return result, log


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_the_hierarchy_runs_through_flwr_run(tmp_path: Path) -> None:
    _, log = ran("hierarchy", tmp_path)
    assert log.count("configure_train: Sampled 2 nodes (out of 2)") == 12


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("coverage_selection", "configure_train: Sampled 3 nodes (out of 3)"),
        ("gate_and_rewards", "paid_micro"),
        ("gradient_encoding", "up_ratio"),
        ("gossip", "'links'"),
    ],
)
def test_every_diff_runs_through_flwr_run(name: str, said: str, tmp_path: Path) -> None:
    result, log = ran(name, tmp_path)
    assert log.count(said) >= 2
    if name == "gate_and_rewards":
        assert result.run_folder is not None
        with RewardBook(result.run_folder / "files" / "rewards.sqlite") as book:
            assert sum(book.balances().values()) == 2_000_000
