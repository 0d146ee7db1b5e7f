"""What a run must survive on LocalGrid and GridProxy: a kill, a client that exits or fails, threads, silence."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg
from local_grid_apps import ask, counting_app, numbers, reply_with

from flower_edge.clients import answer_properties
from flower_edge.errors import ConfigError, ResumeError
from flower_edge.runtime import error_codes
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.in_flight import REMEMBERED
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.wrapped_grid import WrappedGrid, grid_state, load_grid_state
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Layered
from flower_edge.wire import arrays_of, record_of

FIRST = LocalGrid.FIRST_NODE_ID
POOLS = ("sequential", "threads", "processes")
#: Far more than anything here takes; a grid that hangs gives no replies and the test fails.
PATIENCE_S = 60.0


def ask_patiently(grid: LocalGrid) -> list[Message]:
    messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    return list(grid.send_and_receive(messages, timeout=PATIENCE_S))


def codes(replies: Iterable[Message]) -> list[int | None]:
    return [reply.error.code if reply.has_error() else None for reply in replies]


# -- a run that was killed and goes on with files of NodeState -------------------------------------------------------


class PowerCut(Exception):
    pass


def remembering_app(durable: bool) -> ClientApp:
    """Adds to the model how often it was called, so that a wrong memory is a wrong model."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        memory = NodeState(context, "calls", durable=durable)
        calls = memory.load() or 0
        assert isinstance(calls, int)
        memory.save(calls + 1)
        w = arrays_of(message.content.array_records["arrays"])["w"] + calls
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

    return app


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_run_with_files_killed_in_any_round_resumes_with_the_memory_of_its_checkpoint(
    durable: bool, cut: int, tmp_path: Path
) -> None:
    def run(name: str, *, earlier: RunFolder | None = None, cut: int | None = None) -> float:
        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            if number == cut:
                raise PowerCut
            return MetricRecord({})

        random.seed(3)
        state_dir = tmp_path / ("whole" if name == "whole" else "state")
        with RunFolder.create(name, config={}, seed=1, root=tmp_path / "runs") as folder:
            if earlier is not None:
                folder.continue_from(earlier)
            with LocalGrid(remembering_app(durable), 4, run_config={"state-dir": str(state_dir)}) as grid:
                strategy = FedAvg(fraction_train=0.5, fraction_evaluate=0.0, min_available_nodes=1)
                result = Layered(strategy).start(
                    grid,
                    record_of({"w": np.zeros(1)}),
                    num_rounds=5,
                    run=folder,
                    evaluate_fn=evaluate,
                    resume=earlier is not None,
                )
        return float(arrays_of(result.arrays)["w"][0])

    whole = run("whole")
    with pytest.raises(PowerCut):
        run("killed", cut=cut)
    (killed,) = (tmp_path / "runs").glob("*killed*")
    assert run("resumed", earlier=RunFolder.open(killed)) == whole


@pytest.mark.parametrize("durable", [True, False])
def test_resuming_a_grid_removes_its_nodes_later_files_and_nobody_elses(durable: bool, tmp_path: Path) -> None:
    def grid(run_name: str, nodes: Iterable[int]) -> LocalGrid:
        configs = [{"partition-id": place} for place in nodes]
        run_config = {"state-dir": str(tmp_path), "run-name": run_name}
        return LocalGrid(remembering_app(durable), configs, run_config=run_config)

    def train(grid: LocalGrid) -> None:
        content = RecordDict({"arrays": record_of({"w": np.zeros(1)})})
        assert codes(ask(grid, "train", content)) == [None] * len(list(grid.get_node_ids()))

    def files(*parts: str) -> set[Path]:
        return {path for path in tmp_path.joinpath(*parts).rglob("*") if path.is_file()}

    for other in (grid("other-run", [0, 1]), grid("this-run", [7])):
        with other:
            train(other)
    notes = tmp_path / "this-run" / "partition-0" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("not ours", encoding="utf-8")
    foreign = files()
    with grid("this-run", [0, 1]) as killed:
        before = killed.state_dict()
        train(killed)
    assert files("this-run", "partition-1")
    left = files()
    with grid("this-run", [0, 1, 2]) as larger, pytest.raises(ConfigError, match="state of 2 nodes for a grid of 3"):
        larger.resume_from(before)
    with grid("this-run", [0, 1]) as again:
        again.load_state_dict(before)
    assert files() == left
    with grid("this-run", [0, 1]) as resumed:
        resumed.resume_from(before)
    assert files() == foreign


# -- clients that exit or fail ---------------------------------------------------------------------------------------


def exiting_app() -> ClientApp:
    """Node 0 calls `sys.exit`, after it has changed its memory."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            context.state["seen"] = ConfigRecord({"n": 99})
            sys.exit(3)
        return reply_with(message, place=1)

    return app


def interrupted_app() -> ClientApp:
    """Node 0 raises what is no Exception."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise KeyboardInterrupt("as if by Ctrl-C")
        return reply_with(message, place=1)

    return app


@pytest.mark.parametrize("pool", POOLS)
def test_a_client_that_exits_is_a_client_that_failed(pool: Any) -> None:
    with LocalGrid(exiting_app, 2, pool=pool) as grid:
        for _ in range(2):
            replies = ask_patiently(grid)
            assert codes(replies) == [2, None]
            assert replies[0].error.reason == "SystemExit: 3"


def test_where_errors_are_raised_an_exit_is_raised_too_and_leaves_nothing_behind() -> None:
    with LocalGrid(exiting_app, 2, raise_errors=True) as grid:
        with pytest.raises(SystemExit):
            ask_patiently(grid)
        assert "seen" not in grid.context_of(FIRST).state
        assert not grid._jobs


def test_an_interrupt_goes_through_a_sequential_grid() -> None:
    with LocalGrid(interrupted_app, 2) as grid, pytest.raises(KeyboardInterrupt):
        ask_patiently(grid)


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_in_a_pool_whatever_a_client_raises_is_answered_and_what_waits_for_the_node_goes_on(pool: Any) -> None:
    with LocalGrid(interrupted_app, 2, pool=pool, workers=1) as grid:
        messages = [Message(RecordDict(), node, "query") for node in (FIRST, FIRST + 1, FIRST)]
        replies = list(grid.send_and_receive(messages, timeout=PATIENCE_S))
        assert codes(replies) == [2, None, 2]
        assert "KeyboardInterrupt" in str(replies[0].error.reason)


def test_where_no_worker_can_be_started_messages_are_answered_and_later_ones_are_run() -> None:
    with LocalGrid(counting_app, 1, pool="processes", workers=1) as grid:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))
        try:
            replies = ask(grid, times=2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(taken)
        assert codes(replies) == [2, 2]
        assert "Too many open files" in str(replies[0].error.reason)
        assert numbers(ask_patiently(grid), "count") == [1]


def failing_app() -> ClientApp:
    """Changes all it can reach of its memory and fails in its second message."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        seen = context.state.config_records.get("seen")
        count = 0 if seen is None else len(seen["list"])  # type: ignore[arg-type]
        if seen is None:
            context.state["seen"] = ConfigRecord({"list": [0]})
            context.state["arrays"] = ArrayRecord([np.zeros(2)])
            return reply_with(message, count=count)
        marks = seen["list"]
        assert isinstance(marks, list)
        if count == 1 and "sound" not in message.content:
            marks.append(1)  # type: ignore[arg-type]
            context.state.array_records["arrays"]["0"].data = b"scribbled"
            context.state["more"] = ConfigRecord({"n": 1})
            context.run_config["lr"] = 99.0
            raise ValueError("out of memory")
        return reply_with(message, count=count, lr=float(context.run_config["lr"]))

    return app


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("serialise", [False, True])
def test_a_call_that_fails_leaves_no_trace_in_the_nodes_memory(pool: Any, serialise: bool) -> None:
    sound = RecordDict({"sound": ConfigRecord({})})
    with LocalGrid(failing_app, 1, pool=pool, serialise=serialise, run_config={"lr": 0.5}) as grid:
        assert codes([*ask(grid), *ask(grid), *ask(grid)]) == [None, 2, 2]
        (reply,) = ask(grid, content=sound)
        assert (numbers([reply], "count"), numbers([reply], "lr")) == ([1], [0.5])
        state = grid.context_of(FIRST).state
        assert sorted(state) == ["arrays", "seen"]
        np.testing.assert_array_equal(state.array_records["arrays"].to_numpy_ndarrays()[0], np.zeros(2))


def test_a_state_that_does_not_travel_is_not_kept() -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        context.state["big"] = ConfigRecord({"n": 2**70})
        return reply_with(message, place=0)

    with LocalGrid(app, 1, serialise=True) as grid:
        assert codes(ask(grid)) == [2]
        assert not grid.context_of(FIRST).state


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("durable", [True, False])
def test_what_a_node_saved_in_a_call_that_failed_is_neither_there_nor_told_to_be_lost(
    pool: Any, durable: bool, tmp_path: Path
) -> None:
    with LocalGrid(partial(saving_app, durable), 1, pool=pool, run_config={"state-dir": str(tmp_path)}) as grid:
        # Fails at its first message, then once more when there is something to go back to.
        assert [grid_says(grid, "fail"), grid_says(grid, "go"), grid_says(grid, "fail"), grid_says(grid, "go")] == [
            "ValueError: disk full",
            0,
            "ValueError: disk full",
            1,
        ]


def saving_app(durable: bool) -> ClientApp:
    """Counts its calls in a `NodeState`, and fails after saving where it is told to."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        memory = NodeState(context, "calls", durable=durable)
        calls = memory.load() or 0
        assert isinstance(calls, int)
        memory.save(calls + 1)
        if "fail" in message.content:
            raise ValueError("disk full")
        return reply_with(message, calls=calls)

    return app


def grid_says(grid: LocalGrid, word: str) -> Any:
    (reply,) = ask(grid, content=RecordDict({word: ConfigRecord({})}))
    return reply.error.reason if reply.has_error() else numbers([reply], "calls")[0]


# -- threads, and the server's global generators ---------------------------------------------------------------------


def greedy_app() -> ClientApp:
    """Draws from the global generators, each node another number of times."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        for _ in range(1 + place):
            random.random()
            np.random.random()
        w = 0.5 * arrays_of(message.content.array_records["arrays"])["w"] + place
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

    return app


def test_a_server_samples_the_same_nodes_behind_a_proxy_and_threads_as_on_a_sequential_grid() -> None:
    def run(pool: Any, wrap: Callable[[LocalGrid], Any]) -> tuple[float, float, float]:
        random.seed(1)
        np.random.seed(1)
        with LocalGrid(greedy_app, 8, pool=pool) as local:
            strategy = FedAvg(fraction_train=0.25, fraction_evaluate=0.0)
            result = strategy.start(wrap(local), record_of({"w": np.zeros(1)}), num_rounds=4)
        return float(arrays_of(result.arrays)["w"][0]), random.random(), float(np.random.random())

    def proxied(local: LocalGrid) -> GridProxy:
        return GridProxy(WrappedGrid(local), ask_properties=False, poll_s=0.05)

    expected = run("sequential", lambda local: local)
    assert run("threads", lambda local: local) == expected
    assert run("threads", proxied) == expected


# -- silence must cost nothing ---------------------------------------------------------------------------------------


def test_a_grid_keeps_nothing_of_an_exchange_that_has_ended() -> None:
    with LocalGrid(counting_app, 3, script=[Fault(0, "silent"), Fault(1, "late", delay_s=30.0)]) as grid:
        for _ in range(3):
            messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
            assert len(list(grid.send_and_receive(messages, timeout=0.01))) == 1
        list(grid.push_messages([Message(RecordDict(), FIRST, "query")]))
        assert not grid._jobs


class Questioned(WrappedGrid):
    """Notes for how many replies it is asked at a time."""

    asked = 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ids = list(message_ids)
        self.asked = max(self.asked, len(ids))
        return super().pull_messages(ids)


class Waiting:
    """A clock that only sleeping moves."""

    now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(("nodes", "rounds", "most"), [(100, 15, REMEMBERED), (300, 8, 4 * 300)])
def test_nodes_that_never_answer_do_not_make_the_questions_longer_for_ever(nodes: int, rounds: int, most: int) -> None:
    script = [Fault(node, "silent") for node in range(nodes)]
    time = Waiting()
    with LocalGrid(counting_app, nodes, script=script) as local:
        questioned = Questioned(local)
        grid = GridProxy(questioned, deadline_s=1.0, ask_properties=False, sleep=time.sleep, clock=time.clock)
        for _ in range(rounds):
            messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
            assert list(grid.send_and_receive(messages)) == []
        assert grid.counts.silent == nodes * rounds > most
        assert questioned.asked == most


# -- checkpoints of chains -------------------------------------------------------------------------------------------


def clocked(local: LocalGrid) -> VirtualClock:
    return VirtualClock(local, [Device()], [Link()])


def test_a_run_without_a_clock_does_not_resume_on_one_nor_the_other_way_round() -> None:
    with LocalGrid(counting_app, 1) as local:
        without, with_clock = grid_state(local), grid_state(clocked(local))
        with pytest.raises(ResumeError, match="on LocalGrid, this run is on VirtualClock around LocalGrid; build"):
            load_grid_state(clocked(local), without)
        with pytest.raises(ResumeError, match="on VirtualClock around LocalGrid, this run is on LocalGrid; build"):
            load_grid_state(local, with_clock)


def test_a_refused_checkpoint_changes_nothing() -> None:
    with LocalGrid(counting_app, 1) as local:
        with_clock = grid_state(clocked(local))
        ask(local)
        with pytest.raises(ResumeError):
            load_grid_state(local, with_clock)
        assert numbers(ask(local), "count") == [2]


def test_a_proxy_without_a_state_makes_no_difference_to_a_checkpoint() -> None:
    with LocalGrid(counting_app, 1) as local:
        ask(local)
        clock = clocked(local)
        clock.wait_until(5.0)
        saved = grid_state(clock)
    with LocalGrid(counting_app, 1) as local:
        again = VirtualClock(WrappedGrid(local), [Device()], [Link()])
        load_grid_state(again, saved)
        assert again.now_s == 5.0
        assert numbers(ask(local), "count") == [2]


def test_the_innermost_grids_can_be_left_out_of_a_checkpoint() -> None:
    with LocalGrid(counting_app, 1) as local:
        clock = clocked(local)
        clock.wait_until(5.0)
        saved = grid_state(clock, below=1)
        assert len(saved) == 1
        assert grid_state(local, below=1) == {}
        ask(local)
        again = clocked(local)
        load_grid_state(again, saved, below=1)
        assert again.now_s == 5.0
        assert numbers(ask(local), "count") == [2], "the grid below keeps what it has"
        with pytest.raises(ResumeError, match="on VirtualClock, this run is on VirtualClock around LocalGrid"):
            load_grid_state(again, saved)


# -- numbers on the wire ---------------------------------------------------------------------------------------------


def test_our_error_codes_are_flowers_and_the_two_of_our_own_are_none_of_them() -> None:
    own = {"REFUSED", "DECLINED", "NO_REPLY"}
    ours = [getattr(error_codes, name) for name in sorted(error_codes.__all__) if name not in own]
    assert ours == [
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ]
    flowers = [value for value in vars(ErrorCode).values() if isinstance(value, int)]
    assert 10 * max(flowers) < error_codes.REFUSED < error_codes.DECLINED


def test_a_node_that_drops_out_while_it_is_asked_is_not_listed_any_more() -> None:
    app = answer_properties(ClientApp())
    with LocalGrid(app, 4, script=[Fault(node=1, kind="drop-out", at=1)]) as local:
        proxy = GridProxy(local, expected_nodes=4)
        assert list(proxy.get_node_ids()) == [1000, 1002, 1003]


def test_a_silent_node_does_not_hold_up_the_first_listing_longer_than_a_round() -> None:
    app = answer_properties(ClientApp())
    begun_s = time.monotonic()
    with LocalGrid(app, 3, script=[Fault(node=1, kind="silent", at=1)]) as local:
        assert len(list(GridProxy(local, deadline_s=0.3, drain_s=0.0).get_node_ids())) == 3
    assert time.monotonic() - begun_s < 30


def test_a_fault_for_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="a fault for node 1001: nodes are counted from 0 to 2"):
        LocalGrid(ClientApp(), 3, script=[Fault(node=1001, kind="raise")])
