"""Whoever is let in may still be broken or lie: stages, clients and controllers hold, and say what was wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stage_cases import TRANSPORT, pipeline, samples, served, wait_until
from torch import fx, nn

from flower_edge.errors import FringeError, NotServed, SwapRefused, TransportError, TransportRefused
from flower_edge.fringe import distribute
from flower_edge.fringe.links import LinkEstimate
from flower_edge.fringe.wire import unchecked_head
from flower_edge.runtime.fringe import replies
from flower_edge.runtime.fringe.channels import RequestChannel
from flower_edge.runtime.fringe.controls import Controls
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.jobs import Batch, Job, Jobs
from flower_edge.runtime.fringe.messages import (
    CONTROL,
    REQUESTS,
    Answer,
    Failed,
    Output,
    Received,
    input_wire,
    pack_answer,
    pack_tree,
    unpack_answer,
    unpack_tree,
)
from flower_edge.runtime.fringe.onward import Onward, _Timed
from flower_edge.runtime.fringe.replies import Replies
from flower_edge.runtime.fringe.settings import ServingLimits
from flower_edge.runtime.fringe.stage import StageServer, hello_for
from flower_edge.runtime.fringe.versions import Held
from flower_edge.transport import GrpcTransport, Insecure, Limits
from flower_edge.transport.transport import Connection, ConnectionClosed, TransportTimeout

ONE = ServingLimits(batch_samples=1)
SECRET = b"sixteen bytes and more"


@contextmanager
def other_end(
    handler: Callable[[Connection], None], dialling: GrpcTransport = TRANSPORT
) -> Iterator[Callable[[], Any]]:
    """What dials a server that does as the handler says."""
    with TRANSPORT.serve("127.0.0.1", 0, lambda hello, peer: handler) as server:
        yield lambda: dialling.dial(f"127.0.0.1:{server.port}", hello_for("pipeline", REQUESTS, None, "camera"))


def answering(answer: Callable[[int], Answer]) -> Callable[[Connection], None]:
    def handler(connection: Connection) -> None:
        while True:
            connection.send(pack_answer(answer(unchecked_head(connection.receive(60)).request)))

    return handler


# -- links ----------------------------------------------------------------------------------------------------------


def nobody() -> Connection:
    raise TransportError("nobody is there")


def test_who_claims_to_have_had_a_frame_before_it_was_sent_says_nothing_of_the_link() -> None:
    way = Onward("gateway", "127.0.0.1:1", nobody, ServingLimits())
    try:
        way._unmeasured[1] = _Timed(1000, 100.0, False)
        way._arrived(1, 100.5, 4000.0)
        assert way.measures()["estimate"] == LinkEstimate().state()
        way._unmeasured[2] = _Timed(1000, 100.0, False)
        way._arrived(2, 100.5, 0.5)  # the most that can be claimed
        assert way._estimate.link.goodput_bps == pytest.approx(1e12)
        for number in range(3, 9):
            way._unmeasured[number] = _Timed(1000, 100.0 + number, False)
            way._arrived(number, 100.008 + number)
        assert way._estimate.link.goodput_bps < 1.3e6  # of 1 Mbit/s
    finally:
        way.close()


@pytest.mark.parametrize(
    "change", [{"bits": "many"}, {"busy_s": float("nan")}, {"delay_s": -1.0}, {"busy_s": 0.0}, {"transfers": 1e400}]
)
def test_estimates_that_no_measurement_gives_are_refused(change: dict[str, Any]) -> None:
    state = LinkEstimate().sent(1000, 0.01).state() | change
    with pytest.raises(FringeError, match=r"expected a finite number|state of a link"):
        LinkEstimate.from_state(state)


@pytest.mark.parametrize("said", [None, {"onward": 3}, {"onward": [{"to": "cloud"}]}, {"onward": [3]}, 7])
def test_a_stage_that_says_something_else_than_statistics_is_named(said: object) -> None:
    def handler(connection: Connection) -> None:
        while True:
            connection.receive(60)
            connection.send(pack_tree({"said": said, "error": None}))

    with other_end(handler) as dial:
        controls = Controls(("camera", "cloud"), lambda machine, purpose: dial(), 10.0)
        with pytest.raises(FringeError, match="machine 'camera' says"):
            controls.links()
        controls.close()


# -- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda request: Received(request), "that it has arrived"),
        (lambda request: Output(request, 1, b""), "cannot be read"),
        (lambda request: Output(request, 1, b"no tensor"), "cannot be read"),
        (lambda request: Output.of(request, 1, np.zeros((3, 2), np.float32)), "3 samples to 2"),
    ],
)
def test_an_answer_that_cannot_be_fails_its_request(answer: Callable[[int], Answer], why: str) -> None:
    with other_end(answering(answer)) as dial:
        channel = RequestChannel("camera", dial)
        future = channel.ask(input_wire((6,), "float32"), samples(2).numpy())
        with pytest.raises(NotServed, match=why) as failed:
            future.result(30)
        assert failed.value.code == "failed"
        channel.close()


def batch(way: Onward, told: list[Answer], number: int = 5) -> Batch:
    made = pipeline()
    held = Held(number, made.parts[0], made.wires[0], made.wires[0], way, "")
    return Batch(held, [Job(1, (samples(1).numpy(),), told.append)], lambda *_: None)


def crossing() -> list[np.ndarray]:
    spec = pipeline().wires[0].specs[0]
    return [np.zeros((1, *spec.shape), np.float32)]


def test_a_machine_that_answers_with_another_version_has_failed() -> None:
    told: list[Answer] = []
    with other_end(answering(lambda request: Output.of(request, 4, np.zeros((1, 3), np.float32)))) as dial:
        way = Onward("cloud", "127.0.0.1:1", dial, ServingLimits())
        way.send(batch(way, told), crossing())
        wait_until(lambda: told)
        way.close()
    assert isinstance(told[0], Failed)
    assert told[0].message.startswith("answered with version 4 to one of 5")


def test_what_is_never_said_to_have_arrived_is_forgotten_after_a_while() -> None:
    told: list[Answer] = []
    with other_end(answering(lambda request: Output.of(request, 5, np.zeros((1, 3), np.float32)))) as dial:
        way = Onward("cloud", "127.0.0.1:1", dial, ServingLimits(answer_s=0.2))
        way.send(batch(way, told), crossing())
        wait_until(lambda: told)
        assert isinstance(told[0], Output)
        assert len(way._unmeasured) == 1
        wait_until(lambda: not way._unmeasured)
        way.close()


def test_what_was_under_way_on_a_channel_that_broke_fails_at_once_though_another_is_open() -> None:
    told: list[Answer] = []
    silent = threading.Event()

    def handler(connection: Connection) -> None:
        connection.receive(60)
        silent.wait(60)

    with other_end(handler) as dial:
        way = Onward("cloud", "127.0.0.1:1", dial, ServingLimits(answer_s=60.0))
        way.send(batch(way, told), crossing())
        first = way._connection
        assert first is not None
        way._connection = None  # as a sender does that finds it broken
        way.send(batch(way, told), crossing())
        way._fail_all("lost", "is gone", first)
        assert [one.code for one in told if isinstance(one, Failed)] == ["lost"]
        assert len(way._sent) == 1
        silent.set()
        way.close()


def test_an_answer_that_is_too_large_to_be_taken_is_said_to_be() -> None:
    def handler(connection: Connection) -> None:
        reply = Replies("camera", connection, lambda: 60.0)
        reply(Output(1, 2, bytes(100_000)))
        reply(Output(2, 2, b"small"))
        connection.receive(60)

    with (
        other_end(handler, GrpcTransport(Insecure(), Limits(message_bytes=1 << 16))) as dial,
        dial() as connection,
    ):
        failed, small = (unpack_answer(connection.receive(30)) for _ in range(2))
        assert isinstance(failed, Failed)
        assert (failed.request, failed.code) == (1, "failed")
        assert small == Output(2, 2, b"small")


def test_who_takes_no_answers_holds_up_the_others_once_and_loses_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_REPLY_S", 0.2)
    taken_s: list[float] = []

    def handler(connection: Connection) -> None:
        connection.receive(60)  # not before the other end has dialled: it pings then
        reply, began_s = Replies("camera", connection, lambda: 60.0), time.monotonic()
        for number in range(200):
            reply(Output(number, 1, bytes(60_000)))
        taken_s.append(time.monotonic() - began_s)
        connection.receive(60)

    with (
        other_end(handler, GrpcTransport(Insecure(), Limits(message_bytes=1 << 16))) as dial,
        dial() as connection,
    ):
        connection.send(b"go on")
        wait_until(lambda: taken_s)
        assert taken_s[0] < 10  # 200 times 0.2 s would be 40
        came = 0
        # On a busy machine it is silent before it is seen to be closed.
        with suppress(ConnectionClosed, TransportTimeout):
            while came < 200:
                connection.receive(30)
                came += 1
        assert came < 200


# -- what is asked of a stage ---------------------------------------------------------------------------------------


def test_kept_inputs_and_all_control_are_only_for_who_has_the_secret() -> None:
    with StageServer("camera", TRANSPORT, secret=SECRET, limits=ServingLimits(keep_inputs=5)) as stage:
        address = f"127.0.0.1:{stage.port}"
        requests = hello_for("pipeline", REQUESTS, SECRET, "camera")
        for hello in (
            hello_for("pipeline", CONTROL, None, "camera"),
            hello_for("pipeline", CONTROL, b"another secret, just as long", "camera"),
            requests.model_copy(update={"purpose": CONTROL}),  # a token of a channel for requests
        ):
            with pytest.raises(TransportRefused) as refused:
                TRANSPORT.dial(address, hello)
            assert refused.value.code in ("bad-token", "other-purpose")


def test_whatever_is_asked_of_a_stage_it_answers_and_serves_on() -> None:
    with served(limits=ONE) as (deployment, stages):
        deployment.deploy(pipeline())
        address = f"127.0.0.1:{stages['camera'].port}"
        order, _ = deployment._orders(pipeline(1))["camera"]
        with TRANSPORT.dial(address, hello_for("pipeline", CONTROL, None, "camera")) as connection:
            for ask, why in (
                ({"ask": ["load"]}, "expected one of load, flip"),
                ({}, "expected one of load, flip"),
                ({"ask": "flip", "version": True}, "expected a whole number"),
                ({"ask": "drain", "version": 1, "timeout_s": float("inf")}, "timeout_s = inf"),
                ({"ask": "drain", "version": 1, "timeout_s": "long"}, "timeout_s = 'long'"),
                ({"ask": "drop", "version": 1}, "version 1 is served"),
                ({"ask": "load", "version": 7, "part": 3}, "a part of"),
                ({**order, "next": {"machine": "x", "address": "127.0.0.1:1", "behind": 10**9}}, "0 to 1000"),
                ({**order, "next": {"machine": "x", "address": "nowhere", "behind": 0}}, "nowhere"),
            ):
                connection.send(pack_tree(ask))
                answer = unpack_tree(connection.receive(30))
                assert answer["said"] is None
                assert why in answer["error"]
        assert deployment.infer(samples(1).numpy()).shape == (1, 3)
        assert stages["camera"]._versions.numbers == (1,)


def test_what_waits_is_bounded_in_bytes_too() -> None:
    def job(size: int) -> Job:
        return Job(1, (np.zeros((1, size), np.uint8),), lambda _: None)

    jobs = Jobs(10, most_bytes=100)
    assert jobs.put(job(1000), wait=False)  # larger by itself: alone
    assert not jobs.put(job(1), wait=False)
    jobs.take(1, 0.0)
    assert jobs.put(job(60), wait=False)
    assert not jobs.put(job(41), wait=False)
    assert jobs.put(job(40), wait=False)


def test_ways_that_no_version_takes_any_more_end() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).eval()
    made = distribute(model, torch.zeros(2, 6), ["camera", "cloud"], ["0"])
    with served(("camera", "cloud"), limits=ONE) as (first, stages):
        first.deploy(made)
        addresses = {name: f"127.0.0.1:{stage.port}" for name, stage in stages.items()}
        for number, host in enumerate(("localhost", "127.0.0.1", "localhost")):
            with Deployment(addresses, TRANSPORT, via={"cloud": f"{host}:{stages['cloud'].port}"}) as new:
                new.deploy(made.formed({}))
                new.infer(samples(1).numpy())
            assert [one["to"] for one in stages["camera"].statistics()["onward"]] == ["cloud"], number


def test_a_part_that_does_not_keep_its_batch_is_refused() -> None:
    graph = fx.Graph()
    graph.output((graph.call_method("sum", (graph.placeholder("x"), 0, True)),))
    alone = distribute(nn.Linear(6, 3), torch.zeros(2, 6), ["only"], [])
    made = replace(alone, parts=(replace(alone.parts[0], module=fx.GraphModule({}, graph)),))
    with served(("only",)) as (deployment, _), pytest.raises(SwapRefused, match="gives 1 samples for 2"):
        deployment.deploy(made)


def test_a_part_that_gives_other_rows_than_it_was_given_fails_requests_and_nothing_waits_for_ever() -> None:
    made = distribute(nn.Linear(6, 3).eval(), torch.zeros(2, 6), ["only"], [])
    with served(("only",), limits=ServingLimits(batch_samples=4, batch_wait_s=30.0)) as (deployment, stages):
        swap = deployment.deploy(made)
        held = stages["only"]._versions.get(swap.version)
        assert held is not None
        held.part.module.register_forward_hook(lambda module, given, out: (out[0][:1],))
        futures = [deployment.ask(samples(2).numpy()) for _ in range(2)]
        for future in futures:
            with pytest.raises(NotServed, match="an answer of 1 samples to 4"):
                future.result(30)
        assert stages["only"].statistics()["under_way"] == 0
