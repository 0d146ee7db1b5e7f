"""Several grids as one: every law of a grid, one federation, one checkpoint; and what cannot be joined."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from laws.grid_laws import NODES, GridLaws, law_app, question
from toy import initial_model, same_model, toy_app

from flower_edge.clients import answer_properties
from flower_edge.errors import ConfigError, NestingError, ResumeError
from flower_edge.runtime import Device, Fault, GridProxy, Link, LocalGrid, SteppedGrid, VirtualClock, WrappedGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.runtime.joined_grid import SERVER_NODE_ID, JoinedGrid, server_worker
from flower_edge.runtime.wrapped_grid import chain, find, grid_state, load_grid_state
from flower_edge.store import tree_from_bytes, tree_to_bytes


def configs(*places: int, of: int = NODES) -> list[dict[str, bool | int | float | str]]:
    return [{"partition-id": place, "num-partitions": of} for place in places]


class Far(Grid):
    """Nodes of another process, as this one sees them: what was pushed runs later, and arrives the last one first."""

    def __init__(self, inner: LocalGrid, looks: int = 2) -> None:
        self._inner, self._looks, self._waiting, self.log = inner, looks, dict[str, list[Any]](), list[str]()

    def set_run(self, run: Any) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Any:
        return self._inner.run

    def create_message(self, *given: Any, **named: Any) -> Message:
        return self._inner.create_message(*given, **named)

    def get_node_ids(self) -> Iterable[int]:
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.log.append("pushed")
        ids = list(self._inner.push_messages(messages))
        self._waiting |= {message_id: [self._looks] for message_id in ids}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.log.append("pulled")
        due = []
        for message_id in message_ids:
            if message_id in self._waiting:
                self._waiting[message_id][0] -= 1
                due += [message_id] if self._waiting[message_id][0] <= 0 else []
        return list(self._inner.pull_messages(due))[::-1]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._inner.send_and_receive(messages, timeout=timeout)


class OwnGrids(GridLaws):
    """The parts are closed one by one."""

    parts: list[LocalGrid]

    @pytest.fixture
    def grid(self) -> Iterator[Grid]:
        self.parts = []
        yield self.make(law_app(), NODES)
        for part in self.parts:
            part.close()

    def part(self, app: ClientApp, *places: int, **options: Any) -> LocalGrid:
        self.parts.append(LocalGrid(app, configs(*places), first_node_id=1000 + places[0], **options))
        return self.parts[-1]


class TestTwoLocalGrids(OwnGrids):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return JoinedGrid(self.part(app, 0, 1), self.part(app, 2, 3))


class TestOneGrid(OwnGrids):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return JoinedGrid(self.part(app, 0, 1, 2, 3))


class TestAJoinedGridInAJoinedGrid(OwnGrids):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return JoinedGrid(JoinedGrid(self.part(app, 0), self.part(app, 1, 2)), self.part(app, 3))


class TestAPoolOfThreadsBesideASequentialGrid(OwnGrids):
    def wait(self, grid: Grid) -> None:
        import time

        time.sleep(0.02)

    def make(self, app: ClientApp, nodes: int) -> Grid:
        return JoinedGrid(self.part(app, 0, 1, pool="threads"), self.part(app, 2, 3))


class TestBehindAGridProxy(OwnGrids):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        answer_properties(app)
        return GridProxy(JoinedGrid(Far(self.part(app, 0, 1, 2)), self.part(app, 3), poll_s=0.001), poll_s=0.05)


class TestOnAVirtualClock(OwnGrids):
    def wait(self, grid: Grid) -> None:
        clock = find(grid, VirtualClock)
        assert clock is not None
        clock.advance_to_next()

    def make(self, app: ClientApp, nodes: int) -> Grid:
        joined = JoinedGrid(self.part(answer_properties(app), 0, 1, 2), self.part(app, 3))
        devices = [Device(fixed_s=float(NODES - i)) for i in range(NODES)]
        return VirtualClock(GridProxy(joined), devices, [Link(1e6, 1e6)] * NODES)


class TestFarNodesBesideALocalOne(OwnGrids):
    def make(self, app: ClientApp, nodes: int) -> Grid:
        return Sorted(JoinedGrid(Far(self.part(app, 0, 1, 2)), self.part(app, 3), poll_s=0.001))


class Sorted(WrappedGrid):
    """For the law that compares models bit for bit: replies in the order of their messages."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        messages = list(messages)
        replies = list(super().send_and_receive(messages, timeout=timeout))
        order = [message.metadata.message_id for message in messages]
        return sorted(replies, key=lambda reply: order.index(reply.metadata.reply_to_message_id))


def train(grid: Grid, start: ArrayRecord | None = None) -> ArrayRecord:
    random.seed(3)
    return FedAvg(fraction_evaluate=0.0).start(grid, start or initial_model(), num_rounds=2).arrays


@contextmanager
def edge_and_own(workers: int = 3, **options: Any) -> Iterator[JoinedGrid]:
    """Workers on one grid, and the server as the last of them."""
    places = configs(*range(workers), of=workers + 1)
    with LocalGrid(toy_app(), places, **options) as local, server_worker(toy_app(), workers, workers + 1) as own:
        yield JoinedGrid(local, own)


def test_a_server_that_works_makes_the_model_of_one_grid_with_all_of_them() -> None:
    with edge_and_own() as joined, LocalGrid(toy_app(), 4) as whole:
        assert list(joined.get_node_ids()) == [1000, 1001, 1002, SERVER_NODE_ID]
        assert same_model(train(joined), train(whole))


def test_far_nodes_are_sent_to_first_and_work_while_the_own_one_does() -> None:
    began: list[str] = []
    app = law_app()
    with LocalGrid(app, configs(0, 1)) as away, server_worker(app, 2, 3) as own:
        far = Far(away)
        grid = JoinedGrid(far, own, poll_s=0.001, sleep=lambda _: began.append("slept"))
        ids = list(grid.get_node_ids())
        replies = list(grid.send_and_receive([question(node) for node in ids]))
        assert far.log[0] == "pushed"
        assert began == ["slept"]
        # The own node's first, then the others as they arrived: the last one first.
        assert [reply.metadata.src_node_id for reply in replies] == [SERVER_NODE_ID, 1001, 1000]


def test_the_timeout_is_one_for_all_parts() -> None:
    now = [0.0]

    def sleep(pause_s: float) -> None:
        now[0] += pause_s

    app = law_app()
    with LocalGrid(app, configs(0, 1)) as away, server_worker(app, 2, 3) as own:
        grid = JoinedGrid(Far(away, looks=10**6), own, poll_s=0.4, sleep=sleep, clock=lambda: now[0])
        replies = list(grid.send_and_receive([question(node) for node in grid.get_node_ids()], timeout=1.0))
        assert [reply.metadata.src_node_id for reply in replies] == [SERVER_NODE_ID]
        assert now[0] == pytest.approx(1.0)


def test_a_silent_node_in_this_process_is_not_waited_for() -> None:
    app = law_app()
    with LocalGrid(app, configs(0, 1), script=[Fault(node=0, kind="silent")]) as local:  # noqa: SIM117
        with server_worker(app, 2, 3) as own:
            grid = JoinedGrid(local, own)
            replies = list(grid.send_and_receive([question(node) for node in grid.get_node_ids()]))
            assert [reply.metadata.src_node_id for reply in replies] == [1001, SERVER_NODE_ID]


def test_a_node_nobody_has_is_answered_for_as_the_main_grid_does() -> None:
    app = law_app()
    with LocalGrid(app, configs(0)) as local, server_worker(app, 1, 2) as own:
        (reply,) = JoinedGrid(local, own).send_and_receive([question(77)])
        assert reply.has_error()


def test_a_node_that_went_off_its_grid_is_answered_for_by_that_grid() -> None:
    app = law_app()
    with LocalGrid(app, configs(0)) as local, server_worker(app, 1, 2) as own:
        grid = JoinedGrid(local, own)
        assert list(grid.get_node_ids()) == [1000, SERVER_NODE_ID]
        own.disconnect(SERVER_NODE_ID)
        assert list(grid.get_node_ids()) == [1000]
        replies = list(grid.send_and_receive([question(1000), question(SERVER_NODE_ID)]))
        assert [(reply.metadata.src_node_id, reply.has_error()) for reply in replies] == [
            (1000, False),
            (SERVER_NODE_ID, True),
        ]


def test_nodes_of_one_id_are_refused_with_what_to_type() -> None:
    with LocalGrid(law_app(), 2) as one, LocalGrid(law_app(), 2) as other:
        grid = JoinedGrid(one, other)
        with pytest.raises(ConfigError, match=r"node id 1000 is on two .* LocalGrid\(\.\.\., first_node_id=5000\)"):
            grid.get_node_ids()
        with pytest.raises(ConfigError, match="node id 1000"):
            grid.push_messages([question(1000)])


def test_messages_of_two_local_grids_have_ids_of_their_own() -> None:
    app = law_app()
    with LocalGrid(app, 2) as one, LocalGrid(app, 2, first_node_id=5000) as other:
        grid = JoinedGrid(one, other)
        ids = list(grid.push_messages([question(node) for node in grid.get_node_ids()]))
        assert len(set(ids)) == 4
        replies = list(grid.pull_messages(ids))
        assert len({reply.metadata.message_id for reply in replies}) == 4
        assert list(grid.pull_messages(ids)) == []


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda grid: GridProxy(grid), r"write GridProxy\(JoinedGrid\(\.\.\.\), \.\.\.\)"),
        (lambda grid: RoundClock(grid), r"write RoundClock\(JoinedGrid\(\.\.\.\), \.\.\.\)"),
        (lambda grid: SteppedGrid(grid, 5), r"write SteppedGrid\(JoinedGrid"),
    ],
)
def test_what_knows_nodes_or_times_goes_around_the_whole(wrap: Any, words: str) -> None:
    with LocalGrid(law_app(), 1) as local, server_worker(law_app(), 1, 2) as own:
        with pytest.raises(NestingError, match=words):
            JoinedGrid(wrap(local), own)
        assert list(wrap(JoinedGrid(local, own)).inner.get_node_ids()) == [1000, SERVER_NODE_ID]


def test_a_grid_and_itself_and_a_pause_of_nothing_are_refused() -> None:
    with LocalGrid(law_app(), 1) as local:
        with pytest.raises(NestingError, match="a grid and itself"):
            JoinedGrid(local, local)
        with pytest.raises(ConfigError, match="poll_s = 0"):
            JoinedGrid(local, poll_s=0)


@pytest.mark.parametrize("place", [-1, 3])
def test_a_server_worker_that_is_none_of_the_partitions_is_refused(place: int) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 2"):
        server_worker(law_app(), place, 3)


def test_node_one_is_the_server_itself() -> None:
    with pytest.raises(ConfigError, match="first_node_id = 1: expected 2 or more"):
        LocalGrid(law_app(), 1, first_node_id=1)


def test_for_a_chain_it_is_the_innermost_grid_and_tells_whether_generators_are_shared() -> None:
    with LocalGrid(law_app(), 2, pool="threads") as local, server_worker(law_app(), 2, 3) as own:
        joined = JoinedGrid(local, own)
        assert list(chain(WrappedGrid(joined)))[1:] == [joined]
        assert joined.shares_generators
        assert not JoinedGrid(own).shares_generators
        before = random.getstate()
        list(joined.send_and_receive([question(node) for node in joined.get_node_ids()]))
        assert random.getstate() == before


def test_a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_model() -> None:
    with edge_and_own() as grid:
        first = train(grid)
        saved = tree_to_bytes(grid_state(WrappedGrid(grid)))
        expected = train(grid, first)
    with edge_and_own() as again:
        other = train(again, first)
        assert not same_model(other, expected), "the clients' memory makes a difference"
        load_grid_state(WrappedGrid(again), tree_from_bytes(saved))
        assert same_model(train(again, first), expected)
        again.load_state_dict(tree_from_bytes(saved)["0:JoinedGrid"])
        assert same_model(train(again, first), expected)


def test_a_checkpoint_of_other_grids_is_refused() -> None:
    with LocalGrid(law_app(), 2) as local, server_worker(law_app(), 2, 3) as own:
        state = JoinedGrid(local, own).state_dict()
        for other in (JoinedGrid(local), JoinedGrid(local, Far(own))):
            for load in (other.load_state_dict, other.resume_from):
                with pytest.raises(ResumeError, match="join the same ones"):
                    load(state)


def test_all_parts_are_told_the_run_and_the_main_ones_is_shown() -> None:
    with LocalGrid(law_app(), 1, run_id=5) as local, server_worker(law_app(), 1, 2, run_id=6) as own:
        grid = JoinedGrid(local, own)
        assert grid.run.run_id == 5
        grid.set_run(local.run)
        assert own.run.run_id == 5
        message = grid.create_message(RecordDict(), "query", SERVER_NODE_ID, "g")
        assert (message.metadata.dst_node_id, message.metadata.group_id) == (SERVER_NODE_ID, "g")


def test_the_server_worker_draws_what_the_node_of_its_place_draws() -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Any) -> Message:
        drawn = np.random.random()
        from flwr.app import MetricRecord

        return Message(RecordDict({"m": MetricRecord({"drawn": drawn})}), reply_to=message)

    with LocalGrid(app, 3, seed=4) as whole, server_worker(app, 2, 3, seed=4) as own:
        one = list(whole.send_and_receive([Message(RecordDict(), 1002, "query")]))
        other = list(own.send_and_receive([Message(RecordDict(), SERVER_NODE_ID, "query")]))
        assert one[0].content["m"] == other[0].content["m"]
