"""Executors that stay, as real processes on a real Runtime API: safety of one message from another, and of the node."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm_cases import add_run, answer_of, app_fab, ask, put, runtime_api, state_factory

from flower_edge.runtime.warm.pool import ExecutorPool
from flower_edge.runtime.warm.settings import WarmSettings

pytestmark = pytest.mark.slow

MakePool = Callable[..., ExecutorPool]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    return state_factory()


@pytest.fixture
def make_pool(state: Any) -> Iterator[MakePool]:
    pools: list[ExecutorPool] = []
    with runtime_api(state) as address:

        def make(**settings: Any) -> ExecutorPool:
            pools.append(ExecutorPool(address, WarmSettings(**settings)))
            return pools[-1]

        yield make
        pids = [executor.pid for pool in pools for executor in pool.executors]
        for pool in pools:
            pool.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_one_process_answers_all_messages_of_a_run_and_a_crash_costs_one_message(
    state: Any, make_pool: MakePool, tmp_path: Path
) -> None:
    node, pool = state.state(), make_pool()
    add_run(node, 7, app_fab(tmp_path, "one"))
    first = ask(node, pool, 7)
    assert (first["who"], first["calls"], first["seen"]) == ("one", 1, 1)
    assert first["file"].startswith(str(tmp_path / "home" / "apps"))  # its own installed folder
    assert ask(node, pool, 7) == {**first, "calls": 2, "seen": 2}

    raised = ask(node, pool, 7, "raise")
    assert raised == {"error": "<class 'ValueError'>:<'asked for'>", "code": 2}
    # As with Flower, what the app wrote into the state before it raised is kept.
    assert ask(node, pool, 7) == {**first, "calls": 4, "seen": 4}

    # A process that ends in the middle of a message: Flower's own error, at once, and the state of before it.
    begin_s = time.monotonic()
    assert ask(node, pool, 7, "exit") == {"error": "ClientApp stopped responding.", "code": 8}
    assert time.monotonic() - begin_s < 60
    fresh = ask(node, pool, 7)
    assert (fresh["calls"], fresh["seen"]) == (1, 5)
    assert fresh["pid"] != first["pid"]

    # The same by kill -9 from outside, in a message that would never end.
    put(node, 7, "hang")
    pool.stored(node)
    time.sleep(0.5)
    pool.look(0)
    assert pool.executors[0].claim is not None  # hung, and nobody minds: as with Flower
    os.kill(fresh["pid"], signal.SIGKILL)
    assert answer_of(node, pool) == {"error": "ClientApp stopped responding.", "code": 8}
    assert ask(node, pool, 7)["seen"] == 6

    # The node ends, and with it an executor that is in the middle of a message.
    put(node, 7, "hang")
    pool.stored(node)
    pid = pool.executors[0].pid
    begin_s = time.monotonic()
    pool.close()
    assert time.monotonic() - begin_s < 60
    assert not Path(f"/proc/{pid}").exists()


def test_two_runs_see_neither_each_others_code_nor_each_others_globals(
    state: Any, make_pool: MakePool, tmp_path: Path
) -> None:
    node, pool = state.state(), make_pool(keep=2)
    fab = app_fab(tmp_path, "one")
    add_run(node, 1, fab)
    add_run(node, 2, app_fab(tmp_path, "two"))  # another app that calls its modules the same
    add_run(node, 3, fab)  # the same app in another run
    one, two = ask(node, pool, 1), ask(node, pool, 2)
    assert (one["who"], two["who"]) == ("one", "two")
    assert one["pid"] != two["pid"]
    assert ask(node, pool, 1) == {**one, "calls": 2, "seen": 2}
    three = ask(node, pool, 3)
    assert (three["who"], three["calls"], three["seen"]) == ("one", 1, 1)
    assert len(pool.executors) == 2  # run 2 was longest without a message, and made room
    assert not Path(f"/proc/{two['pid']}").exists()
    assert ask(node, pool, 1)["pid"] == one["pid"]


def test_an_executor_that_has_grown_or_worked_enough_is_replaced_and_the_node_keeps_its_state(
    state: Any, make_pool: MakePool, tmp_path: Path
) -> None:
    node, pool = state.state(), make_pool(memory_mb=170.0, recycle_after=3)
    add_run(node, 1, app_fab(tmp_path, "one"))
    first = ask(node, pool, 1)
    grown = ask(node, pool, 1, "grow")  # 80 MB on top of some 100
    assert grown["pid"] == first["pid"]
    after = ask(node, pool, 1)
    assert after["pid"] != first["pid"]
    assert (after["calls"], after["seen"]) == (1, 3)
    same = {ask(node, pool, 1)["pid"], ask(node, pool, 1)["pid"]}
    assert same == {after["pid"]}
    last = ask(node, pool, 1)
    assert last["pid"] != after["pid"]
    assert last["seen"] == 6
