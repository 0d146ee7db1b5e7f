"""How small a code is, before anything is trained."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.distil_recipe import DistilGoal, DistilRecipe, phases
from flower_edge.fringe.links import Link
from flower_edge.fringe.pair_shapes import PairShape, least_shape, pair_shapes, transfer_budget_bytes

PICTURES = ((16, 32, 32),)


@st.composite
def crossing(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """Shapes of tensors that a pair takes."""
    axes = draw(st.integers(1, 3))
    rest = {1: (), 2: (draw(st.integers(1, 12)),), 3: (draw(st.sampled_from([4, 8, 14])),) * 2}[axes]
    channels = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    return tuple((*rest, one) if axes == 2 else (one, *rest) for one in channels)


@settings(max_examples=40)
@given(crossing(), st.sampled_from([32, 16, 8, 4, 2]), st.sampled_from(["channel", "tensor"]), st.data())
def test_a_shape_costs_exactly_the_bytes_that_are_sent(
    tensors: tuple[tuple[int, ...], ...], bits: int, per: str, data: st.DataObject
) -> None:
    most = PairShape(tensors, 1).most_channels
    shape = PairShape(tensors, data.draw(st.integers(1, most)), bits=bits, per=per)  # type: ignore[arg-type]
    code = np.random.default_rng(0).normal(size=(1, *shape.code)).astype(np.float32)
    frame = shape.wire().encode([code])
    assert len(frame) == shape.size_bytes
    assert np.array_equal(shape.wire().decode(frame)[0], shape.code_wire.heard(code))
    assert shape.plain_bytes - 24 == 4 * sum(math.prod(one) for one in tensors)


@settings(max_examples=40)
@given(crossing(), st.integers(26, 3000))
def test_all_that_is_listed_fits_and_one_channel_more_does_not(
    tensors: tuple[tuple[int, ...], ...], budget_bytes: int
) -> None:
    if budget_bytes < least_shape(tensors).size_bytes:
        with pytest.raises(FringeError, match=f"the least attainable is {least_shape(tensors).size_bytes} bytes"):
            pair_shapes(tensors, budget_bytes)
        return
    found = pair_shapes(tensors, budget_bytes)
    assert [one.capacity_bits for one in found] == sorted((one.capacity_bits for one in found), reverse=True)
    for one in found:
        assert one.size_bytes <= budget_bytes
        if one.channels < one.most_channels:
            assert PairShape(tensors, one.channels + 1, one.stride, one.bits).size_bytes > budget_bytes


@pytest.mark.parametrize(
    ("channels", "side", "code", "stride", "bits", "size_bytes"),
    [
        (16, 32, 4, 2, 8, 1064),
        (32, 16, 8, 2, 8, 568),
        (16, 32, 4, 2, 4, 552),
        (32, 16, 8, 2, 4, 312),
        (16, 32, 2, 4, 4, 96),
    ],
)
def test_codes_of_the_small_resnet_cost_what_a_reader_reckons(
    channels: int, side: int, code: int, stride: int, bits: int, size_bytes: int
) -> None:
    shape = PairShape(((channels, side, side),), code, stride, bits)
    assert shape.size_bytes == size_bytes == 24 + 4 * code + code * (side // stride) ** 2 * bits // 8


def test_an_impossible_budget_is_refused_with_the_least_that_can_be_had() -> None:
    with pytest.raises(FringeError, match=r"budget of 31 bytes .* least attainable is 32 bytes .*stride 8, 2 bits"):
        pair_shapes(PICTURES, 31)
    assert pair_shapes(PICTURES, 32) == (least_shape(PICTURES),)
    with pytest.raises(FringeError, match=r"strides \(3,\)"):
        pair_shapes(PICTURES, 500, strides=(3,))


@given(crossing(), st.sampled_from([4, 2]))
@settings(max_examples=10)
def test_a_shape_survives_json(tensors: tuple[tuple[int, ...], ...], bits: int) -> None:
    shape = PairShape(tensors, 1, bits=bits)
    assert PairShape.from_config(json.loads(json.dumps(shape.config()))) == shape


@pytest.mark.parametrize(
    ("tensors", "options", "said"),
    [
        (PICTURES, {"channels": 0}, "channels = 0 .* expected 1 to 16"),
        (PICTURES, {"channels": 17}, "expected 1 to 16"),
        (PICTURES, {"channels": 1, "stride": 3}, "stride = 3 of pictures"),
        (PICTURES, {"channels": 1, "bits": 3}, "bits = 3"),
        (((10, 64),), {"channels": 4, "stride": 2}, "only pictures have a stride"),
        (((8, 8, 8), (8, 4, 4)), {"channels": 4}, "differ in their channels only"),
        (((8, 8, 8), (8,)), {"channels": 4}, "differ in their channels only"),
        (((2, 2, 2, 2),), {"channels": 1}, "a pair takes samples"),
        ((), {"channels": 1}, "a pair takes samples"),
    ],
)
def test_a_code_that_cannot_be_is_refused(tensors: tuple[tuple[int, ...], ...], options: dict, said: str) -> None:
    with pytest.raises(FringeError, match=said):
        PairShape(tensors, **options)


def test_a_config_that_is_none_is_refused() -> None:
    config = PairShape(PICTURES, 4, 2).config()
    for bad in ({}, {**config, "channels": "many"}, {**config, "tensors": 3}, {**config, "bits": 5}):
        with pytest.raises(FringeError):
            PairShape.from_config(bad)


@given(st.floats(1e3, 1e9), st.floats(0, 0.1), st.floats(1e-3, 1.0))
def test_a_latency_gives_the_most_bytes_that_keep_it(goodput_bps: float, delay_s: float, spare_s: float) -> None:
    latency_s = delay_s + spare_s
    if spare_s * goodput_bps < 8:
        with pytest.raises(FringeError, match="no compression can shorten"):
            transfer_budget_bytes(latency_s, Link(goodput_bps, delay_s))
        return
    budget = transfer_budget_bytes(latency_s, Link(goodput_bps, delay_s))
    assert delay_s + 8 * budget / goodput_bps <= latency_s + 1e-5 / goodput_bps + 1e-12
    assert delay_s + 8 * (budget + 1) / goodput_bps > latency_s


def test_a_goal_below_the_delay_of_its_link_is_refused() -> None:
    with pytest.raises(FringeError, match=r"latency_s = 0.009 over a link of 0.01 s delay"):
        DistilGoal(latency_s=0.009, link=Link(10e6, 0.010))
    with pytest.raises(FringeError, match="latency_s = nan"):
        transfer_budget_bytes(math.nan, Link(1e6))
    assert transfer_budget_bytes(1.0, Link(math.inf)) > 10**9


def test_of_bytes_and_latency_the_stricter_counts() -> None:
    link: dict = {"latency_s": 0.0105, "link": Link(10e6, 0.010)}
    assert DistilGoal(most_bytes=600, **link).budget_bytes == 600
    assert DistilGoal(most_bytes=700, **link).budget_bytes == 625
    for bad in ({}, {"latency_s": 1.0}, {"most_bytes": 3, "link": Link(1.0)}):
        with pytest.raises(FringeError, match="give"):
            DistilGoal(**bad)


@pytest.mark.parametrize(
    "bad",
    [{"batch": 1}, {"distil_epochs": -1}, {"temperature": 0.0}, {"label_share": 1.5}, {"order": "x"}, {"search": True}],
)
def test_a_recipe_says_which_value_is_wrong(bad: dict) -> None:
    with pytest.raises(FringeError, match=next(iter(bad))):
        DistilRecipe(**bad)


@given(st.permutations([0, 1, 2]), st.sampled_from(["together", "in turn"]))
def test_every_pair_is_regressed_before_it_is_distilled(order: list[int], how: str) -> None:
    found = phases(tuple(order), DistilRecipe(order=how))  # type: ignore[arg-type]
    regressed: set[int] = set()
    for phase in found:
        assert set(phase.trained) <= set(phase.active)
        if phase.kind == "regress":
            regressed |= set(phase.trained)
        assert set(phase.active) <= regressed
    assert set(found[-1].active) == {0, 1, 2}
