"""Requests that carry nothing take the way of a request, count for nothing, and are what the model lacked."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stage_cases import MACHINES, pipeline, samples, served, wait_until

from flower_edge.errors import FringeError, NotServed, ProtocolError
from flower_edge.fringe import Link, WireForm, inference
from flower_edge.fringe.wire import HEADER_BYTES, TensorSpec, Wire
from flower_edge.runtime.fringe.incoming import tensors_of
from flower_edge.runtime.fringe.messages import Output, Received, pack_answer, unpack_answer
from flower_edge.runtime.fringe.modelled import computing_s, modelled
from flower_edge.runtime.fringe.settings import ServingLimits

ONE_EACH = ServingLimits(batch_samples=1)


def test_a_request_that_carries_nothing_goes_all_the_way_and_is_counted_nowhere() -> None:
    made = pipeline()
    with served(limits=ONE_EACH) as (deployment, _):
        deployment.deploy(made)
        assert deployment.null_s(5) > 0
        for said in deployment.statistics().values():
            assert [said[name] for name in ("requests", "served", "failed", "refused")] == [0, 0, 0, 0]
            assert said["compute"]["count"] == said["latency"]["count"] == 0
            assert all(way["frames"] == way["bytes"] == way["estimate"]["transfers"] == 0 for way in said["onward"])
        # It went through: the channels between the machines are there.
        assert [len(said["onward"]) for said in deployment.statistics().values()] == [1, 1, 0]
        assert np.array_equal(deployment.infer(samples(2).numpy()), made.run(samples(2)).numpy())


def test_requests_that_carry_nothing_disturb_no_batch() -> None:
    made = pipeline()
    wire_of = ServingLimits(batch_samples=4, batch_wait_s=0.05)
    with served(limits=wire_of) as (deployment, _):
        deployment.deploy(made)
        stop = threading.Event()

        def nothing() -> None:
            while not stop.is_set():
                deployment.null_s(1)

        beside = threading.Thread(target=nothing)
        beside.start()
        futures = [deployment.ask(samples(1, seed).numpy()) for seed in range(12)]
        given_back = [future.result(120).output for future in futures]
        stop.set()
        beside.join(120)
        for seed, output in enumerate(given_back):
            assert np.allclose(output, made.run(samples(1, seed)).numpy(), atol=1e-6)
        assert deployment.statistics()["camera"]["served"] == 12


def test_a_request_that_carries_nothing_says_which_machine_is_gone() -> None:
    with served(limits=ONE_EACH) as (deployment, stages):
        deployment.deploy(pipeline())
        stages["gateway"].close()
        with pytest.raises(NotServed, match="'gateway'"):
            deployment.null_s(1)


def test_nothing_can_be_measured_before_something_is_deployed() -> None:
    with served() as (deployment, _):
        with pytest.raises(FringeError, match="deploy"):
            deployment.null_s()
        deployment.deploy(pipeline())
        with pytest.raises(FringeError, match="1 or more"):
            deployment.null_s(0)
        with pytest.raises(FringeError, match="'camera' has computed nothing of version 1 yet; ask it"):
            computing_s(deployment)


def test_the_model_is_the_sum_of_what_was_measured() -> None:
    made = pipeline()
    links = [Link(1e6, 0.010), Link(2e6, 0.005)]
    with served(limits=ONE_EACH) as (deployment, _):
        deployment.deploy(made)
        deployment.infer(samples(1).numpy())
        wait_until(lambda: all(link.transfers for link in deployment.links()))
        one = modelled(deployment, links=links, null_s=0.040)
        assert one.compute_s == computing_s(deployment)
        assert len(one.compute_s) == len(MACHINES)
        sent_s = math.fsum(8 * c.size_bytes / link.goodput_bps for c, link in zip(made.connections, links, strict=True))
        assert one.latency_s == pytest.approx(sum(one.compute_s) + sent_s + 0.040)
        assert one.rest_s == pytest.approx(0.025)
        assert modelled(deployment, requests=3).latency_s > 0


def test_what_is_computed_is_told_of_each_version_by_itself() -> None:
    made = pipeline()
    with served(limits=ONE_EACH) as (deployment, _):
        deployment.deploy(made)
        deployment.infer(samples(1).numpy())
        deployment.swap(made.formed({0: WireForm(8), 1: WireForm(8)}))
        for _ in range(2):
            deployment.infer(samples(1).numpy())
        for said in deployment.statistics().values():
            assert {version: told["count"] for version, told in said["computes"].items()} == {"1": 1, "2": 2}
            assert said["compute"]["count"] == 3
        assert computing_s(deployment, 1) != computing_s(deployment, 2)


def test_versions_that_are_to_be_kept_are_kept_also_while_there_are_fewer() -> None:
    made = pipeline()
    with served(limits=ONE_EACH) as (deployment, _):
        deployment._keep = 4
        deployment.deploy(made)
        for bits in (16, 8, 4, 2):
            deployment.swap(made.formed({0: WireForm(bits)}))
        assert deployment.versions == (1, 2, 3, 4, 5)
        deployment.swap(made.formed({1: WireForm(8)}))
        assert deployment.versions == (2, 3, 4, 5, 6)


def test_a_served_part_gives_what_it_gives_elsewhere() -> None:
    for part in pipeline().parts:
        inputs = [spec for spec in part.module.graph.nodes if spec.op == "placeholder"]
        width = next(p for p in part.module.parameters() if p.ndim == 2).shape[1]
        arrays = tuple(torch.randn(3, width).numpy() for _ in inputs)
        for one, same in zip(part.serving()(arrays), part.step(arrays), strict=True):
            assert np.array_equal(one, same)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_frame_of_nothing_is_a_head_that_its_wire_knows(version: int, request: int) -> None:
    wire = Wire.plain([TensorSpec("relu", (3, 2))], 1)
    data = wire.empty(version=version, request=request)
    assert len(data) == HEADER_BYTES
    assert wire.head(data) == (version, request, 0)
    assert tensors_of(wire, data) == ()
    with pytest.raises(ProtocolError, match="0 samples, expected 1"):
        wire.decode(data)
    with pytest.raises(ProtocolError):
        tensors_of(Wire.plain([TensorSpec("relu", (3, 2))], 2), data)
    with pytest.raises(ProtocolError):
        tensors_of(wire, data + b"\0")


@given(st.floats(0, 4000), st.integers(0, 2**32 - 1))
def test_how_long_a_frame_was_held_comes_across_and_is_never_said_to_be_nothing(held_s: float, request: int) -> None:
    for answer in (Received(request, held_s), Output(request, 1, b"x", held_s)):
        back = unpack_answer(pack_answer(answer))
        assert isinstance(back, Received | Output)
        assert 0 <= back.held_s - held_s <= 2e-6
        assert bool(back.held_s) == bool(held_s)


def test_the_rest_is_what_a_request_of_nothing_takes_beyond_the_delays() -> None:
    links = [Link(10e6, 0.010), Link(20e6, 0.005)]
    without = inference([1000, 500], links, [0.001, 0.002, 0.001])
    whole = inference([1000, 500], links, [0.001, 0.002, 0.001], null_s=0.019)
    assert whole.latency_s - without.latency_s == pytest.approx(0.004) == whole.rest_s
    # Were the way back free and half a round trip taken for the delay, the sum would be the same.
    halved = inference([1000, 500], [Link(10e6, 0.005), Link(20e6, 0.0025)], [0.001, 0.002, 0.001], null_s=0.019)
    assert halved.latency_s == pytest.approx(whole.latency_s)
    with pytest.raises(FringeError, match="null_s = -1"):
        inference([1000], [Link(1e6)], null_s=-1)
