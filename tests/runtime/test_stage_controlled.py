"""A controller compresses what real stages serve while requests come: none is lost, no two versions are mixed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from controlled_stages import LINKS, MACHINES, Shaped, Traffic, controlled, trained
from stage_processes import StageProcesses

from flower_edge.errors import FringeError
from flower_edge.fringe import Controller, Goals, Link, Pipeline, WireForm
from flower_edge.fringe.adapting import Decision
from flower_edge.runtime.fringe.channels import Served
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.store import tree_from_bytes, tree_to_bytes

# Its goals are seconds that were measured, and its traffic does not wait: with another beside it neither is kept.
pytestmark = [pytest.mark.slow, pytest.mark.alone]

#: In bytes: how many steps that takes does not depend on how fast links are measured to be. One step is not enough.
GOALS = Goals(drop=0.05, bandwidth="5x")


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shaped]:
    folder: Path = tmp_path_factory.mktemp("stages")
    with StageProcesses(folder, MACHINES, "--batch", "1", "--keep-inputs", "150") as running, Shaped(running) as links:
        yield links


def each_is_of_the_version_that_it_says(
    answers: list[tuple[int, Served]], pipelines: Callable[[int], Pipeline]
) -> set[int]:
    """Bit for bit, the local run of that version."""
    x = trained()[1]
    made = {version: pipelines(version) for version in {one.version for _, one in answers}}
    for number, one in answers:
        assert np.array_equal(one.output, made[one.version].run(x[number : number + 1]).numpy())
    return set(made)


def of(controller: Controller, *deployments: Deployment) -> Callable[[int], Pipeline]:
    def pipeline(number: int) -> Pipeline:
        known = {one.pipeline_version(number) for one in deployments} - {None}
        assert len(known) == 1  # one number, one version, whoever deployed it
        return controller._kept.restored(int(known.pop() or 0))

    return pipeline


def follows(controller: Controller, what: str, most_s: float = 90.0) -> Decision:
    until_s = time.monotonic() + most_s
    while (made := controller.follow()).what != what:
        assert time.monotonic() < until_s, f"no {what} within {most_s:g} s: {controller.links()}"
        time.sleep(0.3)
    return made


def test_it_compresses_under_traffic_and_takes_up_what_is_served_after_a_restart(shaped: Shaped) -> None:
    pipeline, x, _ = trained()
    with shaped.deployment() as client:
        with shaped.deployment() as first:
            first.deploy(pipeline)
            with Traffic(client) as traffic:
                controller = controlled(GOALS, first)
                assert controller.run(1) == "running"
                kept = tree_from_bytes(tree_to_bytes(controller.state()))
                was = controller.version.number
                first.close()  # whoever controlled it is gone; it goes on
                served = len(traffic.asked)
                with shaped.deployment() as second:
                    assert second.attach() is not None
                    loaded = second.versions
                    again = controlled(GOALS, second, state=kept)
                    assert second.versions == loaded  # it was served already: nothing was loaded, nothing flipped
                    assert (again.version.number, second.pipeline_version(loaded[-1])) == (was, was)
                    assert again.run() == "goals met"
                    accepted = [one for one in again.iterations if one.accepted]
                    assert len(accepted) == len(again.versions) - 1 >= 2
                    assert second.pipeline.version == again.version.number
                    again.roll_back(0)
                    back = second.infer(x[:5].numpy())
                    time.sleep(0.5)
        answers = traffic.answers()  # an error of any would be raised here
        assert np.array_equal(back, pipeline.run(x[:5]).numpy())  # byte for byte
        assert len(traffic.asked) > served
        seen = each_is_of_the_version_that_it_says(answers, of(again, first, second))
        assert len(seen) >= 2
        assert client.statistics()["camera"]["failed"] == 0


def test_a_link_that_degrades_is_followed_by_compression_and_one_that_recovers_by_a_better_version(
    shaped: Shaped,
) -> None:
    with shaped.deployment() as deployment, shaped.deployment() as client:
        deployment.deploy(trained()[0])
        try:
            with Traffic(client) as traffic:
                # What it may lose is known beforehand, so that a recovered link has a better version to go back to.
                scores = {0: 0.95, 1: 0.94, 2: 0.93}
                controller = controlled(
                    Goals(floor=0.5, latency_s="60 ms"), deployment, methods=("quantisation",),
                    evaluate=lambda one: scores.get(one.version, 0.9) - 0.01 * sum(
                        form.bits < 32 for wire in one.wires for form in wire.forms
                    ),
                )  # fmt: skip
                assert controller.run() == "goals met"
                before = controller.version
                shaped.relink("gateway", Link(6e4, 0.010))
                follows(controller, "compress")
                controller.run()
                smaller = controller.version
                assert smaller.sizes_bytes[0] < before.sizes_bytes[0]
                shaped.relink("gateway", LINKS["gateway"])
                follows(controller, "swap")
                assert controller.version.score > smaller.score
                assert deployment.pipeline.version == controller.version.number
            each_is_of_the_version_that_it_says(traffic.answers(), of(controller, deployment))
        finally:
            shaped.relink("gateway", LINKS["gateway"])


def test_a_machine_that_refuses_stops_the_controller_and_the_old_version_goes_on(shaped: Shaped) -> None:
    pipeline, x, _ = trained()
    with shaped.deployment() as deployment, shaped.deployment() as client:
        deployment.deploy(pipeline)
        entry = deployment._controls._channels["gateway"]
        held = deployment.statistics()["gateway"]["versions"]
        for number in range(8 - len(held)):  # no room for one more
            order, _ = deployment._orders(pipeline.formed({0: WireForm(8)}))["gateway"]
            entry.ask(**{**order, "version": 1000 + number})
        with Traffic(client) as traffic:
            controller = controlled(GOALS, deployment)
            assert controller.run() == "stopped"
            time.sleep(0.3)
        last = controller.iterations[-1]
        assert not last.accepted
        assert "'gateway'" in last.why
        assert "8 versions are held" in last.why
        assert len(controller.versions) == 1
        assert np.array_equal(deployment.infer(x[:5].numpy()), pipeline.run(x[:5]).numpy())
        assert each_is_of_the_version_that_it_says(traffic.answers(), of(controller, deployment)) == {
            deployment.version
        }
        deployment.deploy(pipeline)  # whatever else is held goes
        controller.resume()
        assert controller.run() == "goals met"


def test_it_learns_from_what_the_entry_kept(shaped: Shaped) -> None:
    pipeline, x, _ = trained()
    with shaped.deployment() as deployment:
        deployment.deploy(pipeline)
        other = torch.flip(x[800:900], dims=[3])  # mirrored: none of those that it was given first
        for _ in range(4):
            for start in range(0, 100, 25):
                deployment.infer(other[start : start + 25].numpy())
        live = deployment.live_inputs(most=120)
        assert live is not None
        assert live.shape == (120, 1, 8, 8)
        known = {one.tobytes() for one in other.numpy()}
        assert sum(one.tobytes() in known for one in live) > 60
        controller = controlled(Goals(drop=0.2, bandwidth="4x"), deployment, methods=("pruning",))
        controller.learn_from(live)
        controller.run(2)
        assert {one.learned_from for one in controller.iterations} == {controller.learning.digest}
        with pytest.raises(FringeError, match="other_samples=True"):
            controlled(Goals(drop=0.2, bandwidth="4x"), deployment, methods=("pruning",), state=controller.state())
