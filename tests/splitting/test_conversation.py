"""What is said in which order, what is refused, and that a work can stop between any two frames and go on elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from split_cases import (
    CASES,
    SGD,
    assert_same,
    assert_same_whole,
    cloud_of,
    device_of,
    joined,
    make_order,
    pick,
    split,
    start_of,
)

from flower_edge.errors import ModelMismatch, ProtocolError, SplitError
from flower_edge.splitting.conversation_torch import CloudHalf, CloudWork, DeviceWork, MiddleWork, converse
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.store import tree_from_bytes, tree_to_bytes

CASE = CASES["fan"]


@pytest.fixture(scope="module")
def model() -> CutModel:
    return CASE.cut_model()


def talk(device: DeviceWork, cloud: CloudWork) -> list[Frame]:
    said, frame = [], device.next(None)
    while frame is not None:
        answer = cloud.answer(frame)
        said += [frame, answer]
        frame = device.next(answer)
    return said


def test_with_labels_on_the_cloud_a_step_is_two_frames_and_labels_travel(model: CutModel) -> None:
    x, y = CASE.data()
    order = make_order(3, first_step=7)
    said = talk(device_of(order, model, x, y, start_of(CASE)), cloud_of(order, model, start_of(CASE)))
    assert [frame.kind for frame in said] == [Kind.ACTIVATIONS, Kind.GRADIENT] * 3
    assert [frame.step for frame in said] == [7, 7, 8, 8, 9, 9]
    for asked, answer in zip(said[::2], said[1::2], strict=True):
        assert asked.labels is not None
        assert asked.labels.dtype == np.int64
        assert answer.labels is None
        assert np.isnan(asked.loss)
        assert np.isfinite(answer.loss)
        assert all(tensor.flags["C_CONTIGUOUS"] for frame in (asked, answer) for tensor in frame.tensors)


def test_with_labels_on_the_device_they_never_travel(model: CutModel) -> None:
    x, y = CASE.data()
    order = make_order(3, labels="device", tail=2)
    said = talk(device_of(order, model, x, y, start_of(CASE)), cloud_of(order, model, start_of(CASE)))
    kinds = [Kind.ACTIVATIONS, Kind.OUTPUTS, Kind.OUTPUT_GRADIENT, Kind.GRADIENT]
    assert [frame.kind for frame in said] == kinds * 3
    assert all(frame.labels is None for frame in said)


@pytest.mark.parametrize(("cut", "tail"), [(13, 0), (10, 3), (0, 13)])
def test_a_device_that_has_every_unit_says_nothing(model: CutModel, cut: int, tail: int) -> None:
    x, y = CASE.data()
    assert len(model.units) == 13
    order = make_order(cut, tail=tail, labels="device")
    device = device_of(order, model, x, y, start_of(CASE))
    assert device.next(None) is None
    expected, loss = split(make_order(5), model, x, y, start_of(CASE))
    assert_same(device.result().arrays, expected.arrays)
    assert device.result().loss == loss
    assert device.next(None) is None, "the round's steps are made once"
    assert device.result().steps == 3


def test_each_machine_holds_its_own_units_and_no_other_s(model: CutModel) -> None:
    x, y = CASE.data()
    order = make_order(4, labels="device", tail=2)
    device, cloud = device_of(order, model, x, y, start_of(CASE)), cloud_of(order, model, start_of(CASE))
    mine, theirs = set(device.result().arrays), set(cloud.result().arrays)
    assert mine.isdisjoint(theirs)
    assert mine | theirs == set(start_of(CASE).arrays)
    before = start_of(CASE)
    converse(device, cloud.answer)
    assert_same({n: p.numpy() for n, p in model.model.state_dict().items()}, before.arrays)


def test_figures_are_of_the_machine_s_own_units(model: CutModel) -> None:
    x, y = CASE.data()
    order, profile = make_order(4, labels="device", tail=2), model.profile()
    device, cloud = device_of(order, model, x, y, start_of(CASE)), cloud_of(order, model, start_of(CASE))
    converse(device, cloud.answer)
    mine, theirs = device.result(), cloud.result()
    assert (mine.steps, mine.samples) == (theirs.steps, theirs.samples) == (3, 4 + 4 + 2)
    last = len(model.units)
    assert mine.flops == 10 * (profile.train_flops(0, 4) + profile.train_flops(last - 2, last)) > 0
    assert mine.flops + theirs.flops == pytest.approx(10 * profile.train_flops(0, last))
    assert min(mine.compute_s, theirs.compute_s) > 0
    assert mine.loss == theirs.loss


# -- stopping between frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fan", "dropout"])
@pytest.mark.parametrize(("labels", "tail"), [("cloud", 0), ("device", 0), ("device", 3)])
def test_a_work_saved_and_resumed_between_all_frames_ends_as_one_that_is_not(name: str, labels: str, tail: int) -> None:
    case = CASES[name]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    order = make_order(3, labels=labels, tail=tail)
    expected, mean = split(order, model, x, y, start)
    device, cloud = device_of(order, model, x, y, start), cloud_of(order, model, start)
    frame = device.next(None)
    while frame is not None:
        saved = tree_to_bytes(device.state())
        del device
        answer = cloud.answer(frame)
        device = DeviceWork.resumed(order, model, x, y, tree_from_bytes(saved))
        frame = device.next(answer)
    device = DeviceWork.resumed(order, model, x, y, tree_from_bytes(tree_to_bytes(device.state())))
    assert_same_whole(joined(model, device.result(), cloud.result()), expected)
    assert device.result().loss == mean


def test_a_state_is_of_before_the_step_that_is_under_way() -> None:
    case = CASES["resnet"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    device = device_of(make_order(8), model, x, y, start)
    device.next(None)
    half = pick(model, start, (0, 8))
    assert_same(device.state()["arrays"], half.arrays)
    assert_same(device.result().arrays, half.arrays)
    order = make_order(8, labels="device")
    cloud, frame = cloud_of(order, model, start), device_of(order, model, x, y, start).next(None)
    assert frame is not None
    cloud.answer(frame)
    assert_same(cloud.result().arrays, pick(model, start, (8, len(model.units))).arrays)


# -- what is refused --------------------------------------------------------------------------------------------------


def test_frames_out_of_order_are_refused_and_the_right_one_still_works(model: CutModel) -> None:
    x, y = CASE.data()
    order, start = make_order(3), start_of(CASE)
    expected, _ = split(order, model, x, y, start)
    device, cloud = device_of(order, model, x, y, start), cloud_of(order, model, start)
    frame = device.next(None)
    assert frame is not None
    with pytest.raises(ProtocolError, match=r"nothing came where GRADIENT of step 0 is due"):
        device.next(None)
    for wrong in (replace(frame, step=1), replace(frame, kind=Kind.OUTPUT_GRADIENT)):
        with pytest.raises(ProtocolError, match=r"device 0 sent .* expected ACTIVATIONS of step 0"):
            cloud.answer(wrong)
    answer = cloud.answer(frame)
    with pytest.raises(ProtocolError, match=r"device 0 sent ACTIVATIONS of step 0, expected ACTIVATIONS of step 1"):
        cloud.answer(frame)
    for wrong in (replace(answer, kind=Kind.OUTPUTS), replace(answer, step=2)):
        with pytest.raises(ProtocolError, match=r"the cloud sent .* expected GRADIENT of step 0"):
            device.next(wrong)
    for tensors in ((), answer.tensors[:-1], tuple(tensor[:2] for tensor in answer.tensors)):
        with pytest.raises(ProtocolError, match=r"the cloud sent tensors of shapes .* expected \[\(4, 8\)"):
            device.next(replace(answer, tensors=tensors))
    following = device.next(answer)
    while following is not None:
        following = device.next(cloud.answer(following))
    assert_same_whole(joined(model, device.result(), cloud.result()), expected)
    with pytest.raises(ProtocolError, match="nothing was asked"):
        device.next(answer)
    with pytest.raises(ProtocolError, match="its round ended with step 2"):
        cloud.answer(replace(frame, step=3))


def test_tensors_and_labels_that_do_not_fit_are_refused_and_change_nothing() -> None:
    case = CASES["resnet"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    order = make_order(3)
    cloud, frame = cloud_of(order, model, start), device_of(order, model, x, y, start).next(None)
    assert frame is not None
    assert frame.labels is not None
    (tensor,) = frame.tensors
    for wrong, why in (
        (replace(frame, tensors=(tensor, tensor)), "sent tensors of shapes"),
        (replace(frame, tensors=(np.concatenate([tensor, tensor]),)), "with a batch of at most 4"),
        (replace(frame, tensors=(tensor[:0],), labels=frame.labels[:0]), "sent tensors of shapes"),
        (replace(frame, tensors=(tensor[:, :1],)), "sent tensors of shapes"),
        (replace(frame, labels=None), "sent no labels with 4 samples"),
        (replace(frame, labels=frame.labels[:2]), "sent 2 labels with 4 samples"),
        (replace(frame, labels=np.zeros((4, 2), np.int64)), "labels that do not fit: .* scores 4 targets, 8 came"),
        (replace(frame, labels=np.full(4, 9)), "labels that do not fit: target 9, and the model scores"),
    ):
        with pytest.raises(ProtocolError, match=why):
            cloud.answer(wrong)
    assert_same(cloud.result().arrays, pick(model, start, (3, len(model.units))).arrays)
    cloud.answer(frame)
    assert cloud.result().steps == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cut": 14}, "cut 14 and a tail of 0 in a model of 13 units"),
        ({"cut": 12, "tail": 2, "labels": "device"}, "cut 12 and a tail of 2 in a model of 13 units"),
        ({"cut": 2, "tail": 1}, "a tail of 1 units with labels = 'cloud'"),
    ],
)
def test_an_order_that_does_not_fit_the_model_is_refused(model: CutModel, changes: dict[str, Any], why: str) -> None:
    order = make_order(**changes)
    with pytest.raises(SplitError, match=why):
        DeviceWork(order, model, *CASE.data(), {}, {})
    with pytest.raises(SplitError, match=why):
        CloudWork(order, model, {}, {})


def test_arrays_of_other_units_are_refused(model: CutModel) -> None:
    half = pick(model, start_of(CASE), (0, 4))
    with pytest.raises(ModelMismatch, match=r"units 0 to 3 of a Fan"):
        DeviceWork(make_order(3), model, *CASE.data(), {"last.bias": np.zeros(4, np.float32)}, {})
    with pytest.raises(ModelMismatch, match="is unknown"):
        CloudWork(make_order(4), model, half.arrays, {})
    with pytest.raises(ModelMismatch, match=r"no place here: last\.bias::momentum_buffer"):
        DeviceWork(
            make_order(4), model, *CASE.data(), half.arrays, {"last.bias::momentum_buffer": np.zeros(4, np.float32)}
        )


@pytest.mark.parametrize(("start", "stop"), [(2, 6), (5, 5), (6, 14)])
def test_an_edge_takes_units_between_its_neighbours_only(model: CutModel, start: int, stop: int) -> None:
    with pytest.raises(SplitError, match=r"use 3 <= start < stop <= 13"):
        MiddleWork(make_order(3), model, start, stop, {}, {})


def test_an_edge_refuses_what_is_not_due_from_either_side(model: CutModel) -> None:
    x, y = CASE.data()
    order, half = make_order(3), pick(model, start_of(CASE), (3, 6))
    middle = MiddleWork(order, model, 3, 6, half.arrays, half.optimiser)
    frame = device_of(order, model, x, y, start_of(CASE)).next(None)
    assert frame is not None
    with pytest.raises(ProtocolError, match="device 0 sent ACTIVATIONS of step 2, expected ACTIVATIONS of step 0"):
        middle.answer(replace(frame, step=2), lambda onward: onward)
    with pytest.raises(ProtocolError, match="the next machine sent ACTIVATIONS of step 0, expected GRADIENT"):
        middle.answer(frame, lambda onward: onward)
    assert_same(middle.result().arrays, half.arrays)


# -- one half for several devices -------------------------------------------------------------------------------------


def test_on_a_shared_half_batches_take_turns_and_a_lost_one_leaves_no_trace() -> None:
    case = CASES["resnet"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    last = len(model.units)
    half = pick(model, start, (4, last))
    shared = CloudHalf(model, 4, last, SGD, half.arrays)
    orders = [make_order(4 + number, number=number, labels="device") for number in (0, 1)]
    works = [CloudWork(order, model, {}, {}, shared) for order in orders]
    frames = [frame for order in orders if (frame := device_of(order, model, x, y, start).next(None)) is not None]
    works[0].answer(frames[0])
    with pytest.raises(SplitError, match="device 1 begins a batch on a shared half while one of device 0 is under way"):
        works[1].answer(frames[1])
    works[0].drop()
    assert_same(shared.arrays(), half.arrays)
    assert works[1].answer(frames[1]).kind is Kind.OUTPUTS
    works[0].drop()  # not its turn: nothing of the other's is lost
    assert shared.turn is works[1]
