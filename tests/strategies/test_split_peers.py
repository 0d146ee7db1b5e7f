"""Merging among devices: the server's average to the bit, whatever happens, and less through the server."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import FedAvg, FedMedian
from split_toy import MERGE, STEPS, device_app, fedavg, number_of, split, start
from toy import same_model

from flower_edge.errors import ConfigError
from flower_edge.peers.packet import Packet
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.splitting.messages import HALF_RECORD, SPLIT_RECORD, SplitOrder
from flower_edge.runtime.splitting.peers import MEAN_RECORD, PeerOrder
from flower_edge.runtime.splitting.service import Patience
from flower_edge.splitting.planner import FixedCut, Planner, Scheduled, WholeModel
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layered, Metered
from flower_edge.strategies.hierarchy.cells import blocks
from flower_edge.strategies.splitting.split import Split
from flower_edge.strategies.splitting.stream_plane import StreamPlane
from flower_edge.transport.credentials import Insecure
from flower_edge.wire import packet_bytes, packet_record

#: Cuts that differ by device and round; 6 is the whole model.
MOVING = Scheduled(((1, 3, 6), (4, 2, 5), (2, 6, 3), (6, 4, 3)))


#: Of every strategy that was run.
METRICS: WeakKeyDictionary[Split, dict[int, MetricRecord]] = WeakKeyDictionary()


def peers(**options: Any) -> Split:
    return split(**{"planner": MOVING, "merge": "peers", "mailbox": "shared-memory", **options})


def run(strategy: Split, rounds: int, app: Any = None, **options: Any) -> ArrayRecord:
    with LocalGrid(app or device_app(), 3, **options) as grid:
        found = strategy.start(grid, start(), rounds)
    METRICS[strategy] = found.train_metrics_clientapp
    assert found.arrays is not None
    return found.arrays


def metric(strategy: Split, name: str, round: int = MERGE) -> float:
    """Of a run of it, 0 where there is none."""
    found = METRICS[strategy][round].get(name, 0)
    assert isinstance(found, int | float)
    return found


@cache
def plain(*short: int) -> ArrayRecord:
    """FedAvg of whole models, twice; in the merges named here device 1 has trained one round only."""
    return fedavg(2, steps={(merge, 1): STEPS for merge in short})


@pytest.mark.parametrize(
    ("planner", "mailbox"),
    [(MOVING, "relay"), (MOVING, "shared-memory"), (WholeModel(), "shared-memory")],
    ids=["moving, relay", "moving, shared memory", "whole model"],
)
def test_merged_among_devices_it_is_the_servers_average_bit_for_bit(planner: Planner, mailbox: str) -> None:
    strategy = peers(planner=planner, mailbox=mailbox)
    assert same_model(run(strategy, 2 * MERGE, serialise=mailbox == "relay"), plain())
    assert [metric(strategy, "peers", round) for round in (MERGE, 2 * MERGE)] == [3, 3]
    assert not any(row["lost"] for row in strategy.history)


@pytest.mark.parametrize("tail", [0, 1])
def test_with_labels_on_the_device_its_tail_is_merged_among_devices_too(tail: int) -> None:
    both = [peers(planner=FixedCut(2), labels="device", tail=tail, merge=merge) for merge in ("peers", "server")]
    assert same_model(run(both[0], 2 * MERGE), run(both[1], 2 * MERGE))
    assert metric(both[0], "peers") == 3


@pytest.mark.parametrize("options", [{"keep_optimiser": True}, {"variant": "v2"}], ids=["optimiser kept", "v2"])
def test_whatever_else_is_chosen_it_ends_as_with_the_server(options: dict[str, Any]) -> None:
    both = [peers(planner=FixedCut(3), merge=merge, **options) for merge in ("peers", "server")]
    assert same_model(run(both[0], 2 * MERGE), run(both[1], 2 * MERGE))
    assert metric(both[0], "peers") == 3


def test_nothing_that_every_device_has_trained_is_nothing_to_merge_among_them() -> None:
    strategy = peers(planner=FixedCut(0))
    assert same_model(run(strategy, MERGE), fedavg(1))
    assert "peers" not in METRICS[strategy][MERGE]


def faulty(act: str, kind: str = "raise", *, round: int = MERGE) -> Any:
    """Devices of which number 1 does not do this step of a round, the first merge's by default."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type == "train.split" and number_of(context) == 1:
            order = SplitOrder.read(message.content.config_records[SPLIT_RECORD], sender="the test")
            asked = PeerOrder.of(order.peers, sender="the test") if order.peers else PeerOrder()
            if order.work.round == round and asked.act == act:
                if kind == "raise":
                    raise RuntimeError("switched off")
                if kind == "forget":
                    context.state.clear()
                if kind == "diverge":
                    held = NodeState(context, "split-peers").load()
                    next(iter(held["own"].values()))[...] = np.nan  # type: ignore[index,call-overload]
                    NodeState(context, "split-peers").save(held)
                reply = call_next(message, context)
                if kind == "garbage":
                    reply.content[MEAN_RECORD] = packet_record(b"garbage")
                if kind == "lie":
                    packet = Packet.from_bytes(packet_bytes(reply.content[MEAN_RECORD], sender="the test"))  # type: ignore[arg-type]
                    other = replace(packet, payload=bytes(len(packet.payload)))
                    reply.content[MEAN_RECORD] = packet_record(other.to_bytes())
                return reply
        return call_next(message, context)

    return device_app(mods=[mod])


@pytest.mark.parametrize("mailbox", ["relay", "shared-memory"])
@pytest.mark.parametrize(("act", "kind"), [("post", "raise"), ("add", "raise"), ("add", "forget")])
def test_a_device_lost_in_the_merge_loses_that_round_and_the_server_averages(act: str, kind: str, mailbox: str) -> None:
    strategy = peers(mailbox=mailbox)
    found = run(strategy, 2 * MERGE, faulty(act, kind))
    assert same_model(found, plain(0))
    assert {(row["round"], row["device"]) for row in strategy.history if row["lost"]} == {(MERGE, 1)}
    assert [metric(strategy, "peers", round) for round in (MERGE, 2 * MERGE)] == [0, 3]


def test_a_mean_that_is_none_makes_the_server_average_and_nobody_is_lost() -> None:
    strategy = peers()
    assert same_model(run(strategy, 2 * MERGE, faulty("add", "garbage")), plain())
    assert metric(strategy, "peers") == 0
    assert not any(row["lost"] for row in strategy.history)


def test_a_device_whose_units_are_not_finite_any_more_is_the_only_one_lost() -> None:
    strategy = peers()
    assert same_model(run(strategy, 2 * MERGE, faulty("post", "diverge")), plain(0))
    assert ["finite" in str(row["lost"]) for row in strategy.history if row["lost"]] == [True]


def test_a_device_that_tells_the_server_another_mean_than_the_others_leaves_nobody_with_it() -> None:
    strategy = peers(planner=FixedCut(3))
    run(strategy, MERGE + 1, faulty("add", "lie"))
    # What the server was told is the model; all others see that what they got is not that, and begin from the server's.
    assert [metric(strategy, "peers"), metric(strategy, "peer_spared_bits", MERGE + 1)] == [
        3,
        metric(strategy, "peer_spared_bits"),
    ]
    assert not any(row["lost"] for row in strategy.history)


@pytest.mark.parametrize("kind", ["raise", "forget"])
def test_who_is_lost_when_all_is_added_has_its_part_in_the_model_and_gets_it_again(kind: str) -> None:
    strategy = peers()
    assert same_model(run(strategy, 2 * MERGE, faulty("gather", kind)), plain())
    assert metric(strategy, "peers") == 3
    assert not any(row["lost"] for row in strategy.history)


def test_a_device_lost_in_training_before_it_could_merge_leaves_the_average_to_the_server() -> None:
    strategy = peers()
    assert same_model(run(strategy, 2 * MERGE, faulty("train")), plain(0))
    assert [metric(strategy, "peers", round) for round in (MERGE, 2 * MERGE)] == [0, 3]


def test_who_has_lost_what_it_kept_says_so_and_loses_one_round() -> None:
    app = faulty("train", "forget", round=MERGE + 1)
    strategy = peers()
    assert same_model(run(strategy, 2 * MERGE, app), plain(1))
    assert ["has not kept" in str(row["lost"]) for row in strategy.history if row["lost"]] == [True]


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    def stop(round: int, arrays: ArrayRecord) -> None:
        if round == MERGE + 1:
            raise KeyboardInterrupt

    app = device_app()
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(app, 3) as grid, pytest.raises(KeyboardInterrupt):
            peers().start(grid, start(), 2 * MERGE, evaluate_fn=stop, run=folder)
        with LocalGrid(app, 3) as grid:
            resumed = peers().start(grid, start(), 2 * MERGE, run=folder, resume=True)
    assert resumed.arrays is not None
    assert same_model(resumed.arrays, plain())


def test_what_devices_merge_does_not_go_through_the_server_and_what_is_spared_is_counted() -> None:
    def counted(merge: str) -> tuple[Split, int]:
        bits = 0

        def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
            nonlocal bits
            bits += half_bits(message)
            reply = call_next(message, context)
            bits += half_bits(reply)
            return reply

        strategy = peers(planner=FixedCut(4), merge=merge)
        run(strategy, MERGE + 1, device_app(mods=[mod]))
        return strategy, bits

    (near, with_peers), (_, without) = counted("peers"), counted("server")
    spared = [metric(near, "peer_spared_bits", round) for round in (MERGE, MERGE + 1)]
    assert without - with_peers == sum(spared)
    # A merge spares a half up; the round after it one down, and as the last one of the run merges, one up as well.
    assert spared[1] == 2 * spared[0] > 0


def half_bits(message: Message) -> int:
    """Of arrays of the model."""
    record = message.content.array_records.get(HALF_RECORD, {})
    return 8 * sum(array.numpy().nbytes for array in record.values())


def test_through_a_relay_packets_cost_the_server_both_ways_and_in_shared_memory_only_the_means() -> None:
    relay, shared = (peers(planner=FixedCut(4), mailbox=mailbox) for mailbox in ("relay", "shared-memory"))
    for strategy in (relay, shared):
        run(strategy, MERGE)
    assert metric(relay, "peer_bits") == metric(shared, "peer_bits")
    means = metric(shared, "peer_server_bits")
    # Each of three means travels up once, and is relayed to two; shards travel up and down once.
    assert metric(relay, "peer_server_bits") == 2 * metric(shared, "peer_bits") - 4 * means + 3 * means


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strategy": FedMedian()}, "merge='peers' with strategy=FedMedian: .*leave strategy out"),
        ({"merge": "devices"}, "merge = 'devices': expected one of 'server', 'peers'"),
        ({"mailbox": "pigeon"}, "mailbox = 'pigeon': expected one of 'relay', 'shared-memory'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_say_instead(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        peers(**options)


def test_frames_over_channels_change_nothing_of_it() -> None:
    plane = StreamPlane(credentials=Insecure(), patience=Patience(silence_s=20.0, dial_s=20.0))
    strategy = peers(plane=plane)
    assert same_model(run(strategy, 2 * MERGE), plain())
    assert [metric(strategy, "peers", round) for round in (MERGE, 2 * MERGE)] == [3, 3]


def test_it_goes_inside_layers_on_a_virtual_clock_and_at_an_edge() -> None:
    with LocalGrid(device_app(), 3) as local:
        grid = VirtualClock(GridProxy(local), [Device(flops_per_s=1e5)] * 3, [Link(1e6, 1e6)] * 3)
        found = Layered(peers(), Metered()).start(grid, start(), 2 * MERGE).arrays
    assert found is not None
    assert same_model(found, plain())

    def ended(merge: str) -> ArrayRecord:
        def edge(cell: str) -> Split:
            return peers(planner=FixedCut(2), strategy=FedAvg(min_train_nodes=1, min_available_nodes=1), merge=merge)

        with LocalGrid(device_app(), 4) as grid:
            found = (
                Hierarchical(edge=edge, cells=blocks(2), edge_rounds=MERGE).start(GridProxy(grid), start(), 1).arrays
            )
        assert found is not None
        return found

    assert same_model(ended("peers"), ended("server"))
