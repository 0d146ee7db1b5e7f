"""GridProxy and VirtualClock around Flower's own Grid and link state; only the SuperNodes are played by this file.

The nodes work while the proxy sleeps: no threads, no sockets, no waiting.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from flower_edge.clients.properties import answer_properties
from flower_edge.runtime.clock.devices import draw_devices, draw_links
from flower_edge.runtime.clock.virtual_clock import Trip, VirtualClock
from flower_edge.runtime.flower_private import borrowed_identity, set_metadata
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.in_flight import Counts
from flower_edge.runtime.local_grid import LocalGrid

NODES = 4


def make_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        steps = 10 + place
        metrics = MetricRecord({"steps": steps, "place": place, "num-examples": 8})
        return Message(RecordDict({"arrays": ArrayRecord(), "metrics": metrics}), reply_to=message)

    return answer_properties(app)


class Fleet:
    """Flower's link state with nodes that answer one message each whenever time passes."""

    def __init__(self, nodes: int) -> None:
        self.factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.state = self.factory.state()
        self.run_id = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP.value
        )
        self.app = make_app()
        self.contexts: dict[int, Context] = {}
        self.asleep_until_s: dict[int, float] = {}
        self.now_s = 0.0
        for place in range(nodes):
            node_id = self.state.create_node("nobody", "nobody", secrets.token_bytes(32), heartbeat_interval=1e6)
            self.state.acknowledge_node_heartbeat(node_id, 1e6)
            self.contexts[node_id] = Context(self.run_id, node_id, {"partition-id": place}, RecordDict(), {})

    def grid(self) -> InMemoryGrid:
        grid = InMemoryGrid(self.factory)
        grid.set_run(Run.create_empty(self.run_id))
        return grid

    def ids_by_partition(self) -> list[int]:
        return sorted(self.contexts, key=lambda node_id: int(self.contexts[node_id].node_config["partition-id"]))

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for node_id, context in self.contexts.items():
            if self.now_s < self.asleep_until_s.get(node_id, 0.0):
                continue
            for message in self.state.get_message_ins(node_id, limit=1):
                try:
                    reply = self.app(message, context)
                except ValueError as error:
                    reply = Message(Error(2, str(error)), reply_to=message)
                set_metadata(reply, message_id=secrets.token_hex(16))
                assert self.state.store_message_res(reply) is not None

    def go_offline(self, node_id: int) -> None:
        assert self.state.deactivate_node(node_id)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with borrowed_identity():
        fleet = Fleet(NODES)
        # As Flower does in the process of a ServerApp.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, fleet.run_id, 1
        yield fleet


def proxied(fleet: Fleet, **options: Any) -> GridProxy:
    return GridProxy(fleet.grid(), sleep=fleet.sleep, clock=fleet.clock, **options)


def training(nodes: list[int]) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in nodes]


def test_random_node_ids_are_listed_by_partition_and_sampling_repeats(fleet: Fleet) -> None:
    grid = proxied(fleet, expected_nodes=NODES, seed=3)
    assert grid.get_node_ids() == fleet.ids_by_partition()
    sampled = [grid.properties(node)["partition-id"] for node in random.sample(list(grid.get_node_ids()), 2)]

    with LocalGrid(fleet.app, nodes=NODES) as local:
        in_process = GridProxy(local, seed=3)
        again = random.sample(list(in_process.get_node_ids()), 2)
        assert [in_process.properties(node)["partition-id"] for node in again] == sampled


def test_flowers_own_error_names_the_node_it_is_about(fleet: Fleet) -> None:
    ids = fleet.ids_by_partition()
    bare = fleet.grid()
    message_ids = bare.push_messages(training(ids[:1]))
    fleet.go_offline(ids[0])
    (unmapped,) = bare.pull_messages(message_ids)
    assert unmapped.metadata.src_node_id == 1

    grid = proxied(fleet, ask_properties=False)
    replies = list(grid.send_and_receive(training(ids)))
    assert [reply.metadata.src_node_id for reply in replies] == ids
    assert [reply.has_error() for reply in replies] == [True, False, False, False]
    assert replies[0].error.code == 5


def test_a_node_that_wakes_up_late_answers_the_second_copy_too_and_one_answer_is_taken(fleet: Fleet) -> None:
    ids = fleet.ids_by_partition()
    grid = proxied(fleet, resend_after_s=1.0, deadline_s=20.0)
    grid.get_node_ids()
    fleet.asleep_until_s[ids[2]] = fleet.now_s + 2.0
    messages = training(ids)
    replies = list(grid.send_and_receive(messages))
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in messages]
    assert not any(reply.has_error() for reply in replies)
    grid.close()
    assert grid.counts == Counts(sent=4, answered=4, resent=1, late=1)
    assert not fleet.state.message_ins_store  # type: ignore[attr-defined]


def test_replies_of_an_ended_round_do_not_reach_the_next_one(fleet: Fleet) -> None:
    ids = fleet.ids_by_partition()
    grid = proxied(fleet, deadline_s=1.0)
    grid.get_node_ids()
    fleet.asleep_until_s[ids[0]] = fleet.now_s + 1.25
    assert len(list(grid.send_and_receive(training(ids)))) == 3
    second = training(ids)
    replies = list(grid.send_and_receive(second))
    assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in second]
    grid.close()
    assert grid.counts == Counts(sent=8, answered=7, silent=1, late=1)


def test_one_seed_gives_the_same_virtual_times_on_flowers_grid_and_in_process(fleet: Fleet) -> None:
    def rounds(grid: VirtualClock) -> list[list[tuple[Any, ...]]]:
        told = []
        for _ in range(3):
            grid.send_and_receive(training(list(grid.get_node_ids())))
            told.append([timing(trip) for trip in grid.trips])
        return told

    def timing(trip: Trip) -> tuple[Any, ...]:
        return trip.key, trip.start_s, trip.arrival_s, trip.down_bits, trip.up_bits

    def clock(inner: Any) -> VirtualClock:
        devices, links = draw_devices(NODES, seed=5, jitter=0.3), draw_links(NODES, seed=5, jitter=0.3)
        return VirtualClock(inner, devices, links, seed=5)

    flowers = clock(proxied(fleet, expected_nodes=NODES))
    on_flower = rounds(flowers)
    with LocalGrid(fleet.app, nodes=NODES) as local:
        in_process = clock(local)
        assert rounds(in_process) == on_flower
    assert flowers.ledger == in_process.ledger
    assert flowers.now_s > 0.3
