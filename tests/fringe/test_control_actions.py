"""What may be tried next: bytes known before, steps that halve, and operations that are done again elsewhere."""

from __future__ import annotations

import pytest
import torch
from control_cases import LINKS, QUICK, controlled, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.actions import METHODS, Action, StepBook, candidates, checked_methods
from flower_edge.fringe.distil_recipe import DistilRecipe
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.operations_torch import Compressor, fingerprint, kept_arrays, rebuilt, restored
from flower_edge.fringe.wire import TensorSpec, Wire
from flower_edge.fringe.wire_forms import WireForm


def compressor() -> Compressor:
    pipeline, x, _ = trained()
    return Compressor(
        pipeline, fringe(pipeline), x[:64], healing=QUICK, distilling=DistilRecipe(regress_epochs=1, distil_epochs=0)
    )


@settings(max_examples=3, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=2))
def test_what_a_frame_will_cost_is_known_before_it_is_tried(draws: list[tuple[int, float]]) -> None:
    made, pipeline, operations = compressor(), trained()[0], ()
    sizes = [wire.size_bytes() for wire in pipeline.wires]
    for which, multiple in draws:
        found = candidates(pipeline.wires, operations, sizes, LINKS, StepBook.new(), multiples=[multiple])
        if not found:
            return
        one = found[which % len(found)]
        pipeline, operations = made.apply(pipeline, operations, one.action)
        connection = one.action.connection
        assert pipeline.connections[connection].size_bytes == one.after_bytes < one.before_bytes
        assert one.fraction == one.after_bytes / sizes[connection]
        assert one.saved_s == pytest.approx(8 * (one.before_bytes - one.after_bytes) / LINKS[connection].goodput_bps)


def test_operations_and_arrays_make_a_pipeline_again() -> None:
    made, whole = compressor(), trained()[0]
    pipeline, operations = whole, ()
    for action in (
        Action("quantisation", 0, 8, 2.0),
        Action("pruning", 0, 5, 1.0),
        Action("pruning", 1, 4, 1.0),
        Action("distillation", 0, 100, 1.0),
        Action("quantisation", 0, 2, 1.0),
        Action("distillation", 1, 60, 1.0),
        Action("distillation", 0, 60, 1.0),
    ):
        pipeline, operations = made.apply(pipeline, operations, action)
        frozen = made.fringe.frozen(whole)
        again = restored(whole, made.fringe, operations, kept_arrays(pipeline, frozen), 7)
        assert fingerprint(again) == fingerprint(pipeline), action
        assert again.version == 7
        x = trained()[1][:5]
        assert torch.equal(again.run(x), pipeline.run(x))
    assert [one["kind"] for one in operations].count("pair") == 2


@pytest.mark.parametrize(
    "operation",
    [{"kind": "melt", "connection": 0}, {"kind": "form"}, {"kind": "prune", "connection": 0, "keep": None}, {}],
)
def test_operations_that_are_none_are_refused(operation: dict[str, object]) -> None:
    whole = trained()[0]
    with pytest.raises(FringeError, match="expected"):
        rebuilt(whole, fringe(whole), [operation])


def test_bits_go_from_32_to_8_and_then_by_halves() -> None:
    spec = (TensorSpec("x", (4, 3, 3)),)
    steps = []
    for now in (32, 16, 8, 4, 2):
        wire = Wire.plain(spec).formed(WireForm(now))
        found = candidates([wire], (), [168], LINKS[:1], StepBook.new(), methods=["quantisation"])
        steps.append(found[0].action.amount if found else None)
    assert steps == [8, 4, 4, 2, None]


def test_a_failed_step_is_halved_then_closed() -> None:
    wire, book, amounts = Wire.plain((TensorSpec("x", (16, 3, 3)),)), StepBook.new(), []
    while found := candidates([wire], (), [600], LINKS[:1], book, methods=["pruning"]):
        amounts.append(found[0].action.amount)
        book = book.halved(found[0], "floor")
    assert amounts == [8, 11, 13, 14, 15]
    assert book.closed == {"0/pruning": "floor"}
    assert StepBook(**book.state()) == book


@pytest.mark.parametrize("which", [0, -1])
def test_steps_that_always_fail_come_to_an_end_whichever_multiple_is_chosen(which: int) -> None:
    wire, book, tries = Wire.plain((TensorSpec("x", (64, 3, 3)),)), StepBook.new(), 0
    while found := candidates([wire], (), [2400], LINKS[:1], book, multiples=[0.5, 1, 2]):
        book, tries = book.halved(found[which], "floor"), tries + 1
        assert tries < 60
    assert len(book.closed) == 3


def test_a_step_that_rounds_to_what_failed_is_not_tried_again() -> None:
    wire, book, amounts = Wire.plain((TensorSpec("x", (5, 3, 3)),)), StepBook.new(), []
    while found := candidates([wire], (), [204], LINKS[:1], book, methods=["pruning"]):
        amounts.append(found[0].action.amount)
        book = book.halved(found[0], "floor")
    assert amounts == sorted(set(amounts)) == [2, 3, 4]


def test_whole_numbers_and_single_channels_leave_nothing_to_do() -> None:
    symbols = Wire.plain((TensorSpec("symbols", (6,), "int64"),))
    assert candidates([symbols], (), [72], LINKS[:1], StepBook.new()) == ()
    single = Wire.plain((TensorSpec("x", (1, 3, 3)),))
    methods = {one.action.method for one in candidates([single], (), [60], LINKS[:1], StepBook.new())}
    assert "pruning" not in methods
    assert methods


def test_methods_are_checked() -> None:
    assert checked_methods(["pruning", "pruning"]) == ("pruning",)
    for wrong in ("pruning", (), ("jpeg",)):
        with pytest.raises(FringeError, match="expected some of"):
            checked_methods(wrong)
    assert all(str(Action(method, 1, 4, 1.0)).endswith("connection 1") for method in METHODS)
    with pytest.raises(FringeError, match="method 'jpeg'"):
        compressor().apply(trained()[0], (), Action("jpeg", 0, 1, 1.0))


def test_smaller_steps_are_a_choice_of_their_own() -> None:
    controller = controlled()
    sizes = controller.version.sizes_bytes
    wires = controller.pipeline.wires
    one = candidates(wires, (), sizes, LINKS, StepBook.new(), methods=["pruning"])
    three = candidates(wires, (), sizes, LINKS, StepBook.new(), methods=["pruning"], multiples=[0.5, 1, 2])
    assert [found.action.amount for found in one] == [4, 4]
    assert [found.action.amount for found in three] == [5, 4, 2, 5, 4, 2]
