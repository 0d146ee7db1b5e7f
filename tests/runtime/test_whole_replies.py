"""A node that is cut off in the middle of its reply holds up nobody. Flower's own Grid, handlers and state."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import time
from collections.abc import Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.app.message import message as flower_message
from flwr.app.message import remove_content_from_message
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import http_grid
from flwr.superlink.servicer.runtime import runtime_handlers

from flower_edge.runtime import GridProxy, flower_private_grid
from flower_edge.runtime.flower_private import borrowed_identity
from flower_edge.runtime.flower_private_grid import pull_reason, take_whole_replies
from flower_edge.runtime.in_flight import Counts


class Link:
    """A SuperLink's state, an `HttpGrid` whose requests go straight to Flower's handlers, and its nodes."""

    def __init__(self, nodes: int) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.state: Any = factory.state()
        self.run_id = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP.value
        )
        self.nodes = [self._node() for _ in range(nodes)]
        self.asked = 0

    def _node(self) -> int:
        node_id = self.state.create_node("nobody", "nobody", secrets.token_bytes(32), heartbeat_interval=1e6)
        self.state.acknowledge_node_heartbeat(node_id, 1e6)
        return int(node_id)

    def grid(self) -> http_grid.HttpGrid:
        grid = http_grid.HttpGrid(token="none is asked for")
        grid.set_run(Run.create_empty(self.run_id))
        verbs = {
            "PushMessages": "push_messages", "PullMessages": "pull_messages", "PushObject": "push_object",
            "PullObject": "pull_object", "ConfirmMessageReceived": "confirm_message_received",
        }  # fmt: skip
        task = SimpleNamespace(run_id=self.run_id)
        calls = {verb: partial(self._call, getattr(runtime_handlers, name), task) for verb, name in verbs.items()}
        grid._client = SimpleNamespace(**calls)  # type: ignore[assignment]
        return grid

    def _call(self, handler: Any, task: Any, request: Any) -> Any:
        self.asked += 1
        return handler(request, self.state, task)

    def training(self) -> list[Message]:
        return [Message(RecordDict(), node, "train") for node in self.nodes]

    def announce(self, node: int) -> Iterator[None]:
        """A node announces its reply, then uploads one object of it each time it is gone on with."""
        (message,) = self.state.get_message_ins(node, limit=1)
        arrays = ArrayRecord({f"w{k}": Array(np.full(4, node % 1000 + k, np.float32)) for k in range(3)})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
        reply = Message(content, reply_to=message)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        session = self.state.start_session(self.run_id)
        bare = remove_content_from_message(reply)
        stored, missing = self.state.store_message_and_object_tree(bare, get_object_tree(reply), session)
        assert stored
        whole = get_all_nested_objects(reply)
        for object_id in missing:
            yield
            if not self.state.store_object(self.run_id, session, object_id, whole[object_id].deflate()):
                return
        yield


@pytest.fixture
def link() -> Iterator[Link]:
    with borrowed_identity():
        link = Link(3)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, link.run_id, 1
        yield link


class Time:
    """Passes when it is slept, and then the nodes do something."""

    def __init__(self, happens: Any) -> None:
        self.now_s, self._happens = 0.0, happens

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self._happens(self.now_s)


def proxied(grid: Any, happens: Any, **options: Any) -> GridProxy:
    time = Time(happens)
    return GridProxy(grid, ask_properties=False, sleep=time.sleep, clock=time.clock, drain_s=0.0, **options)


def test_a_round_ends_in_time_though_a_reply_is_only_half_there(link: Link) -> None:
    uploads: dict[int, Iterator[None]] = {}

    def happens(now_s: float) -> None:
        if not uploads:
            uploads.update({node: link.announce(node) for node in link.nodes})
        cut = link.nodes[0]
        for node, upload in uploads.items():
            for _ in range(2 if node == cut else 20):
                if node != cut or now_s < 0.15:
                    next(upload, None)

    grid = proxied(link.grid(), happens, deadline_s=5.0)
    # The one that is cut off is the first that was asked for: Flower would look at no other before it.
    first = list(grid.send_and_receive(link.training()))
    assert [reply.metadata.src_node_id for reply in first] == link.nodes[1:]
    for reply, node in zip(first, link.nodes[1:], strict=True):
        np.testing.assert_array_equal(reply.content["arrays"]["w2"].numpy(), np.full(4, node % 1000 + 2, np.float32))
    assert grid.counts == Counts(sent=3, answered=2, silent=1)
    # Its link is there again: the reply comes, too late to count.
    for _ in uploads[link.nodes[0]]:
        pass
    grid.send_and_receive([])
    assert grid.counts == Counts(sent=3, answered=2, silent=1, late=1)


def test_a_reply_that_is_whole_in_time_counts_however_slowly_it_came(link: Link) -> None:
    uploads: dict[int, Iterator[None]] = {}

    def happens(now_s: float) -> None:
        uploads.update({} if uploads else {node: link.announce(node) for node in link.nodes})
        for upload in uploads.values():
            next(upload, None)

    grid = proxied(link.grid(), happens, deadline_s=60.0)
    replies = list(grid.send_and_receive(link.training()))
    assert [reply.metadata.src_node_id for reply in replies] == link.nodes
    assert grid.counts == Counts(sent=3, answered=3)


@pytest.mark.parametrize(("ahead_s", "good_for_s"), [(200.0, 265.0), (-3600.0, 65.0), (400.0, 300.2)])
def test_a_node_whose_clock_is_wrong_answers_in_time_and_one_too_far_ahead_is_told_of(
    link: Link, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ahead_s: float, good_for_s: float
) -> None:
    wrong, right_now, answers = link.nodes[0], flower_message.now, ahead_s < 300.0
    waiting: list[int] = []

    def works(seconds: float) -> None:
        if waiting:
            waiting.clear()
            with monkeypatch.context() as clock:
                clock.setattr(flower_message, "now", lambda: right_now() + dt.timedelta(seconds=ahead_s))
                if answers:
                    for _ in link.announce(wrong):
                        pass
                else:
                    with pytest.raises(AssertionError):  # Flower's own state takes no reply
                        next(link.announce(wrong))
        elif not answers:
            time.sleep(seconds)

    # Time to live is real time; only the one that never answers is waited for.
    grid = GridProxy(link.grid(), ask_properties=False, sleep=works, deadline_s=60.0 if answers else 0.2, drain_s=0.0)
    with caplog.at_level(logging.WARNING, "flower_edge.runtime.grid_proxy"):
        for _ in range(2):
            waiting.append(wrong)
            message = Message(RecordDict(), wrong, "train")
            assert len(list(grid.send_and_receive([message]))) == answers
    assert message.metadata.ttl == pytest.approx(good_for_s, abs=3.0)
    assert caplog.text.count(f"node {wrong} has never answered") == (not answers)


def halves(grid: Any) -> list[int]:
    """Of the replies that were announced to this Grid: how many objects of each are there."""
    return [len(one.contents) for one in grid.pull_messages.__self__._announced.values()]


def test_half_a_reply_that_nobody_asks_for_is_let_go_and_comes_whole_when_it_is_asked_for(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = link.grid()
    assert take_whole_replies(bare)
    first, second, _ = bare.push_messages(link.training())
    upload = link.announce(link.nodes[0])
    for _ in range(4):
        next(upload)
    assert list(bare.pull_messages([first])) == []
    assert list(bare.pull_messages([second])) == []
    (kept,) = halves(bare)
    assert kept > 0  # between two looks it is not had again
    monkeypatch.setattr(flower_private_grid, "_KEPT_S", 0.0)
    assert list(bare.pull_messages([second])) == []
    assert halves(bare) == [0]
    assert list(bare.pull_messages([first])) == []
    assert halves(bare) == [kept]
    for _ in upload:
        pass
    (reply,) = bare.pull_messages([first])
    np.testing.assert_array_equal(
        reply.content["arrays"]["w2"].numpy(), np.full(4, link.nodes[0] % 1000 + 2, np.float32)
    )
    assert halves(bare) == []


def test_of_too_many_halves_the_oldest_is_forgotten_and_is_an_error_where_it_is_asked_for(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_private_grid, "_KNOWN", 1)
    bare = link.grid()
    assert take_whole_replies(bare)
    ids = list(bare.push_messages(link.training()))
    for node, message_id in zip(link.nodes, ids, strict=True):
        next(link.announce(node))
        assert list(bare.pull_messages([message_id])) == []
    assert len(halves(bare)) == 2  # the one that is asked for, and of two others the younger
    (lost,) = bare.pull_messages(ids[:1])
    assert (lost.error.code, lost.metadata.reply_to_message_id) == (3, ids[0])
    # What is asked for is never dropped.
    monkeypatch.setattr(flower_private_grid, "_KNOWN", 0)
    assert list(bare.pull_messages(ids[2:])) == []
    assert len(halves(bare)) == 1


def test_an_upload_that_takes_longer_than_flower_waits_for_one_is_an_error(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = link.grid()
    ids = list(bare.push_messages(link.training()))
    monkeypatch.setattr(in_memory_corestate, "OBJECT_PUSH_SESSION_TTL_SECONDS", 0.0)
    upload = link.announce(link.nodes[0])
    next(upload)
    assert take_whole_replies(bare)
    replies = list(bare.pull_messages(ids[:1]))
    assert [reply.error.code for reply in replies] == [3]
    assert replies[0].metadata.reply_to_message_id == ids[0]


def test_where_this_flower_has_moved_a_name_its_own_pull_stays(link: Link) -> None:
    assert pull_reason(http_grid) == ""
    moved = ModuleType("moved")
    moved.__dict__.update({name: value for name, value in vars(http_grid).items() if name != "pull_objects"})
    assert pull_reason(moved) == "this flwr has no flwr.superlink.grid.http_grid.pull_objects"
    grid = link.grid()
    assert take_whole_replies(grid)
    taken = grid.pull_messages
    assert take_whole_replies(grid)
    assert grid.pull_messages == taken  # once, however many proxies are around it
