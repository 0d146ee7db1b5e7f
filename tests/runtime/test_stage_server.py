"""A served pipeline gives what the pipeline gives, says who failed, and changes its version unnoticed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from stage_cases import MACHINES, TRANSPORT, pipeline, samples, served, small, wait_until
from torch import fx

from flower_edge.errors import CodecError, FringeError, NotServed, SwapRefused, TransportRefused
from flower_edge.fringe import Pipeline, WireForm, distribute
from flower_edge.runtime.fringe.channels import Served
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.messages import REQUESTS
from flower_edge.runtime.fringe.settings import ServingLimits
from flower_edge.runtime.fringe.stage import StageServer, hello_for


def ours() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("stage", "answers", "end of"))}


@pytest.mark.parametrize("form", [WireForm(), WireForm(8), WireForm(4, fraction=0.5)])
def test_what_is_served_is_what_the_pipeline_gives_bit_for_bit(form: WireForm) -> None:
    made = pipeline().formed({0: form, 1: form})
    with served() as (deployment, _):
        deployment.deploy(made)
        for number in (1, 5):
            x = samples(number)
            assert np.array_equal(deployment.infer(x.numpy()), made.run(x).numpy())
    assert ours() == set()


def test_one_machine_alone_is_a_pipeline_too() -> None:
    made = distribute(torch.nn.Sequential(torch.nn.Linear(6, 3)), torch.zeros(2, 6), ["only"], [])
    with served(("only",)) as (deployment, _):
        deployment.deploy(made)
        assert np.array_equal(deployment.infer(samples(3).numpy()), made.run(samples(3)).numpy())
        assert deployment.links() == ()


def test_requests_that_wait_together_are_computed_together_and_each_gets_its_own() -> None:
    made = pipeline()
    with served(limits=ServingLimits(batch_samples=8, batch_wait_s=30.0)) as (deployment, _):
        deployment.deploy(made)
        futures = [deployment.ask(samples(2, seed).numpy()) for seed in range(4)]
        together = torch.cat([samples(2, seed) for seed in range(4)])
        assert np.array_equal(np.concatenate([one.result(60).output for one in futures]), made.run(together).numpy())
        assert deployment.statistics()["camera"]["compute"]["count"] == 1


def test_bytes_that_are_counted_are_those_of_the_wire() -> None:
    made = pipeline().formed({0: WireForm(8)})
    with served(limits=ServingLimits(batch_samples=1)) as (deployment, _):
        deployment.deploy(made)
        for _ in range(3):
            deployment.infer(samples(1).numpy())
        said = deployment.statistics()
        for machine, connection in zip(MACHINES, made.connections, strict=False):
            assert said[machine]["onward"][0]["bytes"] == 3 * connection.size_bytes
        wait_until(lambda: [link.transfers for link in deployment.links()] == [3, 3])  # it is told after the answer
        assert said["camera"]["served"] == said["cloud"]["served"] == 3


class Slow:
    """A part whose step can be held up: the real one, behind a gate."""

    def __init__(self, stage: StageServer, version: int) -> None:
        self.gate = threading.Event()
        held = stage._versions.get(version)
        assert held is not None
        module = held.part.module

        def wait(*_: object) -> None:
            assert self.gate.wait(60)

        module.register_forward_pre_hook(wait)


def test_a_full_queue_refuses_with_a_code_and_what_was_taken_is_served() -> None:
    made = pipeline()
    with served(limits=ServingLimits(batch_samples=1, waiting=2)) as (deployment, stages):
        swap = deployment.deploy(made)
        slow = Slow(stages["camera"], swap.version)
        futures = [deployment.ask(samples(1).numpy())]
        wait_until(lambda: stages["camera"].statistics()["under_way"])  # it is taken, so that two more may wait
        futures += [deployment.ask(samples(1).numpy()) for _ in range(3)]
        with pytest.raises(NotServed, match=r"'camera'.*2 requests wait") as refused:
            futures[3].result(60)
        assert refused.value.code == "busy"
        slow.gate.set()
        for future in futures[:3]:
            assert np.array_equal(future.result(60).output, made.run(samples(1)).numpy())
        assert deployment.statistics()["camera"]["refused"] == 1


def test_a_swap_under_traffic_loses_nothing_and_mixes_nothing() -> None:
    versions: dict[int, Pipeline] = {}
    made = [pipeline(seed) for seed in range(4)]
    asked: list[tuple[torch.Tensor, Served]] = []
    stop = threading.Event()
    with served(limits=ServingLimits(batch_samples=1)) as (deployment, stages):
        versions[deployment.deploy(made[0]).version] = made[0]

        def ask(seed: int) -> None:
            while not stop.is_set():
                x = samples(2, seed)
                asked.append((x, deployment.ask(x.numpy()).result(60)))

        def seen(version: int) -> None:
            wait_until(lambda: any(one.version == version for _, one in list(asked)))

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(ask, seed) for seed in range(3)]
            try:
                for seed in (1, 2, 3):
                    seen(max(versions))
                    swap = deployment.swap(made[seed])
                    versions[swap.version] = made[seed]
                seen(swap.version)
            finally:
                stop.set()
            for client in clients:
                client.result(60)  # an error of any request would be raised here
        assert {one.version for _, one in asked} == set(versions)
        for x, one in asked:
            # The number says one version; one part of another would give another output.
            assert np.array_equal(one.output, versions[one.version].run(x).numpy())
        for stage in stages.values():
            assert stage._versions.numbers == (swap.version - 1, swap.version)  # the last one, and one to roll back to


def test_rolling_back_serves_the_version_before_without_loading_it() -> None:
    with served() as (deployment, stages):
        deployment.deploy(pipeline(0))
        deployment.swap(pipeline(1))
        assert np.array_equal(deployment.infer(samples(2).numpy()), pipeline(1).run(samples(2)).numpy())
        swap = deployment.roll_back()
        assert (swap.version, swap.before) == (1, 2)
        assert np.array_equal(deployment.infer(samples(2).numpy()), pipeline(0).run(samples(2)).numpy())
        deployment.swap(pipeline(2))
        with pytest.raises(FringeError, match=r"version 7 is not loaded, \[2, 3\]|version 7 is not loaded, \[1, 3\]"):
            deployment.roll_back(7)
        del stages


def test_a_machine_that_cannot_load_refuses_the_swap_and_the_old_version_goes_on() -> None:
    with served(limits=ServingLimits(versions=2)) as (deployment, stages):
        deployment.deploy(pipeline(0))
        graph = fx.Graph()
        graph.output((graph.call_method("reshape", (graph.placeholder("x"), 7)),))
        whole = pipeline(1)
        parts = (whole.parts[0], replace(whole.parts[1], module=fx.GraphModule({}, graph)), whole.parts[2])
        broken = replace(whole, parts=parts)
        with pytest.raises(SwapRefused, match="version 2 is not served: machine 'gateway': FringeError"):
            deployment.swap(broken)
        assert all(stage._versions.numbers == (1,) for stage in stages.values())
        assert np.array_equal(deployment.infer(samples(2).numpy()), pipeline(0).run(samples(2)).numpy())


def test_a_machine_that_is_gone_is_named_and_one_that_came_back_serves_after_a_new_deploy() -> None:
    with served(limits=ServingLimits(retry_s=0.0)) as (deployment, stages):
        deployment.deploy(pipeline(0))
        deployment.infer(samples(1).numpy())
        gateway = stages["gateway"]
        port = gateway.port
        gateway.close()
        with pytest.raises(NotServed, match="machine 'gateway'") as failed:
            deployment.infer(samples(1).numpy())
        assert failed.value.code in ("unreachable", "lost", "closing")
        with pytest.raises(SwapRefused, match="machine 'gateway'"):
            deployment.swap(pipeline(1))
        assert "error" in deployment.statistics()["gateway"]
        with StageServer("gateway", TRANSPORT, port=port):
            with pytest.raises(NotServed, match=r"machine 'gateway': version 1 is not here, \[\] are"):
                deployment.infer(samples(1).numpy())
            deployment.deploy(pipeline(1))
            assert np.array_equal(deployment.infer(samples(2).numpy()), pipeline(1).run(samples(2)).numpy())


def test_a_machine_that_hangs_is_named_after_its_time() -> None:
    two = ("camera", "cloud")  # of more, the one before may lose patience first on a busy machine
    made = distribute(small(), torch.zeros(2, 6), list(two), ["1"])
    with served(two, limits=ServingLimits(answer_s=0.3)) as (deployment, stages):
        swap = deployment.deploy(made)
        slow = Slow(stages["cloud"], swap.version)
        with pytest.raises(NotServed, match=r"machine 'cloud': gave no answer within 0.3 s") as late:
            deployment.infer(samples(1).numpy())
        assert late.value.code == "late"
        slow.gate.set()


def test_numbers_that_are_not_finite_fail_their_own_request_and_no_other() -> None:
    with served() as (deployment, _):
        deployment.deploy(pipeline(0))
        with pytest.raises(CodecError, match="finite"):
            deployment.infer(np.full((1, 6), np.nan, np.float32))
        with pytest.raises(FringeError, match=r"expected \[batch, 6\]"):
            deployment.infer(np.zeros((1, 7), np.float32))
        assert deployment.infer(samples(1).numpy()).shape == (1, 3)


def test_whole_numbers_that_a_part_cannot_take_fail_their_own_request_and_no_other() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Flatten(), torch.nn.Linear(12, 2)).eval()
    made = distribute(model, torch.zeros(2, 3, dtype=torch.int64), ["camera", "cloud"], ["0"])
    good, bad = np.array([[0, 4, 2]]), np.array([[0, 5, 2]])
    with served(("camera", "cloud"), limits=ServingLimits(batch_samples=3, batch_wait_s=30.0)) as (deployment, stages):
        deployment.deploy(made)
        futures = [deployment.ask(x) for x in (good, bad, good)]  # one batch
        with pytest.raises(NotServed, match="machine 'camera': IndexError: index out of range") as failed:
            futures[1].result(60)
        assert failed.value.code == "failed"
        for future in (futures[0], futures[2]):
            assert np.array_equal(future.result(60).output, made.run(torch.from_numpy(good)).numpy())
        assert stages["camera"].statistics()["under_way"] == 0
        assert deployment.statistics()["camera"]["failed"] == 1


def test_closing_waits_for_no_batch_and_nobody_waits_for_it() -> None:
    with served(limits=ServingLimits(batch_samples=1)) as (deployment, stages):
        swap = deployment.deploy(pipeline(0))
        slow = Slow(stages["camera"], swap.version)
        futures = [deployment.ask(samples(1).numpy()) for _ in range(3)]
        wait_until(lambda: stages["camera"].statistics()["waiting"] == 2)
        try:
            stages["camera"].close()  # its batch is held up for as long as this takes
            for future in futures:
                with pytest.raises(NotServed, match="'camera'"):
                    future.result(60)
        finally:
            slow.gate.set()


def test_a_pipeline_on_other_machines_or_for_other_inputs_is_refused() -> None:
    narrow = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    other = distribute(narrow, torch.zeros(2, 4), ["camera", "gateway"], ["0"])
    with served() as (deployment, _):
        with pytest.raises(FringeError, match="call deploy"):
            deployment.infer(samples(1).numpy())
        deployment.deploy(pipeline(0))
        with pytest.raises(FringeError, match=r"takes \(4,\), expected \(6,\)"):
            deployment.swap(other)
        with pytest.raises(FringeError, match="this deployment has camera, gateway, cloud"):
            deployment.deploy(other)


def test_only_who_has_the_secret_and_dials_the_right_machine_comes_in() -> None:
    secret = b"sixteen bytes and more"
    with StageServer("camera", TRANSPORT, secret=secret) as stage:
        address = f"127.0.0.1:{stage.port}"
        for hello, code in (
            (hello_for("pipeline", REQUESTS, None, "camera"), "bad-token"),
            (hello_for("pipeline", REQUESTS, b"another secret, just as long", "camera"), "bad-token"),
            (hello_for("other", REQUESTS, secret, "camera"), "other-run"),
            (hello_for("pipeline", "gossip", secret, "camera"), "other-purpose"),
            (hello_for("pipeline", REQUESTS, secret, "cloud"), "other-machine"),
        ):
            with pytest.raises(TransportRefused) as refused:
                TRANSPORT.dial(address, hello)
            assert refused.value.code == code
        with Deployment({"camera": address}, TRANSPORT, secret=secret) as deployment:
            assert deployment.statistics()["camera"]["versions"] == {}


def test_bytes_that_are_no_frame_are_refused_and_the_stage_serves_on() -> None:
    with served() as (deployment, stages):
        deployment.deploy(pipeline(0))
        hello = hello_for("pipeline", REQUESTS, None, "camera")
        with TRANSPORT.dial(f"127.0.0.1:{stages['camera'].port}", hello) as connection:
            connection.send(b"\xf9" + bytes(40))
            assert b"bad-frame" in connection.receive(5)
            connection.send(b"short")
            with pytest.raises(TransportRefused, match="it was cut"):
                connection.receive(5)
        assert deployment.infer(samples(1).numpy()).shape == (1, 3)
