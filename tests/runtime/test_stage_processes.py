"""Stages as real processes over TLS: swaps under traffic, one that is killed, and links that are slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from stage_cases import MACHINES, wait_until
from stage_processes import StageProcesses

from flower_edge.errors import NotServed
from flower_edge.fringe import Link, Pipeline, WireForm, distribute
from flower_edge.models import make_model
from flower_edge.runtime.fringe.channels import Served
from flower_edge.runtime.fringe.shaper import LinkShaper

pytestmark = pytest.mark.slow


def resnet(side: int) -> Pipeline:
    model = make_model("resnet", input_shape=(1, side, side), num_classes=10, seed=0)
    example = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    return distribute(model, example, list(MACHINES), ["block1", "block2"])


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageProcesses]:
    folder: Path = tmp_path_factory.mktemp("stages")
    with StageProcesses(folder, MACHINES, "--batch", "1") as running:
        yield running


def test_swaps_under_traffic_lose_nothing_and_mix_nothing(processes: StageProcesses) -> None:
    whole = resnet(16)
    pipelines = [whole, whole.formed({0: WireForm(4), 1: WireForm(4)}), whole.formed({0: WireForm(2)})]
    x = whole.example
    expected = [made.run(x).numpy() for made in pipelines]
    assert not np.array_equal(expected[0], expected[1])
    stop = threading.Event()
    found: list[Served] = []
    with processes.deployment(keep=2) as deployment:
        first = deployment.deploy(pipelines[0]).version
        assert np.array_equal(deployment.infer(x.numpy()), expected[0])

        def ask() -> None:
            while not stop.is_set():
                found.append(deployment.ask(x.numpy()).result(60))

        def seen(version: int) -> None:
            wait_until(lambda: found and found[-1].version == version)

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(ask) for _ in range(3)]
            try:
                seen(first)
                for made in pipelines[1:]:
                    seen(deployment.swap(made).version)
                seen(deployment.roll_back(first).version)
            finally:
                stop.set()
            for client in clients:
                client.result(60)  # an error of any request would be raised here
        assert {one.version for one in found} == {first, first + 1, first + 2}
        assert all(np.array_equal(one.output, expected[one.version - first]) for one in found)
        assert found[-1].version == first
        assert deployment.statistics()["camera"]["failed"] == 0


def test_a_stage_that_is_killed_is_named_and_a_new_one_serves_after_a_deploy(processes: StageProcesses) -> None:
    whole = resnet(16)
    x, expected = whole.example.numpy(), whole.run(whole.example).numpy()
    errors: list[NotServed] = []
    stop, served = threading.Event(), threading.Event()
    with processes.deployment() as deployment:
        deployment.deploy(whole)

        def ask() -> None:
            while not stop.is_set():
                try:
                    assert np.array_equal(deployment.infer(x, timeout_s=60), expected)
                    served.set()
                except NotServed as error:
                    errors.append(error)
                    time.sleep(0.05)

        with ThreadPoolExecutor(2) as pool:
            clients = [pool.submit(ask) for _ in range(2)]
            try:
                assert served.wait(60)
                processes.kill("gateway")
                wait_until(lambda: len(errors) > 4)
                processes.start("gateway")
                deployment.deploy(whole)
            finally:
                stop.set()
            for client in clients:
                client.result(60)
        assert errors
        assert all("machine 'gateway'" in str(error) for error in errors)
        assert {error.code for error in errors} <= {"lost", "unreachable", "no-version"}
        assert np.array_equal(deployment.infer(x), expected)


def test_no_answer_over_delayed_links_is_earlier_than_their_delays(processes: StageProcesses) -> None:
    whole = resnet(32)
    links = [Link(4e6, 0.020), Link(8e6, 0.010)]
    x = whole.example[:1]
    with (
        LinkShaper(processes.addresses["gateway"], links[0], back=Link(1e9, 0.020)) as first,
        LinkShaper(processes.addresses["cloud"], links[1], back=Link(1e9, 0.010)) as second,
        processes.deployment(via={"gateway": first.address, "cloud": second.address}) as deployment,
    ):
        deployment.deploy(whole)
        answers = [deployment.ask(x.numpy()).result(60) for _ in range(5)]
        assert all(np.array_equal(one.output, whole.run(x).numpy()) for one in answers)
        sizes = [connection.size_bytes for connection in whole.connections]
        # There at the link's rate and after its delay, and back after another delay: busy machines are late only. How
        # late is measured in docs/fringe_serving.md.
        least_s = sum(link.seconds(size) + link.delay_s for link, size in zip(links, sizes, strict=True))
        assert min(one.seconds_s for one in answers) >= least_s - 0.001
        said = deployment.statistics()
        assert [said[name]["onward"][-1]["bytes"] for name in MACHINES[:2]] == [5 * size for size in sizes]
        assert [estimate.transfers for estimate in deployment.links()] == [5, 5]
        for shaper, size in ((first, sizes[0]), (second, sizes[1])):
            assert shaper.carried_bytes[0] > 5 * size  # and what TLS and gRPC add
