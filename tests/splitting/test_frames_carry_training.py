"""Real training through the bytes of frames: without codecs it is the very same; with them it is what `heard` says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from split_cases import CASES, assert_same_whole, cloud_of, device_of, joined, make_order, split, start_of

from flower_edge.splitting.conversation_torch import converse
from flower_edge.splitting.cut_codecs import cut_codec
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.order import ArchitectureSpec


@pytest.mark.parametrize("labels", ["cloud", "device"])
@pytest.mark.parametrize("name", ["char-transformer", "dropout", "resnet"])
def test_without_codecs_bytes_change_no_bit_of_any_round_at_any_cut(name: str, labels: Any) -> None:
    case = CASES[name]
    model, (x, y), whole = case.cut_model(), case.data(), start_of(case)
    spec = ArchitectureSpec(name="test", input_shape=case.shape, num_classes=case.classes)
    last = len(model.units)
    tail = 1 if labels == "device" else 0
    for cut in sorted({0, 1, last // 2, last - 2}):
        order = make_order(cut, labels=labels, tail=tail).model_copy(update={"architecture": spec})
        coder = FrameCoder(order, model.profile())
        device, cloud = device_of(order, model, x, y, whole), cloud_of(order, model, whole)

        def through(frame: Frame, coder: FrameCoder = coder, cloud: Any = cloud) -> Frame:
            return coder.heard(cloud.answer(coder.heard(frame)))

        converse(device, through)
        expected, loss = split(order, model, x, y, whole)
        assert_same_whole(joined(model, device.result(), cloud.result()), expected)
        assert device.result().loss == loss


def test_the_cloud_learns_from_rounded_tensors_and_the_device_from_rounded_gradients() -> None:
    case = CASES["resnet"]
    model, (x, y), whole = case.cut_model(), case.data(), start_of(case)
    spec = ArchitectureSpec(name="test", input_shape=case.shape, num_classes=case.classes)
    ways = {"up": cut_codec("int4", "up"), "down": cut_codec("int8", "down")}
    order = make_order(3, steps=1, **ways).model_copy(update={"architecture": spec})
    coder = FrameCoder(order, model.profile())
    device, cloud = device_of(order, model, x, y, whole), cloud_of(order, model, whole)
    said = device.next(None)
    assert said is not None
    assert said.kind is Kind.ACTIVATIONS
    heard = coder.heard(said)
    assert 4 <= len(np.unique(heard.tensors[0])) < len(np.unique(said.tensors[0]))
    assert device.next(coder.heard(cloud.answer(heard))) is None
    rounded = joined(model, device.result(), cloud.result())
    plain, _ = split(order, model, x, y, whole)
    moved = [float(np.abs(plain.arrays[name] - array).max()) for name, array in rounded.arrays.items()]
    assert 0 < max(moved) < 0.05
