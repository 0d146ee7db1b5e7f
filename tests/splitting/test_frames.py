"""Frames as bytes: what is heard is what was said up to the codec, and whatever else comes in is a ProtocolError."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.codecs.sign import Sign
from flower_edge.errors import CodecError, ProtocolError, SplitError
from flower_edge.splitting.cut_codecs import cut_codec, error_bound
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import HEADER_BYTES, FrameCoder
from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
from flower_edge.splitting.profile import CutProfile, ModelProfile, UnitProfile

#: Tokens and a picture go in; a skip connection crosses cut 1; 10 classes come out.
PROFILE = ModelProfile(
    tuple(UnitProfile(f"unit{i}", 1.0, 2.0) for i in range(3)),
    (
        CutProfile(0, ((6,), (3, 4)), (False, False), "input"),
        CutProfile(1, ((2, 4, 4), (5,), (6,)), (True, True, False), "unit0"),
        CutProfile(2, ((7,),), (True,), "unit1"),
        CutProfile(3, ((10,),), (True,), "unit2"),
    ),
)
NAMES = ["none", "fp16", "bf16", "int8", "int4", "int2", "top10"]


def order_of(**changes: Any) -> WorkOrder:
    values: dict[str, Any] = {
        "round": 4,
        "number": 2,
        "architecture": ArchitectureSpec(name="net", input_shape=(6,), num_classes=10),
        "cut": 1,
        "steps": 5,
        "batch_size": 8,
    }
    return WorkOrder(**{**values, **changes})


def coder_of(**changes: Any) -> FrameCoder:
    return FrameCoder(order_of(**changes), PROFILE)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def activations(batch: int = 8, step: int = 7, labels: bool = True) -> Frame:
    whole = np.arange(6 * batch).reshape(batch, 6) % 300
    tensors = (np.maximum(floats(batch, 2, 4, 4), 0), floats(batch, 5), whole)
    return Frame(Kind.ACTIVATIONS, step, tensors, np.arange(batch) % 10 if labels else None)


def gradient(batch: int = 8, step: int = 7) -> Frame:
    return Frame(Kind.GRADIENT, step, (floats(batch, 2, 4, 4, seed=1), floats(batch, 5, seed=1)), loss=1.25)


def same(one: Frame, other: Frame) -> bool:
    return (
        (one.kind, one.step) == (other.kind, other.step)
        and (one.loss == other.loss or (math.isnan(one.loss) and math.isnan(other.loss)))
        and len(one.tensors) == len(other.tensors)
        and all(
            a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one.tensors, other.tensors, strict=True)
        )
        and (one.labels is None) == (other.labels is None)
        and (one.labels is None or other.labels is None or np.array_equal(one.labels, other.labels))
    )


# -- what was said is what is heard ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_without_codecs_every_frame_arrives_bit_for_bit(batch: int, labels: str) -> None:
    coder, tail = coder_of(labels=labels, tail=1 if labels == "device" else 0), (floats(batch, 7),)
    back = gradient(batch)
    frames = [activations(batch, labels=True), back]
    if labels == "device":
        back = Frame(Kind.GRADIENT, 7, back.tensors)
        ends = [Frame(Kind.OUTPUTS, 7, tail), Frame(Kind.OUTPUT_GRADIENT, 7, tail, loss=0.5)]
        frames = [activations(batch, labels=False), *ends, back]
    for frame in frames:
        data = coder.encode(frame)
        assert same(coder.decode(data, frame.kind, 7, batch=batch), frame)
        assert len(data) <= coder.most_bytes(frame.kind)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_heard_is_within_the_codecs_bound_and_is_the_same_each_time(name: str) -> None:
    coder = coder_of(up=cut_codec(name, "up"), down=cut_codec(name, "down"))
    for frame, config in ((activations(), coder.order.up), (gradient(), coder.order.down)):
        heard = coder.heard(frame)
        assert same(heard, coder.heard(frame))
        assert same(heard, FrameCoder(coder.order, PROFILE).decode(coder.encode(frame), frame.kind, 7))
        for sent, came in zip(frame.tensors, heard.tensors, strict=True):
            assert came.flags.writeable
            if sent.dtype != np.float32:
                np.testing.assert_array_equal(sent, came)
                continue
            bound = error_bound(config, sent)
            assert bound is not None
            assert (np.abs(sent.astype(np.float64) - came) <= bound * (1 + 1e-5) + 1e-7).all()


def test_frames_leave_what_they_are_made_of_alone() -> None:
    frame = activations()
    before = [tensor.tobytes() for tensor in frame.tensors]
    coder_of(up=cut_codec("int2", "up")).encode(frame)
    assert before == [tensor.tobytes() for tensor in frame.tensors]


def test_random_rounding_differs_by_step_seed_device_round_direction_and_tensor() -> None:
    config = {**(cut_codec("int2", "up") or {}), "stochastic": True}
    one = floats(8, 7)

    def sent(kind: Kind = Kind.OUTPUTS, step: int = 7, **changes: Any) -> bytes:
        coder = coder_of(labels="device", tail=1, up=config, down=config, **changes)
        return coder.encode(Frame(kind, step, (one,), loss=1.0))[HEADER_BYTES:]

    different = {sent(), sent(step=8), sent(number=3), sent(seed=1), sent(Kind.OUTPUT_GRADIENT)}
    assert len(different) == 5
    assert sent() == sent()
    profile = ModelProfile(PROFILE.units[:1], (PROFILE.cuts[0], CutProfile(1, ((7,), (7,)), (True, True))))
    coder = FrameCoder(order_of(cut=1, labels="device", up=config), profile)
    first, second = coder.heard(Frame(Kind.ACTIVATIONS, 0, (one, one))).tensors
    assert (first != second).any()


def test_a_frame_of_four_bit_tensors_costs_what_its_parts_cost() -> None:
    data = coder_of(up=cut_codec("int4", "up")).encode(activations())
    head, labels, heads = HEADER_BYTES, 8, 3 * 5
    assert len(data) == head + labels + heads + (4 * 4 + 128) + (4 * 1 + 20) + 6 * 8


def test_whole_numbers_travel_in_as_few_bytes_as_they_need_and_keep_their_kind() -> None:
    profile = ModelProfile(PROFILE.units[:1], (PROFILE.cuts[0], CutProfile(1, ((3,),), (False,))))
    for values, dtype, each in (
        ([0, 1, 255], np.int64, 1),
        ([-1, 1, 100], np.int64, 1),
        ([0, 1, 256], np.int64, 2),
        ([0, -1, 40_000], np.int32, 4),
        ([0, 1, 2**40], np.int64, 8),
        ([5, -6, 7], np.int8, 1),
        ([0, 1, 1], np.bool_, 1),
        ([0, 2**32 - 1, 1], np.uint32, 4),
    ):
        coder = FrameCoder(order_of(labels="device", up=cut_codec("int2", "up")), profile)
        frame = Frame(Kind.ACTIVATIONS, 0, (np.array([values], dtype),))
        data = coder.encode(frame)
        assert len(data) == HEADER_BYTES + 5 + 3 * each
        assert same(coder.decode(data, Kind.ACTIVATIONS, 0), frame)


@pytest.mark.parametrize(("classes", "each"), [(2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_labels_travel_in_as_few_bytes_as_there_are_classes(classes: int, each: int) -> None:
    spec = ArchitectureSpec(name="net", input_shape=(6,), num_classes=classes)
    coder, frame = coder_of(architecture=spec, cut=2), Frame(Kind.ACTIVATIONS, 0, (floats(2, 7),), np.array([0, 1]))
    last = Frame(Kind.ACTIVATIONS, 0, frame.tensors, np.array([classes - 1, 0]))
    assert len(coder.encode(frame)) == HEADER_BYTES + 2 * each + 5 + 56
    assert coder.heard(last).labels.tolist() == [classes - 1, 0]  # type: ignore[union-attr]


def test_where_nothing_at_the_cut_has_a_gradient_the_answer_is_the_loss_alone() -> None:
    coder, frame = coder_of(cut=0, down=cut_codec("int8", "down")), Frame(Kind.GRADIENT, 7, (), loss=0.75)
    data = coder.encode(frame)
    assert len(data) == HEADER_BYTES
    assert same(coder.decode(data, Kind.GRADIENT, 7, batch=8), frame)
    with pytest.raises(ProtocolError, match="samples = 5, expected 0"):
        coder.decode(data[:4] + b"\5" + data[5:], Kind.GRADIENT, 7)


def test_labels_of_a_context_and_numbers_to_be_hit_arrive_as_they_are() -> None:
    context = np.arange(16).reshape(8, 2) % 10
    frame = Frame(Kind.ACTIVATIONS, 0, (floats(8, 7),), context)
    np.testing.assert_array_equal(coder_of(cut=2).heard(frame).labels, context)
    numbers = Frame(Kind.ACTIVATIONS, 0, (floats(8, 7),), floats(8, 10))
    heard = coder_of(cut=2, loss="mse").heard(numbers).labels
    assert heard is not None
    assert heard.dtype == np.float32
    np.testing.assert_array_equal(heard, numbers.labels)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors), "ACTIVATIONS without labels"),
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors, np.arange(7)), r"labels of shape \(7,\), expected 8"),
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors, np.full(8, 10)), "label 10, expected 0 to 9"),
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors, np.full(8, -1)), "label -1, expected 0 to 9"),
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors, np.full(8, 0.5)), "labels of float64, expected whole"),
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors, np.zeros((8, 11), int)), "expected 1 to 10 per sample"),
        (Frame(Kind.ACTIVATIONS, 0, activations().tensors[:2], np.arange(8)), "of 2 tensors, expected 3"),
        (Frame(Kind.ACTIVATIONS, 0, activations(9).tensors, np.arange(9)), "of 9 samples, expected 1 to 8"),
        (Frame(Kind.GRADIENT, 0, gradient().tensors), "loss = nan, expected a finite one"),
        (Frame(Kind.GRADIENT, 0, gradient().tensors, np.arange(8), 1.0), "GRADIENT with labels"),
        (
            Frame(Kind.GRADIENT, 0, tuple(t.astype(np.float64) for t in gradient().tensors), loss=1.0),
            "float64, expected",
        ),
        (
            Frame(Kind.GRADIENT, 0, (floats(8, 4, 4), floats(8, 5)), loss=1.0),
            r"shape \(8, 4, 4\), expected \(8, 2, 4, 4\)",
        ),
    ],
)
def test_a_frame_that_is_not_of_this_round_is_not_encoded(frame: Frame, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        coder_of().encode(frame)


@pytest.mark.parametrize("name", ["none", "int4"])
def test_a_tensor_that_is_not_finite_is_refused_at_both_ends(name: str) -> None:
    coder = coder_of(down=cut_codec(name, "down"))
    bad = gradient()
    bad.tensors[1][0, 0] = np.nan
    with pytest.raises(CodecError, match="'gradient 1' holds nan"):
        coder.encode(bad)
    data = bytearray(coder_of().encode(gradient()))
    data[-4:] = np.float32(np.inf).tobytes()
    with pytest.raises(ProtocolError, match="tensor 1: 'gradient 1' holds inf"):
        coder_of().decode(bytes(data), Kind.GRADIENT, 7)


def test_the_error_says_what_came_and_what_was_expected() -> None:
    coder, data = coder_of(), coder_of().encode(activations())
    for made, message in (
        (lambda: coder.decode(data, Kind.GRADIENT, 7), "kind = 1, expected 2"),
        (lambda: coder.decode(data, Kind.ACTIVATIONS, 8), "step = 7, expected 8"),
        (lambda: coder_of(round=5).decode(data, Kind.ACTIVATIONS, 7), "round = 4, expected 5"),
        (lambda: coder_of(number=1).decode(data, Kind.ACTIVATIONS, 7), "number = 2, expected 1"),
        (lambda: coder_of(cut=2).decode(data, Kind.ACTIVATIONS, 7), "tensors = 3, expected 1"),
        (lambda: coder_of(batch_size=7).decode(data, Kind.ACTIVATIONS, 7), "8 samples, expected 1 to 7"),
        (lambda: coder.decode(data, Kind.ACTIVATIONS, 7, batch=5), "8 samples, expected 5"),
        (lambda: coder.decode(data + b"\0", Kind.ACTIVATIONS, 7), "1 bytes more than it needs"),
        (lambda: coder.decode(data[:-1], Kind.ACTIVATIONS, 7), "tensor 2 of 48 bytes, but 47 are left"),
        (lambda: coder.decode(b"", Kind.ACTIVATIONS, 7), "its head of 40 bytes, but 0 are left"),
        (lambda: coder.decode(b"\0" + data[1:], Kind.ACTIVATIONS, 7), "form = 0.*same flower-edge version"),
        (lambda: coder_of(labels="device").decode(data, Kind.ACTIVATIONS, 7), "axes of labels = 1, expected 0"),
    ):
        with pytest.raises(ProtocolError, match=message):
            made()
    for place, value, message in (
        (HEADER_BYTES, 10, "label 10, expected 0 to 9"),
        (HEADER_BYTES + 8, 0x11, "code 0x11, expected float32"),
        (len(data) - 53, 0xFF, "code 0xff, which there is not"),
        (3, 0, "axes of labels = 0, expected 1 to 6"),
    ):
        bad = bytearray(data)
        bad[place] = value
        with pytest.raises(ProtocolError, match=message):
            coder.decode(bytes(bad), Kind.ACTIVATIONS, 7)


def test_a_loss_is_finite_where_one_belongs_and_absent_elsewhere() -> None:
    coder, data = coder_of(), bytearray(coder_of().encode(gradient()))
    data[HEADER_BYTES - 8 : HEADER_BYTES] = np.float64(np.nan).tobytes()
    with pytest.raises(ProtocolError, match="loss = nan, expected a finite one"):
        coder.decode(bytes(data), Kind.GRADIENT, 7)
    data = bytearray(coder.encode(activations()))
    data[HEADER_BYTES - 8 : HEADER_BYTES] = np.float64(1).tobytes()
    with pytest.raises(ProtocolError, match=r"loss = 1.0, expected none in ACTIVATIONS"):
        coder.decode(bytes(data), Kind.ACTIVATIONS, 7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [Kind.ACTIVATIONS, Kind.GRADIENT])
def test_whatever_comes_in_is_a_frame_of_the_right_form_or_a_protocol_error(name: str, kind: Kind) -> None:
    coder = coder_of(up=cut_codec(name, "up"), down=cut_codec(name, "down"))
    good = activations() if kind is Kind.ACTIVATIONS else gradient()
    data = coder.encode(good)
    anywhere = st.integers(0, len(data) - 1)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(anywhere | st.integers(0, 70), st.integers(0, 255)), max_size=4),
        st.integers(-30, 30),
        st.binary(max_size=60),
    )
    def holds(changes: list[tuple[int, int]], by: int, more: bytes) -> None:
        bad = bytearray(data)
        for place, value in changes:
            bad[place] = value
        altered = bytes(bad[: len(bad) + min(by, 0)]) + more[: max(by, 0)]
        for given_ in (altered, more):
            try:
                frame = coder.decode(given_, kind, 7)
            except ProtocolError:
                continue
            assert 1 <= len(frame.tensors[0]) <= 8
            for tensor, like in zip(frame.tensors, good.tensors, strict=True):
                assert tensor.shape[1:] == like.shape[1:]
                assert np.isfinite(tensor).all()
            if frame.labels is not None:
                assert frame.labels.dtype == np.int64
                assert ((frame.labels >= 0) & (frame.labels < 10)).all()

    holds()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut": 4}, "cut = 4 and tail = 0 of a model of 3 units"),
        ({"cut": 2, "tail": 2, "labels": "device"}, "cut = 2 and tail = 2"),
        ({"tail": 1}, "tail = 1 while the cloud has the labels"),
    ],
)
def test_an_order_the_model_does_not_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        coder_of(**changes)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "zip"}, "codec of kind 'zip'"),
        ({"kind": "error_feedback", "inner": Sign().config()}, "remembers what came before"),
        ({"kind": "low_rank", "rank": 1}, "remembers what came before"),
        ({"kind": "delta", "inner": Sign().config()}, "takes whole models"),
    ],
)
def test_a_codec_that_cannot_be_used_at_a_cut_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        coder_of(up=config)
