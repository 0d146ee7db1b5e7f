"""Which executor gets a message, and what happens when one does not start. Small processes stand in for the app's."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.supercore.constant import TaskType
from warm_cases import state_factory

from flower_edge.runtime.flower_private_node import Claim
from flower_edge.runtime.warm.executor import Executor
from flower_edge.runtime.warm.pool import ExecutorPool
from flower_edge.runtime.warm.settings import WarmSettings

#: Speaks an executor's lines and does nothing else.
IDLE = """
import json, socket, sys
told = socket.socket(fileno=int(sys.argv[1]))
def say(**words):
    told.sendall((json.dumps({**words, "rss_bytes": 5_000_000}) + "\\n").encode())
say(ready=True)
for line in told.makefile():
    say(done=True)
"""
#: Ends on every message, before it has taken it from the SuperNode.
BREAKS = IDLE.replace("    say(done=True)", "    raise SystemExit(4)")
#: Does not even begin.
NOT_AT_ALL = "raise SystemExit(5)"
#: Takes messages and never says that one is done, as a process that is stopped.
MUTE = IDLE.replace("    say(done=True)", "    pass")
#: Says what nobody understands.
GARBLES = IDLE.replace("    say(done=True)", '    told.sendall(b"what?\\n")')
#: Does not end when it is let go.
CLINGS = IDLE + "import time\ntime.sleep(600)\n"


def tiny(script: str) -> Callable[[str], Executor]:
    return lambda address: Executor(address, (sys.executable, "-S", "-E", "-c", script))


class Node:
    """Flower's state of a node, a pool on it, and the claims that went to Flower's own program."""

    def __init__(self, script: str, **settings: Any) -> None:
        self.state = state_factory().state()
        self.stock: list[Claim] = []
        self.pool = ExecutorPool(
            "127.0.0.1:9", WarmSettings(**settings), tiny(script), lambda _, claim: self.stock.append(claim)
        )

    def message(self, run: int = 1, fab: str = "a", kind: str = TaskType.CLIENT_APP) -> None:
        assert self.state.create_task(task_type=kind, run_id=run, fab_hash=fab) is not None
        self.pool.stored(self.state)

    def until(self, there: Callable[[], Any]) -> None:
        latest_s = time.monotonic() + 120
        while not there():
            assert time.monotonic() < latest_s
            self.pool.look(0.02)

    def answered(self) -> None:
        self.until(lambda: not any(executor.claim for executor in self.pool.executors))


@pytest.fixture
def node() -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(script: str = IDLE, **settings: Any) -> Node:
        made.append(Node(script, **settings))
        return made[-1]

    yield make
    for one in made:
        one.pool.close()


def test_an_executor_stands_by_before_the_first_message_and_keeps_its_run(node: Callable[..., Node]) -> None:
    one = node()
    (first,) = one.pool.executors
    assert first.bound is None
    for _ in range(3):
        one.message()
        one.answered()
    assert one.pool.executors == (first,)
    assert (first.bound, first.messages, first.rss_bytes) == ((1, "a"), 3, 5_000_000)


def test_another_run_or_another_app_gets_another_process_and_the_one_unused_longest_makes_room(
    node: Callable[..., Node],
) -> None:
    one = node(keep=2)
    for run, fab in ((1, "a"), (2, "a"), (1, "a"), (1, "b")):
        one.message(run, fab)
        one.answered()
    assert {executor.bound for executor in one.pool.executors} == {(1, "a"), (1, "b")}


@pytest.mark.parametrize(("keep", "kept"), [(1, 1), (2, 2), (3, 3), (5, 4)])
def test_never_more_executors_than_runs_kept(node: Callable[..., Node], keep: int, kept: int) -> None:
    one = node(keep=keep)
    for run in (1, 2, 3, 4):
        one.message(run)
        one.answered()
        assert len(one.pool.executors) <= keep
    assert len(one.pool.executors) == kept


def test_what_is_not_for_a_client_app_goes_to_flowers_own_program(node: Callable[..., Node]) -> None:
    one = node()
    one.message(kind=TaskType.AGENT_APP)
    assert [claim.kind for claim in one.stock] == [TaskType.AGENT_APP]


def test_a_message_whose_executor_died_before_it_began_is_given_to_another_and_in_the_end_to_flower(
    node: Callable[..., Node],
) -> None:
    one = node(BREAKS)
    one.message()
    one.until(lambda: one.stock)
    assert not one.pool.warm
    assert not one.pool.executors
    one.message()
    assert len(one.stock) == 2
    assert one.stock[0].token != one.stock[1].token


def test_executors_that_do_not_start_are_given_up_after_three_and_messages_go_to_flower(
    node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    one = node(NOT_AT_ALL)
    with caplog.at_level("WARNING", logger="flwr"):
        one.until(lambda: not one.pool.warm)
    one.message()
    assert len(one.stock) == 1
    assert "3 executors in a row did not start (the last: exit code 5)" in caplog.text


def test_a_program_that_is_not_there_is_no_reason_to_end_the_node() -> None:
    def start(address: str) -> Executor:
        return Executor(address, ("/no/such/python",))

    stock: list[Claim] = []
    pool = ExecutorPool("127.0.0.1:9", WarmSettings(), start, lambda _, claim: stock.append(claim))
    for _ in range(3):
        pool.look(0)
    assert not pool.warm
    state = state_factory().state()
    state.create_task(task_type=TaskType.CLIENT_APP, run_id=1, fab_hash="a")
    pool.stored(state)
    assert len(stock) == 1


def test_an_executor_without_a_message_for_long_lets_go_of_its_app(node: Callable[..., Node]) -> None:
    one = node(idle_s=0.2)
    (first,) = one.pool.executors
    time.sleep(0.3)
    one.pool.look(0)
    assert one.pool.executors == (first,)  # it has no app: nothing would be gained
    one.message()
    one.answered()
    one.until(lambda: one.pool.executors != (first,))
    assert [executor.bound for executor in one.pool.executors] == [None]


def test_one_that_stays_silent_after_flower_gave_up_its_message_does_not_hold_up_the_next(
    node: Callable[..., Node],
) -> None:
    one = node(MUTE)
    one.message()
    (first,) = one.pool.executors
    assert first.claim is not None
    task = first.claim.task_id
    assert one.state.activate_task(task)
    assert one.state.finish_task(task, "failed", "as after a minute without a heartbeat")
    one.message()
    (second,) = one.pool.executors
    assert second.pid != first.pid
    assert second.claim is not None


def test_one_that_tells_what_cannot_be_read_is_replaced(node: Callable[..., Node]) -> None:
    one = node(GARBLES)
    one.message()
    one.until(lambda: one.stock)  # it never began: given to two more, then to Flower


def test_one_that_does_not_end_is_ended() -> None:
    executor = tiny(CLINGS)("127.0.0.1:9")
    while not executor.ready:
        executor.look()
    began_s = time.monotonic()
    assert executor.close(patience_s=0.1) == -9
    assert time.monotonic() - began_s < 60


def test_nothing_is_started_after_the_end(node: Callable[..., Node]) -> None:
    one = node()
    one.pool.close()
    one.pool.look(0)
    one.message()
    assert not one.pool.executors
    assert len(one.stock) == 1
