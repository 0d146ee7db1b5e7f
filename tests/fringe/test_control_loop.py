"""The controller on a small trained network: it ends as it should, keeps what it must, and goes on after a restart."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from control_cases import LINKS, controlled, trained

from flower_edge.errors import FringeError, FrozenMoved
from flower_edge.fringe.control_report import final_report, snapshot
from flower_edge.fringe.controller_torch import Controller
from flower_edge.fringe.deployed_torch import InProcess
from flower_edge.fringe.evaluation_torch import evaluation, stage_seconds
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.history import Iteration, history_table
from flower_edge.fringe.links import Link, LinkEstimate
from flower_edge.fringe.operations_torch import fingerprint
from flower_edge.fringe.pipeline_torch import Pipeline
from flower_edge.fringe.wire import HEADER_BYTES
from flower_edge.store import tree_from_bytes, tree_to_bytes


def told(iteration: Iteration) -> dict[str, Any]:
    return {**iteration.row(), "seconds_s": None}


def test_it_ends_when_the_goals_are_met_and_the_floor_holds() -> None:
    controller = controlled()
    assert controller.run() == "goals met"
    first, last = controller.versions[0], controller.version
    assert sum(last.sizes_bytes) <= sum(first.sizes_bytes) / 6
    assert last.score >= first.score - 0.05 - 1e-9
    assert controller.step() is None
    assert controller.pipeline.wires[0].size_bytes() == last.sizes_bytes[0]


def test_it_begins_with_the_slowest_connection() -> None:
    assert controlled().step().connection == 0  # type: ignore[union-attr]
    assert controlled(links=(LINKS[0], Link(1e3, 0.5))).step().connection == 1  # type: ignore[union-attr]


def test_it_ends_when_nothing_is_left_that_the_floor_allows() -> None:
    controller = controlled(Goals(drop=0.0, bandwidth="30x"), bits=(8, 4), methods=("quantisation",))
    assert controller.run() == "floor reached"
    assert {row["connection"] for row in snapshot(controller)["iterations"]} == {0, 1}
    assert controller.version.score >= controller.versions[0].score


def test_every_iteration_proves_what_is_frozen_and_a_roll_back_is_byte_for_byte() -> None:
    pipeline, x, y = trained()
    scored = evaluation(x[240:320], y[240:320])

    def strict(one: Pipeline) -> float:  # whatever sends less than 8 bits each is no good, so that some roll back
        return scored(one) - (0.5 if any(form.bits < 8 for wire in one.wires for form in wire.forms) else 0.0)

    controller = controlled(Goals(drop=0.1, bandwidth="20x"), evaluate=strict)
    assert controller.run() == "floor reached"
    refused = [one for one in controller.iterations if not one.accepted]
    assert refused
    assert any(one.accepted for one in controller.iterations)
    for one in refused:
        assert one.before_digest == one.digest
    assert {one.frozen_digest for one in controller.iterations} == {controller.frozen_digest}
    assert fingerprint(controller.whole) == fingerprint(pipeline)  # what it was given is as it was, too


def test_a_step_that_failed_is_halved_until_none_is_left() -> None:
    first = controlled().versions[0].score
    controller = controlled(
        Goals(drop=0.01, bandwidth="20x"),
        methods=("pruning",),
        evaluate=lambda one: first - 0.5 * (one.version != 0),  # all of it fails
    )
    assert controller.run() == "floor reached"
    at_first = [one.amount for one in controller.iterations if one.connection == 0]
    channels = controller.whole.wires[0].specs[0].shape[0]
    assert at_first[0] == channels // 2
    assert at_first[-1] == channels - 1
    assert at_first == sorted(at_first)
    assert len(controller.versions) == 1


def test_any_version_comes_back_byte_for_byte() -> None:
    controller = controlled(methods=("quantisation", "pruning", "distillation"), evaluate=lambda one: 1.0)
    controller.run(5)
    x = trained()[1][:8]
    outputs = {}
    for version in controller.versions:
        controller.roll_back(version.number)
        assert fingerprint(controller.pipeline) == version.digest
        outputs[version.number] = controller.pipeline.run(x)
    controller.roll_back(0)
    assert torch.equal(controller.pipeline.run(x), outputs[0])
    assert not torch.equal(outputs[0], outputs[controller.versions[-1].number])
    with pytest.raises(FringeError, match="version 99"):
        controller.roll_back(99)


def test_a_restart_in_the_middle_changes_nothing() -> None:
    straight = controlled()
    straight.run()
    begun = controlled()
    begun.run(2)
    kept = tree_from_bytes(tree_to_bytes(begun.state()))
    resumed = controlled(state=kept)
    resumed.run()
    assert [told(one) for one in resumed.iterations] == [told(one) for one in straight.iterations]
    assert fingerprint(resumed.pipeline) == fingerprint(straight.pipeline)
    assert resumed.status == straight.status
    with pytest.raises(FringeError, match="another goals"):
        controlled(Goals(drop=0.02, bandwidth="6x"), state=kept)
    with pytest.raises(FringeError, match="expected what"):
        controlled(state={**kept, "versions": {}})


def test_state_that_was_changed_is_not_served() -> None:
    controller = controlled()
    controller.run(3)
    state = tree_from_bytes(tree_to_bytes(controller.state()))
    arrays = next(iter(state["versions"]["kept"][-1]["arrays"]["gateway"].values()))
    arrays += 1
    with pytest.raises(FringeError, match="was changed"):
        controlled(state=state)


def test_an_array_that_may_not_change_is_noticed() -> None:
    controller = controlled(methods=("quantisation",))
    controller.step()
    held = controller.pipeline.named_tensors()
    frozen, free = controller.fringe.frozen(controller.pipeline)[0], controller.fringe.arrays(controller.pipeline)[0]
    for name, error, said in ((free, FringeError, "somebody changed"), (frozen, FrozenMoved, "is another")):
        with torch.no_grad():
            held[name].add_(1)
        with pytest.raises(error, match=said):
            controller.step()
    assert len(controller.iterations) == 1


def test_a_pair_takes_the_place_of_a_larger_one() -> None:
    controller = controlled(Goals(drop=0.9, bandwidth="25x"), methods=("distillation",))
    controller.run()
    pairs = [one for one in controller.version.operations if one["kind"] == "pair" and one["connection"] == 0]
    assert len(pairs) == 1
    tries = [one for one in controller.iterations if one.connection == 0 and one.accepted]
    assert len(tries) > 1
    assert [one.after_bytes[0] for one in tries] == sorted((one.after_bytes[0] for one in tries), reverse=True)


def test_what_cannot_be_compressed_is_refused_by_name_and_left_alone() -> None:
    from flower_edge.fringe.fringe_torch import fringe
    from flower_edge.fringe.pipeline_torch import distribute
    from flower_edge.models import make_model

    symbols = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (24, 6)))
    model = make_model("char-transformer", input_shape=(6,), num_classes=9, seed=0, width=8, heads=2)
    stream = distribute(model.eval(), symbols[:2], ["a", "b"], ["block1"])
    wanted = stream.run(symbols).argmax(-1).numpy()
    controller = Controller(
        stream, fringe(stream), Goals(drop=0.5, bandwidth="6x"), evaluation(symbols, wanted), symbols, [Link(1e5)],
        methods=("pruning", "quantisation"),
    )  # fmt: skip
    controller.run()
    refused = [one for one in controller.iterations if one.why.startswith("refused")]
    assert [one.method for one in refused] == ["pruning"]
    assert "encoder" in refused[0].why
    assert refused[0].after_score is None
    assert "refused" in history_table(controller.iterations)
    assert controller.version.sizes_bytes < controller.versions[0].sizes_bytes


@pytest.mark.parametrize("metric", ["recall", "precision", "loss"])
def test_any_metric_is_a_floor_in_its_own_direction(metric: str) -> None:
    goals = Goals(drop=0.05, metric=metric, bandwidth="6x")
    controller = controlled(goals)
    assert controller.run() == "goals met"
    for version in controller.versions:
        assert goals.judge.lost(version.score, controller.versions[0].score) <= 0.05 + 1e-9


def test_the_floor_is_never_passed_by_a_metric_of_ones_own() -> None:
    controller = controlled(Goals(floor=0.7, bandwidth="12x"), evaluate=lambda one: 1.0 - 0.1 * (one.version % 5))
    controller.run(8)
    assert all(version.score >= 0.7 for version in controller.versions)


def test_on_a_fast_link_nothing_that_costs_more_than_it_saves_is_taken() -> None:
    def seconds(pipeline: Pipeline) -> list[float]:
        """A coder takes a tenth of a millisecond."""
        coded = sum(form.bits < 16 for wire in pipeline.wires for form in wire.forms)
        return [1e-3 + 1e-4 * coded, 1e-3, 1e-3]

    goals = Goals(drop=0.2, bandwidth="4x")
    fast = controlled(goals, links=[Link(10e9), Link(10e9)], compute_s=seconds, methods=("quantisation",))
    assert fast.run() == "floor reached"
    assert len(fast.versions) == 1
    assert all("slower" in one.why for one in fast.iterations)
    slow = controlled(goals, compute_s=seconds, methods=("quantisation",))
    assert slow.run() == "goals met"


def test_stage_seconds_are_of_each_machine() -> None:
    ticks = iter(range(1000))
    pipeline, x, _ = trained()
    assert stage_seconds(pipeline, x[:1], repeats=2, clock=lambda: float(next(ticks))) == (1.0, 1.0, 1.0)
    with pytest.raises(FringeError, match="repeats"):
        stage_seconds(pipeline, x[:1], repeats=0)


def test_versions_are_swapped_in_and_links_followed_there_and_back() -> None:
    pipeline, x, y = trained()
    scored = evaluation(x[240:320], y[240:320])
    score = lambda one: scored(one) - 1e-3 * sum(w.size_bytes() < 200 for w in one.wires)  # noqa: E731
    deployed = InProcess(pipeline, [Link(4e6), Link(4e6)])
    controller = controlled(
        Goals(drop=0.1, latency_s="9 ms"), evaluate=score, deployed=deployed, methods=("quantisation",)
    )
    assert controller.run() == "goals met"
    assert deployed.version == controller.version.number
    small = controller.version.number
    deployed.relink([Link(4e5), Link(4e5)])  # degraded: what is there does not do
    decision = controller.follow()
    assert decision.what == "compress"
    assert controller.status == "running"
    controller.run()
    assert sum(controller.version.sizes_bytes) < sum(controller.versions[small].sizes_bytes)
    assert deployed.version == controller.version.number
    deployed.relink([Link(1e9), Link(1e9)])
    came_back = [controller.follow().what for _ in range(3)]
    assert came_back == ["stay", "stay", "swap"]
    assert controller.version.score == max(version.score for version in controller.versions)
    assert torch.equal(deployed.infer(x[:4]), controller.pipeline.run(x[:4]))


def test_machines_that_do_not_take_a_version_keep_the_old_one_and_stop_it() -> None:
    pipeline, _, _ = trained()

    class Full(InProcess):
        def swap(self, pipeline: Pipeline) -> None:
            if pipeline.version == 2:
                raise FringeError("'gateway' is full")
            super().swap(pipeline)

    deployed = Full(pipeline, LINKS)
    controller = controlled(deployed=deployed)
    assert controller.run() == "stopped"
    assert "gateway" in controller.iterations[-1].why
    assert (deployed.version, controller.version.number) == (1, 1)
    controller.resume()
    controller.run()
    assert 2 not in [version.number for version in controller.versions]  # a number is of one pipeline only
    assert controller.status == "goals met"


def test_links_are_as_given_until_they_are_measured() -> None:
    pipeline, _, _ = trained()

    class Measured(InProcess):
        seen = LinkEstimate()

        def links(self) -> Any:
            return (self.seen, LINKS[1])

    deployed = Measured(pipeline, LINKS)
    controller = controlled(deployed=deployed, links=LINKS)
    assert controller.links() == LINKS
    deployed.seen = LinkEstimate().sent(1000, 0.008)
    assert controller.links()[0].goodput_bps == pytest.approx(1e6)
    Measured.seen = LinkEstimate()
    with pytest.raises(FringeError, match="no transfer was measured"):
        controlled(deployed=Measured(pipeline, LINKS))


def test_pause_stop_and_roll_back_from_another_thread() -> None:
    seen = threading.Event()
    controller = controlled(Goals(drop=0.9, bandwidth="20x"), on_iteration=lambda _: seen.set())
    controller.pause()
    thread = threading.Thread(target=controller.run)
    thread.start()
    assert not controller.iterations
    assert controller.step() is None
    controller.resume()
    assert seen.wait(20)
    controller.roll_back(0)
    controller.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert controller.status in ("stopped", "goals met")
    assert controller.version.number == 0 or controller.status == "goals met"


def test_other_goals_from_where_it_is() -> None:
    controller = controlled(Goals(drop=0.05, bandwidth="3x"))
    assert controller.run() == "goals met"
    before = len(controller.iterations)
    controller.aim(Goals(drop=0.05, bandwidth="8x"))
    assert controller.run() == "goals met"
    assert len(controller.iterations) > before
    with pytest.raises(FringeError, match="expected 'accuracy'"):
        controller.aim(Goals(drop=0.05, metric="loss", bandwidth="3x"))
    with pytest.raises(FringeError, match="can be saved"):
        controller.aim(Goals(drop=0.05, bandwidth="9999x"))
    assert controller.goals.most_bytes(8) == 1


def test_the_report_has_a_test_set_of_its_own() -> None:
    controller = controlled(Goals(drop=0.05, bandwidth="3x"))
    controller.run()
    _, x, y = trained()
    report = final_report(controller, evaluation(x[320:], y[320:]))
    assert report["test_lost"] == pytest.approx(report["test_before"] - report["test_after"])
    assert [row["name"] for row in report["connections"]] == ["camera -> gateway", "gateway -> server", "all"]
    assert report["connections"][-1]["after_bytes"] == sum(controller.version.sizes_bytes)
    assert tree_from_bytes(tree_to_bytes(report)) == report


def test_what_cannot_work_is_refused_before_anything_is_tried() -> None:
    pipeline, x, _ = trained()
    for wrong, said in (
        ({"links": None}, "neither links nor deployed"),
        ({"links": LINKS[:1]}, "expected one each"),
        ({"methods": ("prunning",)}, "expected some of"),
        ({"bits": (5,)}, "expected some of 16"),
    ):
        with pytest.raises(FringeError, match=said):
            controlled(**wrong)
    with pytest.raises(FringeError, match="floor"):
        controlled(Goals(floor=0.999, bandwidth=2), evaluate=lambda one: 0.9)
    with pytest.raises(FringeError, match="cannot be reached"):
        controlled(Goals(drop=0.1, latency_s="15 ms"))
    with pytest.raises(FringeError, match="10 or more"):
        Controller(
            pipeline, controlled().fringe, Goals(drop=0.1, bandwidth=2), lambda _: 1.0, x[:9], LINKS
        )  # fmt: skip
    assert sum(replace(wire).size_bytes() for wire in pipeline.wires) > 2 * HEADER_BYTES
