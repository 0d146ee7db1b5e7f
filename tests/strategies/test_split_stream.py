"""Split over channels: the same models as with frames in messages, whoever is late, lost or unwanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Result
from split_toy import MODELS, SPEC, STEPS, UNITS, device_app, fedavg, number_of, samples, split, start
from toy import same_model

from flower_edge.codecs.affine import Affine
from flower_edge.codecs.block import Block
from flower_edge.errors import ConfigError, SplitError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.splitting.channel import exchanges, unpack_answer
from flower_edge.runtime.splitting.messages import HALF_RECORD, SPLIT_RECORD, SplitOrder
from flower_edge.runtime.splitting.relay import SplitRelay
from flower_edge.runtime.splitting.service import Patience
from flower_edge.splitting.architecture import build
from flower_edge.splitting.conversation_torch import DeviceWork
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.plan import Assignment, DeviceView, Plan
from flower_edge.splitting.planner import FixedCut, Scheduled
from flower_edge.splitting.profile import ModelProfile
from flower_edge.strategies.splitting.plane import Plane
from flower_edge.strategies.splitting.split import Split
from flower_edge.strategies.splitting.stream_plane import Edge, StreamPlane
from flower_edge.transport.certificates import issue, make_authority
from flower_edge.transport.credentials import Insecure, ServerTls, TrustServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Hello
from flower_edge.wire import arrays_of

#: Cuts that differ by device and by round; in one of them a device has the whole model.
CUTS = Scheduled(((1, 3, 2), (4, UNITS, 1)))
PATIENCE = Patience(silence_s=20.0, dial_s=20.0)


def stream(**options: Any) -> StreamPlane:
    return StreamPlane(**{"credentials": Insecure(), "patience": PATIENCE, **options})


@cache
def devices() -> ClientApp:
    """One app for all tests: it keeps no more than models that were built."""
    return device_app()


def trained(
    plane: Plane | None,
    *,
    rounds: int = 4,
    app: Callable[[], Any] = devices,
    pool: Any = "sequential",
    **options: Any,
) -> tuple[ArrayRecord, Split]:
    strategy = split(**{"planner": CUTS, "plane": plane, **options})
    begin = start()
    if "architecture" in options:  # dropout stands before the last layer, which is called otherwise then
        begin = ArrayRecord({name.replace("5.", "6."): array for name, array in begin.items()})
    with LocalGrid(app(), nodes=3, pool=pool, workers=3, serialise=True) as grid:
        result: Result = strategy.start(grid, begin, num_rounds=rounds)
    return result.arrays, strategy


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": "device", "planner": Scheduled(((1, 3, 2), (4, 2, 1)))},
        {"labels": "device", "tail": 1, "planner": FixedCut(2)},
        {"up": Affine(4).config(), "down": Block(8).config()},
        {"architecture": SPEC.model_copy(update={"options": {"drop": 0.4}}), "planner": FixedCut(5)},
    ],
    ids=["plain", "u-shape", "tail", "quantised", "dropout"],
)
def test_streamed_and_message_planes_give_equal_models(options: dict[str, Any]) -> None:
    streamed, over = trained(stream(), **options)
    messages, inside = trained(None, **options)
    assert same_model(streamed, messages)
    for key in ("cut", "up_bits", "down_bits", "steps", "lost"):
        assert [row[key] for row in over.history] == [row[key] for row in inside.history]
    assert {row["lost"] for row in over.history} == {""}


def test_over_tls_it_equals_plain_federated_averaging() -> None:
    streamed, strategy = trained(StreamPlane(patience=PATIENCE), rounds=4)
    assert same_model(streamed, fedavg(2))
    divided = [row for row in strategy.history if row["cut"] != UNITS]
    assert all(row["transfer_s"] > 0.0 and row["cloud_s"] > 0.0 for row in divided)


@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_one_half_for_all_gives_the_model_of_the_message_plane(labels: Any) -> None:
    options: dict[str, Any] = {"variant": "v2", "labels": labels, "planner": Scheduled(((1, 3, 2),))}
    messages, _ = trained(None, **options)
    streamed, _ = trained(stream(), pool="threads", **options)
    assert same_model(streamed, messages)


def test_one_half_for_all_needs_devices_that_run_at_the_same_time() -> None:
    hurried = Patience(silence_s=20.0, dial_s=0.2)
    _, strategy = trained(stream(patience=hurried), rounds=1, variant="v2", planner=FixedCut(2))
    lost = {row["device"]: row["lost"] for row in strategy.history}
    assert lost[0] == ""
    assert all("dialled-before" in lost[number] or "came too late" in lost[number] for number in (1, 2))


class Quits(ClientApp):
    """Devices of which one breaks in the first round: after `batches` of it over a channel, or at once."""

    def __init__(self, number: int, batches: int) -> None:
        super().__init__()
        self.inner, self.number, self.batches = devices(), number, batches

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train.split" or number_of(context) != self.number:
            return self.inner(message, context)
        records = message.content
        order = SplitOrder.read(records.config_records[SPLIT_RECORD], sender="the test")
        if order.work.round != 1:
            return self.inner(message, context)
        if self.batches:
            model = build(order.work.architecture, models=MODELS)
            coder = FrameCoder(order.work, model.profile())
            half = arrays_of(records.array_records[HALF_RECORD])
            work = DeviceWork(order.work, model, *samples(self.number), half, {})
            hello = Hello(purpose="split", run=order.session, node=self.number, token=order.token, data={"round": 1})
            with GrpcTransport(Insecure()).dial(order.address, hello) as connection:
                heard = None
                for one in list(exchanges(order.work))[: self.batches]:
                    said = work.next(heard)
                    assert said is not None
                    connection.send(coder.encode(said))
                    _, answer = unpack_answer(connection.receive())
                    heard = coder.decode(answer, one.answered, one.step)
        raise RuntimeError("no power")


def test_a_device_that_disappears_in_mid_round_costs_its_batches_only() -> None:
    streamed, over = trained(stream(), app=lambda: Quits(1, batches=1), planner=FixedCut(2))
    messages, inside = trained(None, app=lambda: Quits(1, batches=0), planner=FixedCut(2))
    for strategy in (over, inside):
        lost = {(row["round"], row["device"]) for row in strategy.history if row["lost"]}
        assert lost == {(1, 1)}
    # In the next round it goes on from where it was, and the others notice nothing.
    assert same_model(streamed, messages)
    assert not same_model(streamed, trained(stream(), planner=FixedCut(2))[0])


@dataclass(frozen=True)
class Reserving:
    """Cut 2 for all, with these reservations."""

    up_bps: float | None = None
    down_bps: float | None = None

    def plan(self, profile: ModelProfile, devices: Mapping[int, DeviceView], round: int) -> Plan:
        part = Assignment(2, up_bps=self.up_bps, down_bps=self.down_bps)
        return Plan(dict.fromkeys(devices, part), True, "reserved")


def test_a_reservation_is_kept_both_ways() -> None:
    app = partial(device_app, modelled=False)
    free, before = trained(stream(pace=False), rounds=1, app=app, planner=Reserving(2e4, 2e4))
    for reserved in (Reserving(up_bps=2e4), Reserving(down_bps=2e4)):
        paced, strategy = trained(stream(), rounds=1, app=app, planner=reserved)
        assert same_model(paced, free)
        for row, other in zip(strategy.history, before.history, strict=True):
            bits = row["up_bits" if reserved.up_bps else "down_bits"]
            assert row["transfer_s"] >= 0.9 * bits / STEPS / 2e4 > other["transfer_s"]


def test_times_of_a_modelled_link_are_those_of_the_message_plane() -> None:
    planner = Reserving(5e5, 4e5)
    _, over = trained(stream(pace=False), rounds=2, planner=planner)
    _, inside = trained(None, rounds=2, planner=planner)
    # Nothing is reserved with pace=False: the link itself gives 1 and 2 Mbit/s, and 1 ms each way.
    for row in over.history:
        assert row["transfer_s"] == pytest.approx((row["up_bits"] / 1e6 + row["down_bits"] / 2e6) / STEPS + 0.002)
    for row in inside.history:
        assert row["transfer_s"] == pytest.approx((row["up_bits"] / 5e5 + row["down_bits"] / 4e5) / STEPS + 0.002)
    for key in ("compute_s", "late"):
        assert [row[key] for row in over.history] == [row[key] for row in inside.history]


def test_what_a_link_gave_of_a_reservation_is_remembered() -> None:
    for reserved, kept in ((Reserving(5e5, 4e5), 1.0), (Reserving(2e6, 4e6), 0.5)):
        _, strategy = trained(None, rounds=2, planner=reserved)
        for history in strategy._federation.records.histories.values():
            assert history.kept == pytest.approx((kept, kept))


@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_three_machines_train_what_two_do(labels: Any) -> None:
    cloud, edge = make_authority("cloud"), make_authority("edge")
    own, relayed = issue(cloud, ["127.0.0.1"]), issue(edge, ["127.0.0.1"])
    plane = StreamPlane(
        port=0,
        credentials=ServerTls(own.certificate_pem, own.key_pem),
        authority=cloud.certificate_pem,
        patience=PATIENCE,
        models=MODELS,
    )
    plane.open()
    relay = SplitRelay(
        GrpcTransport(ServerTls(relayed.certificate_pem, relayed.key_pem)),
        "127.0.0.1",
        0,
        GrpcTransport(TrustServer(cloud.certificate_pem)),
        plane.address,
        models=MODELS,
    )
    with relay:
        plane.edges = Edge(f"127.0.0.1:{relay.port}", stop=3, authority=edge.certificate_pem)
        # The second device's cut lies behind the edge's units in one round: then it dials the cloud itself.
        cuts = Scheduled(((1, 2, 1), (2, 4, 1)))
        three, strategy = trained(plane, planner=cuts, labels=labels)
    two, _ = trained(stream(), planner=cuts, labels=labels)
    assert {row["lost"] for row in strategy.history} == {""}
    assert same_model(three, two)


def test_an_edge_that_is_not_there_costs_its_devices_and_no_others() -> None:
    edges = {1: Edge("127.0.0.1:9", stop=3)}
    _, strategy = trained(stream(edges=edges, models=MODELS), rounds=1, planner=FixedCut(1))
    lost = {row["device"]: bool(row["lost"]) for row in strategy.history}
    assert lost == {0: False, 1: True, 2: False}


def test_a_token_does_not_let_a_device_pass_by_its_edge() -> None:
    plane = stream(models=MODELS)
    plane.open()
    # What it dials as its edge is the cloud itself.
    plane.edges = Edge(plane.address, stop=3)
    _, strategy = trained(plane, rounds=1, planner=Scheduled(((1, 4, 4),)))
    lost = {row["device"]: row["lost"] for row in strategy.history}
    assert "through its edge" in lost[0]
    assert lost[1] == lost[2] == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "address='cloud.example'"),
        ({"address": "cloud:99999"}, "expected host:port"),
        ({"authority": b"pem"}, "belong together"),
        ({"credentials": ServerTls(b"", b"")}, "belong together"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        StreamPlane(**options)


def test_an_edge_must_leave_something_to_the_cloud() -> None:
    with pytest.raises(SplitError, match="stop = 5"):
        trained(stream(edges=Edge("127.0.0.1:9", stop=UNITS), models=MODELS), rounds=1, planner=FixedCut(1))
    with pytest.raises(ConfigError, match="use v1"):
        trained(stream(edges=Edge("127.0.0.1:9", stop=2)), rounds=1, planner=FixedCut(1), variant="v2")


def test_the_address_is_what_devices_can_dial() -> None:
    plane = stream(host="127.0.0.1", address="localhost")
    plane.open()
    assert plane.address.startswith("localhost:")
    plane.close()
    outside = stream(address="10.1.2.3:777")
    outside.open()
    assert outside.address == "10.1.2.3:777"
    outside.close()
