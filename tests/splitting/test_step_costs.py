"""What a step is modelled to cost: computing, bits, memory. Predicted bits are compared with real frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from plan_toy import FOUR, device, resnet_profile

from flower_edge.splitting.capacity import Cloud
from flower_edge.splitting.codec_pairs import codecs_named
from flower_edge.splitting.costs import Job, memory_bytes, unit_flops
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import FrameCoder
from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
from flower_edge.splitting.planner import FixedCut

JOB = Job(batch_size=10, steps=5)


def test_a_step_costs_computing_both_ways_of_the_link_and_a_share_of_the_cloud() -> None:
    devices = {0: device(1e9, 1e8, 0.01), 1: device(2e9, 1e8, 0.01)}
    plan = FixedCut(1, cloud=Cloud(1e10), job=Job(batch_size=10, label_bytes=0)).plan(FOUR, devices, 1)
    one = plan.assignments[0]
    frame_bits = 8 * 64 + 10 * 4000 * 32
    assert (one.up_bits, one.down_bits) == (frame_bits, frame_bits)
    assert one.compute_s == pytest.approx(10 * 1e6 / 1e9)
    assert one.transfer_s == pytest.approx(2 * frame_bits / 1e8 + 2 * 0.01)
    assert one.cloud_s == pytest.approx(10 * 3e6 / (1e10 / 2))
    assert plan.assignments[1].compute_s == pytest.approx(one.compute_s / 2)
    assert one.step_s == pytest.approx(one.compute_s + one.transfer_s + one.cloud_s)


def test_with_labels_on_the_device_outputs_and_their_gradients_travel_too() -> None:
    devices = {0: device(delay_s=0.01)}
    plain = FixedCut(1, job=Job(batch_size=10, label_bytes=0)).plan(FOUR, devices, 1).assignments[0]
    shaped = FixedCut(1, job=Job(batch_size=10, labels="device", tail=1)).plan(FOUR, devices, 1).assignments[0]
    more_bits = 8 * 64 + 10 * 1000 * 32
    assert shaped.up_bits == plain.up_bits + more_bits
    assert shaped.down_bits == plain.down_bits + more_bits
    assert shaped.compute_s == pytest.approx(2 * plain.compute_s)
    assert shaped.transfer_s - plain.transfer_s == pytest.approx(2 * more_bits / 1e8 + 2 * 0.01)


def test_labels_count_where_they_travel() -> None:
    bits = [
        FixedCut(2, job=Job(batch_size=10, label_bytes=size)).plan(FOUR, {0: device()}, 1).assignments[0].up_bits
        for size in (0, 2)
    ]
    assert bits[1] - bits[0] == 8 * 10 * 2


def test_a_timed_profile_counts_seconds_and_keeps_the_sum() -> None:
    timed = replace(
        FOUR,
        units=tuple(
            replace(one, forward_s=at, backward_s=at) for at, one in zip((1.0, 1.0, 1.0, 5.0), FOUR.units, strict=True)
        ),
    )
    np.testing.assert_allclose(unit_flops(timed), [0.5e6, 0.5e6, 0.5e6, 2.5e6])
    np.testing.assert_allclose(unit_flops(FOUR), 1e6)


def test_memory_grows_with_the_cut_and_with_what_the_optimiser_keeps() -> None:
    needs = [memory_bytes(FOUR, cut, JOB) for cut in range(5)]
    assert needs == sorted(needs)
    assert needs[0] == 4 * 10 * 1000
    assert needs[1] - needs[0] == 40 + 40 + 40 + 4 * 10 * 4000
    assert memory_bytes(FOUR, 4, replace(JOB, state_copies=2)) - needs[4] == 4 * 40


@pytest.mark.parametrize("name", ["none", "fp16", "int8", "int4", "int4/int8", "int2"])
@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_predicted_bits_are_those_of_real_frames_within_a_hundredth(
    name: str, labels: Literal["cloud", "device"]
) -> None:
    profile, batch, codecs = resnet_profile(), 32, codecs_named(name)
    cut = next(one.position for one in profile.cuts if one.name == "conv2")
    job = Job(batch_size=batch, labels=labels)
    predicted = FixedCut(cut, codecs, job=job).plan(profile, {0: device()}, 1).assignments[0]
    spec = ArchitectureSpec(name="resnet", input_shape=(1, 32, 32), num_classes=10)
    order = WorkOrder(
        round=1,
        number=0,
        architecture=spec,
        cut=cut,
        labels=labels,
        steps=1,
        batch_size=batch,
        up=None if codecs.up is None else dict(codecs.up),
        down=None if codecs.down is None else dict(codecs.down),
    )
    drawn = np.random.default_rng(0)

    def frame_bits(kind: Kind, position: int) -> int:
        shapes = profile.cuts[position].shapes
        tensors = tuple(drawn.standard_normal((batch, *shape)).astype(np.float32) for shape in shapes)
        y = drawn.integers(0, 10, batch) if kind == Kind.ACTIVATIONS and labels == "cloud" else None
        loss = 1.0 if kind == Kind.OUTPUT_GRADIENT or (kind == Kind.GRADIENT and labels == "cloud") else np.nan
        return 8 * len(FrameCoder(order, profile).encode(Frame(kind, 0, tensors, y, loss)))

    up_bits, down_bits = frame_bits(Kind.ACTIVATIONS, cut), frame_bits(Kind.GRADIENT, cut)
    if labels == "device":
        up_bits += frame_bits(Kind.OUTPUT_GRADIENT, profile.last)
        down_bits += frame_bits(Kind.OUTPUTS, profile.last)
    assert predicted.up_bits == pytest.approx(up_bits, rel=0.01)
    assert predicted.down_bits == pytest.approx(down_bits, rel=0.01)
