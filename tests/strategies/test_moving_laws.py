"""Whatever moves and fails: each terminal counts in one n_e, each update once; where nobody moves nothing changes."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result
from hypothesis import event, given, settings
from hypothesis import strategies as st
from moving_oracle import Doubling, Log, Merge, merges
from toy import same_model
from travellers import CONFIG, ONE, app, clock, start_model, world

from flower_edge.rounds import Round
from flower_edge.runtime import SteppedGrid
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.selection import Oort, Pipeline
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, Selected
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.joining import Join
from flower_edge.strategies.coverage.mid_round import MidRound, OnExit

CELLS = ("north", "south", "west")
HORIZON_S = 150.0
MAX_STALENESS = 3


@dataclass(frozen=True)
class Case:
    """A world, and how the federation deals with it; everything else follows from the seed.

    Attributes (those that do not speak for themselves):
        fraction: of the terminals there, how many are sampled, by FedAvg where nothing is selected.
        over_select: `Selected` chooses; 0 where it does not.
        real: without a virtual clock: the edge rounds are the time, and who is slow is a matter of chance.
    """

    seed: int
    terminals: int
    on_exit: OnExit
    handover: bool
    enlist: bool
    edge_rounds: int
    stay_s: float
    outside: float
    failing: float
    doubled: float
    fraction: float
    over_select: float = 0.0
    join: Join = "automatic"
    real: bool = False

    def rng(self, what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, what])

    def paths(self) -> list[dict[float, str | None]]:
        rng, paths = self.rng(0), []
        for _ in range(self.terminals):
            path: dict[float, str | None] = {}
            at_s = 0.0
            while at_s < HORIZON_S:
                path[at_s] = None if rng.random() < self.outside else CELLS[int(rng.integers(len(CELLS)))]
                at_s += 0.25 + float(rng.exponential(self.stay_s))
            paths.append(path)
        return paths

    def faults(self) -> list[Fault]:
        rng = self.rng(1)
        chosen = [(node, at) for node in range(self.terminals) for at in range(1, 30) if rng.random() < self.failing]
        # Without a virtual clock whoever drops out is waited for, in real time.
        dropping = 0.0 if self.real else 0.1
        return [Fault(node, "drop-out" if rng.random() < dropping else "raise", at) for node, at in chosen]

    def step_s(self) -> list[float]:
        return [float(s) for s in self.rng(2).choice([0.25, 0.5, 1.0, 2.0], self.terminals)]


CASES = st.builds(
    Case,
    seed=st.integers(0, 10_000),
    terminals=st.integers(2, 7),
    on_exit=st.sampled_from(["stop", "keep", "new-data"]),
    handover=st.booleans(),
    enlist=st.booleans(),
    edge_rounds=st.integers(1, 3),
    stay_s=st.sampled_from([2.0, 5.0, 20.0]),
    outside=st.sampled_from([0.0, 0.3]),
    failing=st.sampled_from([0.0, 0.05]),
    doubled=st.sampled_from([0.0, 0.3]),
    fraction=st.sampled_from([0.5, 1.0]),
)
MORE = st.builds(
    replace,
    CASES,
    over_select=st.sampled_from([0.0, 1.0, 1.5]),
    join=st.sampled_from(["automatic", "ask"]),
    real=st.booleans(),
)


@dataclass
class Merged(Layer[None]):
    """Next to the strategy: which messages an edge's exchange really merged."""

    ids: dict[tuple[str, int, int], list[str]] = field(default_factory=dict)

    def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
        if round.kind == "train":
            good = [reply.metadata.message_id for reply in replies if not reply.has_error()]
            self.ids.setdefault((round.cell, round.cloud, round.edge), []).extend(good)
        return replies, None


@dataclass
class Run:
    """One federation in one world, and what was seen of it."""

    result: Result
    log: Log
    merged: Merged
    coverage: Coverage
    rows: list[Any]
    doubled: int


def run(case: Case, clouds: int, run_folder: RunFolder | None = None) -> Run:
    round_s = 10.0 if case.real else None
    coverage = Coverage(
        world(CELLS, case.paths()), handover=case.handover, join=case.join, ask_again_s=30.0, round_s=round_s
    )
    merged = Merged()
    random.seed(case.seed)

    def edge(cell: str) -> Layered:
        covered = Covered(coverage, max_staleness=MAX_STALENESS)
        if not case.over_select:
            strategy = FedAvg(fraction_train=case.fraction, fraction_evaluate=0.0, **ONE)
            return Layered(strategy, merged, covered)
        pipeline = Pipeline(2, score=Oort(), over_select=case.over_select)
        selected = Selected(pipeline, seed=case.seed)
        return Layered(FedAvg(fraction_evaluate=0.0, **ONE), merged, covered, selected)

    with LocalGrid(asked_app(case), case.terminals, script=case.faults()) as local:
        decide = MidRound(coverage, on_exit=case.on_exit, enlist=case.enlist, replace_slower_than=1.5)
        below = local if case.real else clock(local, case.step_s())
        stepped = SteppedGrid(below, 2, decide, reachable=coverage.reachable, poll_s=0.001)
        doubling = Doubling(stepped, case.doubled, case.seed)
        log = Log(doubling)
        idle_s = 0.001 if case.real else 5.0
        hierarchical = Hierarchical(edge=edge, cells=coverage, edge_rounds=case.edge_rounds, seed=7, idle_s=idle_s)
        result = hierarchical.start(log, start_model(), clouds, 60.0, ConfigRecord(dict(CONFIG)), run=run_folder)
    rows = [] if run_folder is None else list(run_folder.rows())
    return Run(result, log, merged, coverage, rows, doubling.doubled)


def asked_app(case: Case) -> ClientApp:
    """Terminals that say no now and then, and tell their battery."""
    made = app()

    @made.query("available")
    def available(message: Message, context: Context) -> Message:
        now_s, node = message.content.config_records["request"]["now-s"], context.node_config["partition-id"]
        yes = np.random.default_rng([case.seed, 3, int(node), int(float(now_s) * 1000)]).random() < 0.8  # type: ignore[arg-type]
        return Message(RecordDict({"available": ConfigRecord({"available": bool(yes)})}), reply_to=message)

    return made


def checked(case: Case, clouds: int) -> tuple[Run, list[Merge]]:
    with tempfile.TemporaryDirectory() as folder, RunFolder.create("law", config={}, seed=0, root=Path(folder)) as kept:
        done = run(case, clouds, kept)
    expected, merged_in = merges(done.log, clouds, MAX_STALENESS, in_turn=case.real)

    # One reply per terminal, edge round and base version is merged, and it is one that should be.
    by_round = {(e.round.cell, e.round.cloud, e.round.edge): e for e in done.log.exchanges}
    for place, exchange in by_round.items():
        base_of = {reply.message_id: (reply.node, reply.base) for reply in exchange.replies}
        merged = [base_of[message_id] for message_id in done.merged.ids.get(place, [])]
        assert len(set(merged)) == len(merged)
        assert merged == merged_in.get((place[0], exchange.number), [])

    # Every terminal is counted in one n_e, that of its last accepted update, and n_e is the sum of those counts.
    told: dict[int, dict[str, float]] = {cloud: {} for cloud in range(1, clouds + 1)}
    for row in done.rows:
        if row.kind == "train" and row.cell and row.values["num-examples"]:
            told[row.round][row.cell] = row.values["num-examples"]
    for cloud, merge in enumerate(expected, 1):
        assert told[cloud] == merge.examples
        nodes = [node for counted in merge.counted.values() for node in counted]
        assert len(set(nodes)) == len(nodes)

    # And those are the weights the centre really merged with: its model, by hand from the messages.
    for cloud, merge in enumerate(expected, 1):
        sent = [e.w for e in done.log.exchanges if e.round.cloud == cloud + 1 and e.round.edge == 1]
        if cloud == clouds:
            sent = [done.result.arrays["w"].numpy()] if done.result.arrays else []
        if merge.w is not None:
            for w in sent:
                np.testing.assert_allclose(w, merge.w, rtol=1e-9, atol=1e-12)
    return done, expected


@given(CASES)
@settings(max_examples=10)
def test_every_terminal_is_counted_once_and_every_update_merged_once_whatever_moves_and_fails(case: Case) -> None:
    done, expected = checked(case, clouds=3)
    cells = {(reply.node, e.round.cell) for e in done.log.exchanges for reply in e.replies}
    event(f"a terminal trained for several edges: {len(cells) > len({node for node, _ in cells})}")
    event(f"late replies: {any(r.base != e.number for e in done.log.exchanges for r in e.replies)}")
    event(f"replies given twice: {done.doubled > 0}")
    event(f"a round to which nobody contributed: {any(merge.w is None for merge in expected)}")


BUSY = Case(3, 7, "keep", True, True, 3, 5.0, 0.3, 0.05, 0.3, 1.0)


@given(MORE)
@settings(max_examples=15)
def test_so_it_is_with_selection_and_cut_off_with_terminals_that_are_asked_and_without_a_clock(case: Case) -> None:
    done, _ = checked(case, clouds=3)
    event(f"over_select={case.over_select}, join={case.join}, real={case.real}: {bool(done.merged.ids)}")


@pytest.mark.full
@given(MORE)
@settings(max_examples=250)
def test_so_it_is_in_many_more_worlds(case: Case) -> None:
    checked(case, clouds=4)


def test_the_law_above_is_not_empty() -> None:
    """In this world terminals train for several edges in one cloud round, come late, fail, and reply twice."""
    done, _ = checked(BUSY, clouds=3)
    told = {row.values["what"] for row in done.rows if row.kind == "event"}
    assert {
        "handed-over",
        "entered",
        "left",
        "exited",
        "came",
        "late-merged",
        "dropped-duplicate",
    } <= told
    cells: dict[tuple[int, int], set[str]] = {}
    for exchange in done.log.exchanges:
        for reply in exchange.replies:
            cells.setdefault((exchange.round.cloud, reply.node), set()).add(exchange.round.cell)
    assert max(map(len, cells.values())) > 1


@given(CASES)
@settings(max_examples=4)
def test_the_same_world_gives_the_same_run(case: Case) -> None:
    one, two = run(case, 2), run(case, 2)
    assert bool(one.result.arrays) == bool(two.result.arrays)
    assert not one.result.arrays or same_model(one.result.arrays, two.result.arrays)
    assert [e.replies[0].node for e in one.log.exchanges if e.replies] == [
        e.replies[0].node for e in two.log.exchanges if e.replies
    ]


@given(
    seed=st.integers(0, 10_000),
    terminals=st.integers(2, 6),
    edge_rounds=st.integers(1, 3),
    on_exit=st.sampled_from(["stop", "keep", "new-data"]),
    handover=st.booleans(),
    failing=st.sampled_from([0.0, 0.05]),
)
@settings(max_examples=10)
def test_with_every_terminal_in_one_cell_coverage_changes_nothing(
    seed: int, terminals: int, edge_rounds: int, on_exit: OnExit, handover: bool, failing: float
) -> None:
    case = Case(seed, terminals, on_exit, handover, True, edge_rounds, 5.0, 0.0, failing, 0.0, 1.0)
    script = [fault for fault in case.faults() if fault.kind == "raise"]

    def go(covered: bool) -> Result:
        coverage = Coverage(world(["all"], [{0.0: "all"}] * terminals), handover=handover)
        random.seed(seed)

        def edge(cell: str) -> Any:
            strategy = FedAvg(fraction_evaluate=0.0, **ONE)
            return Layered(strategy, Covered(coverage)) if covered else strategy

        cells: Any = coverage if covered else lambda grid, round: {"all": list(grid.get_node_ids())}
        with LocalGrid(app(), terminals, script=script) as local:
            decide = MidRound(coverage, on_exit=on_exit, enlist=True) if covered else None
            grid = SteppedGrid(clock(local, case.step_s()), 2, decide, reachable=coverage.reachable)
            hierarchical = Hierarchical(edge=edge, cells=cells, edge_rounds=edge_rounds, seed=7, idle_s=5.0)
            return hierarchical.start(grid, start_model(), 2, 60.0, ConfigRecord(dict(CONFIG)))

    plain, covered = go(False), go(True)
    assert bool(plain.arrays) == bool(covered.arrays)
    assert not plain.arrays or same_model(plain.arrays, covered.arrays)
