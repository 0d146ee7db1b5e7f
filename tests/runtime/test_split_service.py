"""SplitService over real channels: who is admitted, what is answered, and what a broken device costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from flower_edge.clients.split_stream import converse
from flower_edge.errors import TransportError, TransportRefused
from flower_edge.runtime.splitting.channel import PURPOSE, exchanges, unpack_answer
from flower_edge.runtime.splitting.messages import SplitOrder
from flower_edge.runtime.splitting.service import Job, Patience, SplitService
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile
from flower_edge.transport.certificates import issue, make_authority
from flower_edge.transport.credentials import Insecure, ServerTls
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Connection, ConnectionClosed, Hello

SESSION = "a-session"
MODEL = ArchitectureSpec(name="none", input_shape=(6,), num_classes=3)
PROFILE = ModelProfile(
    tuple(UnitProfile(name, 0.0, 0.0) for name in ("head", "middle", "tail")),
    tuple(CutProfile(i, (shape,), (True,)) for i, shape in enumerate([(6,), (4,), (5,), (3,)])),
)
PATIENCE = Patience(silence_s=5.0, dial_s=5.0)


def work_of(number: int, **changes: Any) -> WorkOrder:
    return WorkOrder(round=2, number=number, architecture=MODEL, cut=1, steps=3, batch_size=4, **changes)


class Device:
    """Says activations of its own, takes the mean of what it hears as its state."""

    def __init__(self, work: WorkOrder) -> None:
        self.script = list(exchanges(work))
        self.work, self.heard, self.said = work, [], 0

    def next(self, incoming: Frame | None) -> Frame | None:
        if incoming is not None:
            self.heard.append(incoming)
        if self.said == len(self.script):
            return None
        one, self.said = self.script[self.said], self.said + 1
        return frame_of(self.work, one.asked, one.step)


def frame_of(work: WorkOrder, kind: Kind, step: int) -> Frame:
    width = 4 if kind in (Kind.ACTIVATIONS, Kind.GRADIENT) else 3
    x = np.random.default_rng([work.number, step]).normal(size=(4, width)).astype(np.float32)
    labels = np.zeros(4, np.int64) if kind is Kind.ACTIVATIONS and work.labels == "cloud" else None
    loss = 0.5 if kind is (Kind.GRADIENT if work.labels == "cloud" else Kind.OUTPUT_GRADIENT) else float("nan")
    return Frame(kind, step, (x,), labels, loss)


def answered(work: WorkOrder, told: list[tuple[int, int]] | None = None) -> Callable[[Frame], Frame]:
    kinds = {(one.asked, one.step): one.answered for one in exchanges(work)}

    def answer(frame: Frame) -> Frame:
        if told is not None:
            told.append((frame.step, work.number))
        return frame_of(work, kinds[frame.kind, frame.step], frame.step)

    return answer


def job_of(work: WorkOrder, told: list[tuple[int, int]] | None = None) -> Job:
    return Job(work, FrameCoder(work, PROFILE), answered(work, told))


def order_of(service: SplitService, work: WorkOrder, token: str, **changes: Any) -> SplitOrder:
    address = f"127.0.0.1:{service.port}"
    return SplitOrder(session=SESSION, work=work, plane="stream", address=address, token=token, **changes)


def dial(service: SplitService, work: WorkOrder, shown: str, **changes: Any) -> Connection:
    says = {"purpose": PURPOSE, "run": SESSION, "node": work.number, "token": shown, "data": {"round": work.round}}
    return GrpcTransport(Insecure()).dial(f"127.0.0.1:{service.port}", Hello(**(says | changes)))


@pytest.fixture
def service() -> Iterator[SplitService]:
    with SplitService(GrpcTransport(Insecure()), patience=PATIENCE) as made:
        yield made


@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_a_round_is_answered_frame_by_frame(service: SplitService, labels: Any) -> None:
    work = work_of(0, labels=labels)
    tokens = service.begin(SESSION, 2, {0: job_of(work)})
    device = Device(work)
    figures = converse(order_of(service, work, tokens[0]), device, FrameCoder(work, PROFILE))
    outcome = service.end([0])[0]
    expected = [frame_of(work, one.answered, one.step) for one in exchanges(work)]
    assert [frame.kind for frame in device.heard] == [frame.kind for frame in expected]
    for one, other in zip(device.heard, expected, strict=True):
        np.testing.assert_array_equal(one.tensors[0], other.tensors[0])
    assert (outcome.lost, outcome.steps) == ("", 3)
    assert (figures.up_bits, figures.down_bits) == (outcome.up_bits, outcome.down_bits)
    assert figures.exchanges == len(expected)
    assert figures.up_bits >= 8 * len(expected) * 4 * 3 * 4
    assert 0.0 < outcome.cloud_s <= figures.cloud_s
    assert figures.delay_s is not None
    assert figures.delay_s > 0.0


def test_tls_carries_the_same_and_another_authority_is_not_believed() -> None:
    authority, rogue = make_authority("test"), make_authority("rogue")
    pair = issue(authority, ["127.0.0.1"])
    work = work_of(0)
    with SplitService(GrpcTransport(ServerTls(pair.certificate_pem, pair.key_pem)), patience=PATIENCE) as service:
        tokens = service.begin(SESSION, 2, {0: job_of(work)})
        order = order_of(service, work, tokens[0], certificate=rogue.certificate_pem.decode())
        with pytest.raises(TransportError):
            converse(order, Device(work), FrameCoder(work, PROFILE), dial_s=5.0)
        order = order_of(service, work, tokens[0], certificate=authority.certificate_pem.decode())
        device = Device(work)
        converse(order, device, FrameCoder(work, PROFILE))
        assert service.end([0])[0].lost == ""
        assert len(device.heard) == 3


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": ""}, "bad-token"),
        ({"token": "fe1.e30.e30"}, "bad-token"),
        ({"node": 1}, "other-node"),
        ({"run": "another"}, "other-run"),
        ({"purpose": "fringe"}, "other-purpose"),
        ({"data": {"round": 1}}, "other-round"),
        ({"data": {}}, "other-round"),
    ],
)
def test_who_cannot_show_the_token_of_this_run_device_and_round_is_refused(
    service: SplitService, changes: dict[str, Any], code: str
) -> None:
    tokens = service.begin(SESSION, 2, {0: job_of(work_of(0)), 1: job_of(work_of(1))})
    with pytest.raises(TransportRefused) as refused:
        dial(service, work_of(0), tokens[0], **changes)
    assert refused.value.code == code
    # The real device is none the worse for it.
    converse(order_of(service, work_of(0), tokens[0]), Device(work_of(0)), FrameCoder(work_of(0), PROFILE))
    assert service.end([0])[0].lost == ""


def test_a_token_is_good_for_its_round_and_for_one_call(service: SplitService) -> None:
    work = work_of(0)
    with pytest.raises(TransportRefused) as refused:
        dial(service, work, "")
    assert refused.value.code == "no-round"
    old = service.begin(SESSION, 1, {0: job_of(work.model_copy(update={"round": 1}))})[0]
    new = service.begin(SESSION, 2, {0: job_of(work)})[0]
    with pytest.raises(TransportRefused) as refused:
        dial(service, work, old)
    assert refused.value.code == "other-purpose"
    with dial(service, work, new), pytest.raises(TransportRefused) as refused:
        dial(service, work, new)
    assert refused.value.code == "dialled-before"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "ends"),
        (b"\x00" * 300, "form"),
        (FrameCoder(work_of(0), PROFILE).encode(frame_of(work_of(0), Kind.ACTIVATIONS, 1)), "step"),
        (FrameCoder(work_of(0), PROFILE).encode(frame_of(work_of(0), Kind.GRADIENT, 0)), "kind"),
        (FrameCoder(work_of(7), PROFILE).encode(frame_of(work_of(7), Kind.ACTIVATIONS, 0)), "number"),
    ],
)
def test_garbage_ends_that_devices_round_and_no_others(service: SplitService, said: bytes, why: str) -> None:
    works = {number: work_of(number) for number in (0, 1)}
    tokens = service.begin(SESSION, 2, {number: job_of(work) for number, work in works.items()})
    with dial(service, works[0], tokens[0]) as connection:
        connection.send(said)
        with pytest.raises(TransportRefused) as refused:
            connection.receive(5.0)
        assert refused.value.code == "lost"
    converse(order_of(service, works[1], tokens[1]), Device(works[1]), FrameCoder(works[1], PROFILE))
    outcomes = service.end([1])
    assert "ProtocolError" in outcomes[0].lost
    assert why in outcomes[0].lost or why == "ends"
    assert (outcomes[1].lost, outcomes[1].steps) == ("", 3)


def test_an_answer_that_cannot_be_computed_costs_that_device_its_round(service: SplitService) -> None:
    work = work_of(0)

    def answer(frame: Frame) -> Frame:
        raise RuntimeError("shapes do not fit")

    tokens = service.begin(SESSION, 2, {0: Job(work, FrameCoder(work, PROFILE), answer)})
    with pytest.raises(TransportRefused, match="could not answer"):
        converse(order_of(service, work, tokens[0]), Device(work), FrameCoder(work, PROFILE))
    assert service.end([0])[0].lost == "RuntimeError: shapes do not fit"


def test_a_device_that_hangs_up_or_never_dials_is_lost() -> None:
    with SplitService(GrpcTransport(Insecure()), patience=PATIENCE) as service:
        works = {number: work_of(number) for number in (0, 1)}
        tokens = service.begin(SESSION, 2, {number: job_of(work) for number, work in works.items()})
        with dial(service, works[0], tokens[0]) as connection:
            connection.send(FrameCoder(works[0], PROFILE).encode(frame_of(works[0], Kind.ACTIVATIONS, 0)))
            busy_s, _ = unpack_answer(connection.receive(5.0))
            assert busy_s > 0.0
        outcomes = service.end([])
        assert "Closed" in outcomes[0].lost
        assert outcomes[0].steps == 1
        assert outcomes[1].lost == "it did not dial"


def test_a_silent_device_is_given_up() -> None:
    with SplitService(GrpcTransport(Insecure()), patience=Patience(silence_s=0.2)) as service:
        work = work_of(0)
        tokens = service.begin(SESSION, 2, {0: job_of(work)})
        with dial(service, work, tokens[0]) as connection, pytest.raises(TransportRefused):
            connection.receive(5.0)
        assert "Timeout" in service.end([0])[0].lost


def test_ending_a_round_hangs_up_on_who_is_not_done(service: SplitService) -> None:
    work = work_of(0)
    tokens = service.begin(SESSION, 2, {0: job_of(work)})
    with dial(service, work, tokens[0]) as connection:
        connection.send(FrameCoder(work, PROFILE).encode(frame_of(work, Kind.ACTIVATIONS, 0)))
        connection.receive(5.0)
        began_s = time.monotonic()
        assert service.end([])[0].lost != ""
        with pytest.raises((ConnectionClosed, TransportRefused)):
            connection.receive(5.0)
        assert time.monotonic() - began_s < 8.0
    with pytest.raises(TransportRefused) as refused:
        dial(service, work, tokens[0])
    assert refused.value.code == "no-round"


def test_one_half_for_all_is_trained_in_the_order_of_step_and_number(service: SplitService) -> None:
    works = {number: work_of(number) for number in (0, 1, 4)}
    told: list[tuple[int, int]] = []
    tokens = service.begin(SESSION, 2, {number: job_of(work, told) for number, work in works.items()}, shared=True)

    def run(number: int) -> None:
        work = works[number]
        converse(order_of(service, work, tokens[number]), Device(work), FrameCoder(work, PROFILE))

    threads = [threading.Thread(target=run, args=(number,)) for number in (4, 0, 1)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join(30.0)
    outcomes = service.end([0, 1, 4])
    assert [outcome.lost for outcome in outcomes.values()] == ["", "", ""]
    assert told == [(step, number) for step in range(3) for number in (0, 1, 4)]


def test_who_does_not_dial_in_time_is_left_behind_with_a_hint() -> None:
    works = {number: work_of(number) for number in (0, 1)}
    told: list[tuple[int, int]] = []
    with SplitService(GrpcTransport(Insecure()), patience=Patience(silence_s=5.0, dial_s=0.2)) as service:
        tokens = service.begin(SESSION, 2, {number: job_of(work, told) for number, work in works.items()}, shared=True)
        converse(order_of(service, works[1], tokens[1]), Device(works[1]), FrameCoder(works[1], PROFILE))
        with pytest.raises(TransportRefused, match="came too late"):
            dial(service, works[0], tokens[0])
        outcomes = service.end([1])
    assert "LocalGrid(pool='threads'" in outcomes[0].lost
    assert outcomes[1].lost == ""
    assert told == [(0, 1), (1, 1), (2, 1)]


def test_a_device_lost_in_mid_round_is_not_waited_for_by_the_others(service: SplitService) -> None:
    works = {number: work_of(number) for number in (0, 1)}
    told: list[tuple[int, int]] = []
    tokens = service.begin(SESSION, 2, {number: job_of(work, told) for number, work in works.items()}, shared=True)

    def quits() -> None:
        with dial(service, works[0], tokens[0]) as connection:
            connection.send(FrameCoder(works[0], PROFILE).encode(frame_of(works[0], Kind.ACTIVATIONS, 0)))
            connection.receive(5.0)

    thread = threading.Thread(target=quits)
    thread.start()
    converse(order_of(service, works[1], tokens[1]), Device(works[1]), FrameCoder(works[1], PROFILE))
    thread.join(30.0)
    outcomes = service.end([1])
    assert outcomes[0].lost
    assert (outcomes[1].lost, outcomes[1].steps) == ("", 3)
    assert told == [(0, 0), (0, 1), (1, 1), (2, 1)]


def test_a_reservation_holds_a_device_back_and_lateness_is_counted(service: SplitService) -> None:
    work = work_of(0)
    coder = FrameCoder(work, PROFILE)
    tokens = service.begin(SESSION, 2, {0: job_of(work)})
    bits = 8 * len(coder.encode(frame_of(work, Kind.ACTIVATIONS, 0)))
    order = order_of(service, work, tokens[0], up_bps=bits / 0.05, transfer_s=1e-6)
    figures = converse(order, Device(work), coder)
    # The first message finds an idle channel; those after it wait until the one before is paid for.
    assert figures.transfer_s >= 0.09
    assert figures.late == 3
    assert figures.worst_s <= figures.transfer_s


def test_a_service_that_does_not_listen_says_so() -> None:
    service = SplitService(GrpcTransport(Insecure()))
    with pytest.raises(TransportError, match=r"call open\(\) first"):
        _ = service.port
    service.open()
    assert service.port > 0
    service.close()
    service.close()
