"""What a connection makes of its tensors: the bytes, the values, and what hostile bytes are answered with."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import CodecError, FringeError, ProtocolError
from flower_edge.fringe.wire import HEADER_BYTES, TensorSpec, Wire
from flower_edge.fringe.wire_forms import PLAIN, TensorWire, WireForm
from flower_edge.fringe.wire_torch import carried, carried_one

CUT = TensorSpec("relu", (4, 5, 3))


def activations(batch: int = 3, shape: tuple[int, ...] = CUT.shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 2.0, (batch, *shape)).astype(np.float32)


FORMS = st.builds(
    WireForm,
    bits=st.sampled_from([32, 16, 8, 4, 2]),
    per=st.sampled_from(["channel", "tensor"]),
    keep=st.none() | st.sets(st.integers(0, 1), min_size=1).map(lambda kept: tuple(sorted(kept))),
    fraction=st.sampled_from([1.0, 0.5, 0.25, 0.01]),
    axis=st.sampled_from([0, -1]),
)
SHAPES = st.lists(st.integers(2, 5), min_size=1, max_size=3).map(tuple)
VALUES = st.floats(-(2.0**127), 2.0**127, width=32)


@settings(max_examples=60, deadline=None)
@given(form=FORMS, shape=SHAPES, batch=st.integers(1, 3), data=st.data())
def test_what_is_evaluated_is_what_is_sent_bit_for_bit_and_has_the_length_foretold(
    form: WireForm, shape: tuple[int, ...], batch: int, data: st.DataObject
) -> None:
    count = batch * int(np.prod(shape))
    x = np.array(data.draw(st.lists(VALUES, min_size=count, max_size=count)), np.float32).reshape(batch, *shape)
    wire = Wire.plain([TensorSpec("a", shape)]).formed(form)
    sent = wire.encode([x])
    assert len(sent) == wire.size_bytes(batch)
    heard, arrived = wire.heard([x])[0], wire.decode(sent)[0]
    assert heard.tobytes() == arrived.tobytes()
    assert heard.shape == arrived.shape == x.shape
    assert np.isfinite(heard).all()


@settings(max_examples=30, deadline=None)
@given(form=FORMS, shape=SHAPES, seed=st.integers(0, 99))
def test_a_sample_is_the_same_in_every_batch(form: WireForm, shape: tuple[int, ...], seed: int) -> None:
    x, wire = activations(4, shape, seed), Wire.plain([TensorSpec("a", shape)]).formed(form)
    together = wire.heard([x])[0]
    assert all(np.array_equal(wire.heard([x[i : i + 1]])[0], together[i : i + 1]) for i in range(4))


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_no_number_moves_by_more_than_half_a_step_of_its_own_range(bits: int, per: str) -> None:
    x = activations(2, (3, 40))
    x[:, 1] *= 100
    heard = TensorWire(WireForm(bits, per), (3, 40)).heard(x)  # type: ignore[arg-type]
    shared = x if per == "channel" else x.reshape(2, 1, -1)
    # Low and step have 8 bits of mantissa: the range is a little wider than that of the numbers.
    low = shared.min(axis=2, keepdims=True)
    step = (shared.max(axis=2, keepdims=True) - low + np.abs(low) * 2**-7) * (1 + 2**-7) / (2**bits - 1)
    assert (np.abs(heard - x) <= step / 2 * 1.0001).all()


def test_sixteen_bits_are_fp16_and_thirty_two_are_exact() -> None:
    x = activations()
    assert np.array_equal(TensorWire(WireForm(16), CUT.shape).heard(x), x.astype(np.float16).astype(np.float32))
    assert np.array_equal(TensorWire(PLAIN, CUT.shape).heard(x), x)


def test_dropped_channels_are_zero_and_the_others_untouched() -> None:
    x = activations()
    wire = Wire.plain([CUT]).formed(WireForm(keep=(0, 2)))
    heard = wire.heard([x])[0]
    assert np.array_equal(heard[:, [0, 2]], x[:, [0, 2]])
    assert not heard[:, [1, 3]].any()
    assert wire.size_bytes() == HEADER_BYTES + 2 * 15 * 4


def test_features_of_a_sequence_are_dropped_along_their_own_axis() -> None:
    x = activations(2, (5, 4))
    heard = TensorWire(WireForm(keep=(1, 3), axis=-1), (5, 4)).heard(x)
    assert np.array_equal(heard[..., [1, 3]], x[..., [1, 3]])
    assert not heard[..., [0, 2]].any()


def test_the_largest_are_kept_and_of_equal_ones_the_first() -> None:
    x = np.array([[3, -5, 1, 5, 5, 0, 0, 2]], np.float32)
    wire = TensorWire(WireForm(fraction=3 / 8), (8,))
    assert wire.heard(x).tolist() == [[0, -5, 0, 5, 5, 0, 0, 0]]
    assert TensorWire(WireForm(fraction=2 / 8), (8,)).heard(x).tolist() == [[0, -5, 0, 5, 0, 0, 0, 0]]
    assert wire.size_bytes == 1 + 3 * 4


@pytest.mark.parametrize(
    ("form", "size"),
    [
        (PLAIN, 65_560),
        (WireForm(16), 32_792),
        (WireForm(8), 16_472),
        (WireForm(4), 8_280),
        (WireForm(2), 4_184),
        (WireForm(8, fraction=0.25), 6_172),
    ],
)
def test_bytes_of_sixteen_channels_of_a_picture(form: WireForm, size: int) -> None:
    assert Wire.plain([TensorSpec("relu", (16, 32, 32))]).formed(form).size_bytes() == size


@pytest.mark.parametrize(("channels", "side", "size"), [(4, 16, 552), (8, 8, 312), (2, 16, 288)])
def test_bytes_of_an_encoders_four_bits(channels: int, side: int, size: int) -> None:
    assert Wire.plain([TensorSpec("pair", (channels, side, side))]).formed(WireForm(4)).size_bytes() == size


def test_whole_numbers_travel_beside_floats_as_they_are() -> None:
    specs = [CUT, TensorSpec("mask", (3,), "bool"), TensorSpec("symbols", (2,), "int64")]
    wire = Wire.plain(specs).formed(WireForm(4))
    assert wire.forms == (WireForm(4), PLAIN, PLAIN)
    tensors = [activations(), np.array([[True, False, True]] * 3), np.arange(6).reshape(3, 2)]
    arrived = wire.decode(wire.encode(tensors))
    assert all(np.array_equal(a, b) for a, b in zip(arrived[1:], tensors[1:], strict=True))
    assert [a.dtype for a in arrived] == [np.float32, np.bool_, np.int64]
    bad = bytearray(wire.encode(tensors))
    bad[HEADER_BYTES + wire._sizes[0] * 3] = 2
    with pytest.raises(ProtocolError, match="'mask' holds 2, expected 0 or 1"):
        wire.decode(bytes(bad))


def test_a_frame_says_its_version_and_request_and_is_read_with_the_same_wire_only() -> None:
    wire = Wire.plain([CUT], 3).formed(WireForm(8))
    sent = wire.encode([activations()], version=7, request=2**40)
    assert wire.head(sent) == (7, 2**40, 3)
    with pytest.raises(ProtocolError, match="connection = 3, expected 0"):
        Wire.plain([CUT], 0).formed(WireForm(8)).decode(sent)
    with pytest.raises(ProtocolError, match="give both ends the same form"):
        wire.formed(WireForm(4)).decode(sent)


@pytest.mark.parametrize("form", [PLAIN, WireForm(16), WireForm(4), WireForm(8, fraction=0.3), WireForm(2, keep=(1,))])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_bytes_come_are_answered_with_tensors_or_a_protocol_error(form: WireForm, data: st.DataObject) -> None:
    wire = Wire.plain([CUT]).formed(form)
    sent = bytearray(wire.encode([activations(2)]))
    for _ in range(data.draw(st.integers(1, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    sent = sent[: data.draw(st.integers(len(sent) - 2, len(sent)))] + data.draw(st.binary(max_size=2))
    try:
        arrived = wire.decode(bytes(sent))[0]
    except ProtocolError:
        return
    assert arrived.shape[1:] == CUT.shape
    assert np.isfinite(arrived).all()


def test_numbers_that_are_none_are_refused_at_both_ends() -> None:
    wire = Wire.plain([CUT])
    bad = activations()
    bad[1, 2, 3, 0] = np.inf
    for attempt in (wire.encode, wire.heard):
        with pytest.raises(CodecError, match="inf"):
            attempt([bad])
    sent = bytearray(wire.encode([activations()]))
    sent[HEADER_BYTES : HEADER_BYTES + 4] = struct.pack("<f", np.nan)
    with pytest.raises(ProtocolError, match="nan"):
        wire.decode(bytes(sent))


def test_a_frame_of_more_samples_than_allowed_or_of_none_is_refused() -> None:
    wire = Wire.plain([CUT])
    with pytest.raises(ProtocolError, match="3 samples, expected 1 to 2"):
        wire.decode(wire.encode([activations()]), most_samples=2)
    with pytest.raises(FringeError, match="no sample"):
        wire.encode([activations(0)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 3}, "bits = 3: expected 32, 16, 8, 4 or 2"),
        ({"bits": 8.0}, "bits = 8.0"),
        ({"per": "block"}, "expected 'channel' or 'tensor'"),
        ({"keep": ()}, "one channel or more"),
        ({"keep": (2, 1)}, "rising"),
        ({"keep": (0.5,)}, "numbers of channels"),
        ({"fraction": 0.0}, "more than 0"),
        ({"fraction": True}, "more than 0"),
        ({"axis": "0"}, "axis = '0'"),
    ],
)
def test_a_form_that_is_none_says_what_is_expected(options: dict[str, object], said: str) -> None:
    with pytest.raises(FringeError, match=said):
        WireForm(**options)  # type: ignore[arg-type]


def test_a_form_that_does_not_go_with_its_tensor_is_refused_before_anything_is_sent() -> None:
    for form, said in ((WireForm(keep=(4,)), "of 4 channels"), (WireForm(axis=3), "one of its axes")):
        with pytest.raises(FringeError, match=said):
            Wire.plain([CUT]).formed(form)
    with pytest.raises(FringeError, match="whole numbers take"):
        Wire.plain([TensorSpec("n", (2,), "int64")]).formed([WireForm(4)])
    with pytest.raises(FringeError, match="cast the model"):
        TensorSpec("a", (2,), "float64")
    with pytest.raises(FringeError, match=r"expected \[batch, 4, 5, 3\] of float32"):
        Wire.plain([CUT]).encode([activations().astype(np.float64)])


def test_forms_and_wires_go_to_plain_values_and_back() -> None:
    wire = Wire.plain([CUT, TensorSpec("n", (2,), "int64")], 2).formed(WireForm(4, "tensor", (0, 3), 0.5))
    assert Wire.from_config(wire.config()) == wire
    for bad in ({}, {**wire.config(), "tensors": [{"name": "a"}]}):
        with pytest.raises(FringeError, match=r"what Wire\.config gives"):
            Wire.from_config(bad)
    with pytest.raises(FringeError, match="expected a dict of"):
        WireForm.from_config({"bits": 4})


def test_torch_tensors_are_carried_as_they_are_sent_and_gradients_pass_straight_through() -> None:
    wire, x = Wire.plain([CUT]).formed(WireForm(2)), activations()
    leaf = torch.from_numpy(x.copy()).requires_grad_()
    (out,) = carried(wire, [leaf])
    assert np.array_equal(out.detach().numpy(), wire.decode(wire.encode([x]))[0])
    weight = torch.arange(x.size, dtype=torch.float32).reshape(x.shape)
    (out * weight).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, weight)
    assert torch.equal(carried_one(WireForm(2), torch.from_numpy(x)), out.detach())


@pytest.mark.parametrize("places", [0b0000_0001, 0b0000_0111, 0b1100_0000], ids=["one", "three", "behind the last"])
def test_a_bitmap_of_another_number_of_places_is_refused(places: int) -> None:
    wire = Wire.plain([TensorSpec("a", (6,))]).formed(WireForm(fraction=1 / 3))
    sent = bytearray(wire.encode([np.array([[5, 1, 1, 1, 1, 4]], np.float32)]))
    assert sent[HEADER_BYTES] == 0b0010_0001
    sent[HEADER_BYTES] = places
    with pytest.raises(ProtocolError, match="bitmap"):
        wire.decode(bytes(sent))
