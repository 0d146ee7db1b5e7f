"""A run that was killed and resumed ends with the uninterrupted run's model, bit for bit, whenever it was killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, Result, Strategy
from toy import flower_strategies, initial_model, same_model, toy_app

from flower_edge.errors import ResumeError
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.strategy_state import STATE, strategy_state
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, Metered, blocks

NODES, ROUNDS, DEADLY_ROUND = 6, 3, 2
CASES = flower_strategies(NODES, fraction=0.5)
PHASES = ["narrow", "outbound", "client", "inbound", "merged", "evaluate", "save", "saved"]


class Killed(BaseException):
    """Not an Exception, so that nothing on the way catches it: as if the process were gone."""


class Deadly(Layer[int]):
    """Ends everything in one phase of one round. Its state counts rounds, so a checkpoint has something to lose."""

    def __init__(self, phase: str | None) -> None:
        self.phase = phase

    def _hit(self, phase: str, round: Round) -> None:
        if self.phase == phase and round.cloud == DEADLY_ROUND:
            raise Killed(phase)

    def init(self) -> int:
        return 0

    def outbound(self, state: int, round: Round, messages: list[Message]) -> tuple[list[Message], int]:
        self._hit("outbound" if round.kind == "train" else "evaluate", round)
        return messages, state

    def inbound(self, state: int, round: Round, replies: list[Message]) -> tuple[list[Message], int]:
        self._hit("inbound", round)
        return replies, state

    def merged(self, state: int, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, int]:
        self._hit("merged", round)
        return after, state + 1

    def metrics(self, state: int) -> dict[str, float]:
        return {"rounds_counted": state}


class DeadlyFlat(Deadly):
    """The same, also while nodes are chosen: around flat strategies only."""

    def narrow(self, state: int, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], int]:
        self._hit("narrow", round)
        return nodes, state


def deadly_app(app: Any, phase: str | None) -> Any:
    """A client that takes everything down in its second message, after it has changed its own memory."""
    if phase != "client":
        return app
    from flwr.clientapp import ClientApp

    outer = ClientApp()

    @outer.train()
    def train(message: Message, context: Context) -> Message:
        reply = app(message, context)
        if int(message.content["config"]["server-round"]) == DEADLY_ROUND:  # type: ignore[arg-type,index,call-overload]
            raise Killed("client")
        return reply  # type: ignore[no-any-return]

    @outer.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return app(message, context)  # type: ignore[no-any-return]

    return outer


class DeadlyFolder:
    """A run folder whose process dies just before, or just after, a checkpoint is written."""

    def __init__(self, run: RunFolder, phase: str | None) -> None:
        self._run, self._phase = run, phase

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def save_checkpoint(self, next_round: int, tree: Any) -> None:
        if self._phase == "save" and next_round == DEADLY_ROUND + 1:
            raise Killed("save")
        self._run.save_checkpoint(next_round, tree)
        if self._phase == "saved" and next_round == DEADLY_ROUND + 1:
            raise Killed("saved")


def federation(
    make: Callable[[], Strategy], app: Any, model: Any, run: Any, phase: str | None, *, resume: bool, seed: int
) -> Result:
    random.seed(seed)
    np.random.seed(seed)
    with LocalGrid(deadly_app(app(), phase), NODES) as grid:
        strategy = Layered(make(), DeadlyFlat(phase), Metered())
        return strategy.start(grid, model(), ROUNDS, run=DeadlyFolder(run, phase), resume=resume)


def killed_and_resumed(name: str, phase: str, tmp_path: Path) -> tuple[Result, Result, RunFolder, RunFolder]:
    make, app, model = CASES[name]
    with RunFolder.create("whole", config={}, seed=5, root=tmp_path) as run:
        whole = federation(make, app, model, run, None, resume=False, seed=5)
        first = run
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=5, root=tmp_path) as run:
        federation(make, app, model, run, phase, resume=False, seed=5)
    with RunFolder.create("resumed", config={}, seed=5, root=tmp_path) as again:
        again.continue_from(RunFolder.open(run.path))
        # Another seed: what comes out must come from the checkpoint, not from a lucky start.
        resumed = federation(make, app, model, again, None, resume=True, seed=999)
    return whole, resumed, first, again


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_and_resumed_fedadam_ends_with_the_same_model(phase: str, tmp_path: Path) -> None:
    whole, resumed, first, again = killed_and_resumed("FedAdam", phase, tmp_path)
    assert same_model(whole.arrays, resumed.arrays)
    assert whole.train_metrics_clientapp == resumed.train_metrics_clientapp
    traffic = [[(row.round, row.values) for row in run.rows("traffic")] for run in (first, again)]
    assert traffic[0] == traffic[1]
    assert len(traffic[0]) == ROUNDS


SAMPLE = ["outbound", "client", "merged"]


@pytest.mark.parametrize("name", sorted(set(CASES) - {"FedAdam"}))
def test_every_flower_strategy_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    phase = SAMPLE[sorted(CASES).index(name) % len(SAMPLE)]
    whole, resumed, *_ = killed_and_resumed(name, phase, tmp_path)
    assert same_model(whole.arrays, resumed.arrays)
    assert whole.evaluate_metrics_clientapp == resumed.evaluate_metrics_clientapp


@pytest.mark.full
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_flower_strategy_killed_in_every_phase_resumes_bit_for_bit(name: str, phase: str, tmp_path: Path) -> None:
    whole, resumed, *_ = killed_and_resumed(name, phase, tmp_path)
    assert same_model(whole.arrays, resumed.arrays)


@pytest.mark.parametrize("phase", ["outbound", "client", "merged", "saved"])
def test_a_hierarchy_resumes_with_the_momentum_of_every_edge(phase: str, tmp_path: Path) -> None:
    def make() -> Strategy:
        def edge(cell: str) -> Strategy:
            return Layered(FedAdam(fraction_train=0.5, min_train_nodes=1, min_available_nodes=1), Metered())

        return Hierarchical(edge=edge, cells=blocks(2), edge_rounds=2)

    def start(run: Any, phase: str | None, resume: bool, seed: int) -> Result:
        random.seed(seed)
        with LocalGrid(deadly_app(toy_app(), phase), NODES) as grid:
            return Layered(make(), Deadly(phase), Metered()).start(
                grid, initial_model(), ROUNDS, run=DeadlyFolder(run, phase), resume=resume
            )

    with RunFolder.create("whole", config={}, seed=5, root=tmp_path) as run:
        whole = start(run, None, False, 5)
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=5, root=tmp_path) as run:
        start(run, phase, False, 5)
    with RunFolder.create("resumed", config={}, seed=5, root=tmp_path) as again:
        again.continue_from(RunFolder.open(run.path))
        resumed = start(again, None, True, 999)
    assert same_model(whole.arrays, resumed.arrays)


PROGRAM = textwrap.dedent(
    """
    import os, random, signal, sys
    sys.path.insert(0, {tests!r})
    from toy import initial_model, toy_app
    from flwr.serverapp.strategy import FedAvgM
    from flower_edge.runtime.local_grid import LocalGrid
    from flower_edge.store.run_folder import RunFolder
    from flower_edge.strategies import Layer, Layered

    class Suicide(Layer):
        def inbound(self, state, round, replies):
            if round.cloud == 2 and {kill}:
                os.kill(os.getpid(), signal.SIGKILL)
            return replies, state

    random.seed({seed})
    run = RunFolder.create("run", config={{}}, seed=1, path={path!r})
    if {earlier!r}:
        run.continue_from(RunFolder.open({earlier!r}))
    with LocalGrid(toy_app(), 6) as grid:
        strategy = Layered(FedAvgM(server_momentum=0.9, fraction_train=0.5), Suicide())
        result = strategy.start(grid, initial_model(), 3, run=run, resume=bool({earlier!r}))
    print(result.arrays["weight"].numpy().tobytes().hex())
    """
)


def test_a_process_killed_for_real_resumes_in_another_process(tmp_path: Path) -> None:
    def execute(folder: str, *, kill: bool, seed: int, earlier: str = "") -> subprocess.CompletedProcess[str]:
        tests = str(Path(__file__).parents[1])
        earlier = str(tmp_path / earlier) if earlier else ""
        code = PROGRAM.format(tests=tests, kill=kill, seed=seed, path=str(tmp_path / folder), earlier=earlier)
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False
        )

    whole = execute("whole", kill=False, seed=5)
    killed = execute("killed", kill=True, seed=5)
    resumed = execute("resumed", kill=False, seed=999, earlier="killed")
    assert killed.returncode == -signal.SIGKILL
    assert RunFolder.open(tmp_path / "killed").status == "interrupted"
    assert whole.returncode == resumed.returncode == 0, resumed.stderr
    assert whole.stdout.splitlines()[-1] == resumed.stdout.splitlines()[-1] != ""


# -- what a checkpoint holds, and what is refused --------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_table_names_every_attribute_of_every_flower_strategy(name: str) -> None:
    strategy = CASES[name][0]()
    functions = {"train_metrics_aggr_fn", "evaluate_metrics_aggr_fn", "selection_rule"}
    elsewhere = {"strategy", "accountant"}
    listed = set(STATE[type(strategy)])
    assert set(vars(strategy)) - functions - elsewhere <= listed
    assert all(hasattr(strategy, attribute) for attribute in listed)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        yield folder


class Unknown(FedAvg):
    """A subclass with state of its own that nobody knows."""


class Known(FedAvg):
    """The same, with a word about it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_a_strategy_with_unknown_state_is_refused_by_name_before_the_first_round(run: RunFolder) -> None:
    with LocalGrid(toy_app(), 3) as grid:
        with pytest.raises(ResumeError, match=r"give Unknown state_dict\(\) and load_state_dict"):
            Layered(Unknown()).start(grid, initial_model(), 1, run=run)
        assert grid.state_dict()["pushed"] == 0
        assert Layered(Known()).start(grid, initial_model(), 1, run=run).arrays


def test_a_strategy_with_unknown_state_runs_without_a_run_folder() -> None:
    with LocalGrid(toy_app(), 3) as grid:
        assert Layered(Unknown()).start(grid, initial_model(), 1).arrays


def test_resume_with_another_strategy_is_refused_by_both_names(run: RunFolder) -> None:
    with LocalGrid(toy_app(), 3) as grid:
        Layered(FedAvg()).start(grid, initial_model(), 1, run=run)
        with pytest.raises(ResumeError, match="made with FedAvg, this run uses FedAdam"):
            Layered(FedAdam()).start(grid, initial_model(), 2, run=run, resume=True)


def test_resume_with_other_layers_is_refused(run: RunFolder) -> None:
    with LocalGrid(toy_app(), 3) as grid:
        Layered(FedAvg(), Metered()).start(grid, initial_model(), 1, run=run)
        with pytest.raises(ResumeError, match=r"\['Metered'\], this run \[\]"):
            Layered(FedAvg()).start(grid, initial_model(), 2, run=run, resume=True)


def test_resume_without_a_checkpoint_is_refused(run: RunFolder) -> None:
    with LocalGrid(toy_app(), 3) as grid, pytest.raises(ResumeError, match="no checkpoint"):
        Layered(FedAvg()).start(grid, initial_model(), 2, run=run, resume=True)


def test_a_privacy_accountant_is_refused_because_it_cannot_be_saved() -> None:
    from flwr.serverapp import PrivacyAccountant

    class Spending(FedAvg):
        accountant = object.__new__(PrivacyAccountant)

    STATE[Spending] = STATE[FedAvg]
    try:
        with pytest.raises(ResumeError, match="privacy accountant"):
            strategy_state(Spending())
    finally:
        del STATE[Spending]


def test_files_of_node_state_travel_with_the_checkpoint(tmp_path: Path) -> None:
    """The node's memory is above the limit, so it lies in files, and a killed round has already overwritten them."""
    from flwr.clientapp import ClientApp

    from flower_edge.runtime.node_state import NodeState

    inner = toy_app()

    def app() -> ClientApp:
        outer = ClientApp()

        @outer.train()
        def train(message: Message, context: Context) -> Message:
            memory = NodeState(context, "momentum", limit_bytes=100)
            saved = memory.load()
            drift = np.zeros(200) if saved is None else saved["drift"]  # type: ignore[index,call-overload]
            reply = inner(message, context)
            moved = reply.content["arrays"]["weight"].numpy() + drift[:6]  # type: ignore[index,union-attr,call-overload,operator]
            memory.save({"drift": drift + 0.25})
            assert memory.where == "file"
            arrays = dict(reply.content["arrays"].items())  # type: ignore[union-attr]
            arrays["weight"] = type(arrays["weight"])(moved.astype(np.float32))
            reply.content["arrays"] = ArrayRecord(arrays)
            return reply

        @outer.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            return inner(message, context)

        return outer

    def start(folder: Any, where: str, phase: str | None, resume: bool, seed: int) -> Result:
        random.seed(seed)
        nodes = [{"partition-id": i, "num-partitions": 3, "state-dir": str(tmp_path / where)} for i in range(3)]
        with LocalGrid(deadly_app(app(), phase), nodes) as grid:
            strategy = Layered(FedAvg(fraction_train=0.67), Deadly(phase))
            return strategy.start(grid, initial_model(), ROUNDS, run=folder, resume=resume)

    with RunFolder.create("whole", config={}, seed=5, root=tmp_path) as first:
        whole = start(first, "state-whole", None, False, 5)
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=5, root=tmp_path) as killed:
        start(killed, "state-killed", "client", False, 5)
    with RunFolder.create("resumed", config={}, seed=5, root=tmp_path) as again:
        again.continue_from(RunFolder.open(killed.path))
        resumed = start(again, "state-killed", None, True, 999)
    assert same_model(whole.arrays, resumed.arrays)
