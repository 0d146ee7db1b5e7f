"""What an order adds to training, samples, noise, NoPeek, and what carries a conversation: bytes, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from split_cases import (
    CASES,
    Whole,
    assert_same,
    assert_same_whole,
    cloud_of,
    device_of,
    joined,
    make_order,
    split,
    start_of,
)
from torch import nn

from flower_edge.errors import SplitError
from flower_edge.splitting.architecture import build
from flower_edge.splitting.conversation_torch import DeviceWork
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.leakage import distance_correlation
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.splitting.standardise import Standard

CASE = CASES["fan"]


@pytest.fixture(scope="module")
def model() -> CutModel:
    return CASE.cut_model()


def test_samples_are_standardised_before_the_first_unit(model: CutModel) -> None:
    x, y = CASE.data()
    standard = Standard("z-score")
    standard = standard.fitted(standard.moments(x + 3))
    order, start = make_order(3), start_of(CASE)
    got, _ = split(order.model_copy(update={"standard": standard.config()}), model, x + 3, y, start)
    expected, _ = split(order, model, standard.apply(x + 3), y, start)
    assert_same_whole(got, expected)
    assert not np.array_equal(got.arrays["last.bias"], split(order, model, x, y, start)[0].arrays["last.bias"])


def test_noise_is_on_what_is_sent_and_not_on_what_the_device_computes_with(model: CutModel) -> None:
    x, y = CASE.data()
    clean, noisy = (device_of(make_order(3, noise=std), model, x, y, start_of(CASE)) for std in (0.0, 0.1))
    one, other, again = (
        clean.next(None),
        noisy.next(None),
        device_of(noisy.order, model, x, y, start_of(CASE)).next(None),
    )
    assert one is not None
    assert other is not None
    assert again is not None
    differences = np.concatenate([(a - b).ravel() for a, b in zip(one.tensors, other.tensors, strict=True)])
    assert 0.05 < differences.std() < 0.2
    assert_same(dict(enumerate(other.tensors)), dict(enumerate(again.tensors)))  # type: ignore[arg-type]
    gradients = tuple(np.ones_like(tensor) for tensor in one.tensors)
    for device in (clean, noisy):
        device.next(Frame(Kind.GRADIENT, 0, gradients, loss=1.0))
    assert_same(clean.state()["arrays"], noisy.state()["arrays"])


def test_nopeek_makes_tensors_at_the_cut_tell_less_of_the_samples() -> None:
    model = CASE.cut_model()
    x, y = CASE.data(32)
    told = {}
    for weight in (0.0, 5.0):
        order = make_order(4, nopeek=weight, steps=25, batch_size=32)
        got, loss = split(order, model, x, y, start_of(CASE))
        assert np.isfinite(loss)
        trained = CASE.model()
        trained.load_state_dict({name: torch.tensor(array) for name, array in got.arrays.items()})
        stage = CutModel.of(trained.train(), torch.tensor(x[:4])).stage(0, 4)
        with torch.no_grad():
            told[weight] = distance_correlation(x, [tensor.numpy() for tensor in stage(torch.tensor(x))])
    assert told[5.0] < told[0.0] - 0.1


def test_frames_as_bytes_without_a_codec_change_nothing(model: CutModel) -> None:
    x, y = CASE.data()
    start = start_of(CASE)
    for changes in ({}, {"labels": "device", "tail": 2}):
        order = make_order(4, **changes).model_copy(
            update={"architecture": make_order(4).architecture.model_copy(update={"num_classes": CASE.classes})}
        )
        coder = FrameCoder(order, model.profile())
        expected, _ = split(order, model, x, y, start)
        device, cloud = device_of(order, model, x, y, start), cloud_of(order, model, start)
        frame = device.next(None)
        while frame is not None:
            answer = cloud.answer(coder.decode(coder.encode(frame), frame.kind, frame.step))
            frame = device.next(coder.decode(coder.encode(answer), answer.kind, answer.step))
        assert_same_whole(joined(model, device.result(), cloud.result()), expected)


def test_a_unit_that_replaces_its_buffer_is_refused_not_lost() -> None:
    class Counting(nn.Module):
        seen: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + len(x)
            out: torch.Tensor = self.linear(x)
            return out

    blocks = nn.Sequential(Counting(), nn.Linear(2, 2))
    start = {name: tensor.numpy().copy() for name, tensor in blocks.state_dict().items()}
    x, y = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
    cut = CutModel.of(blocks, torch.tensor(x), blocks=("0", "1"))
    with pytest.raises(SplitError, match=r"buffer '0\.seen' is replaced in forward"):
        DeviceWork(make_order(2), cut, x, y, start, {}).next(None)


def test_devices_in_threads_of_one_process_draw_what_each_would_draw_alone() -> None:
    case = CASES["dropout"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    orders = [make_order(6, number=number, seed=number, steps=30) for number in range(4)]
    expected = [split(order, model, x, y, start)[0] for order in orders]
    together = threading.Barrier(len(orders))

    def run(number: int) -> Whole:
        together.wait()
        return split(orders[number], model, x, y, start)[0]

    with ThreadPoolExecutor(len(orders)) as pool:
        for got, alone in zip(pool.map(run, range(len(orders))), expected, strict=True):
            assert_same_whole(got, alone)


def test_building_and_cutting_in_one_thread_does_not_disturb_what_another_draws() -> None:
    case = CASES["dropout"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    order = make_order(6, steps=20)
    expected = split(order, model, x, y, start)[0]
    mlp = ArchitectureSpec(name="mlp", input_shape=(5,), num_classes=3)
    first = build(mlp, seed=4).model.state_dict()
    over = threading.Event()

    def build_on() -> None:
        while not over.is_set():
            again = build(mlp, seed=4).model.state_dict()
            assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())

    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build_on)
        try:
            for _ in range(3):
                assert_same_whole(split(order, model, x, y, start)[0], expected)
        finally:
            over.set()
        building.result()
