"""Half: 16 bits per number, and every law of a codec."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.vector_codec_laws import VectorCodecLaws

from flower_edge.codecs.half import Half
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import dense
from flower_edge.errors import CodecError

floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20)


class TestFp16(VectorCodecLaws):
    def make(self) -> Half:
        return Half()


class TestBf16(VectorCodecLaws):
    def make(self) -> Half:
        return Half("bf16")


def carried(codec: Half, v: Floats) -> Floats:
    layout = Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, Moment())
    return dense(codec.unpack(memoryview(data), layout, {}, Moment())[0])


@given(floats)
def test_fp16_is_numpys_but_for_the_range(values: list[float]) -> None:
    v = np.array(values, np.float32)
    np.testing.assert_array_equal(carried(Half(), v), np.clip(v, -65504, 65504).astype(np.float16).astype(np.float32))


@given(floats)
def test_bf16_is_the_nearer_of_both_neighbours_and_even_in_the_middle(values: list[float]) -> None:
    v = np.array(values, np.float32)
    out = carried(Half("bf16"), v)
    bits = v.view(np.uint32)
    below, above = bits & np.uint32(0xFFFF0000), (bits & np.uint32(0xFFFF0000)) + np.uint32(0x10000)
    above = np.where(above & 0x7FFFFFFF < 0x7F800000, above, below)  # never an infinity
    for number, found, low, high in zip(v, out, below.view(np.float32), above.view(np.float32), strict=True):
        down, up = abs(float(number) - float(low)), abs(float(number) - float(high))
        even = low if low.view(np.uint32) & 0x10000 == 0 else high
        assert found == (low if down < up else high if up < down else even)


def test_golden_bytes() -> None:
    v = np.array([0.5, -1.25, 3, -0.0, 1e-3, 1e6, 6e-8, -3.4028235e38], np.float32)
    expected = {"fp16": "003800bd00420080", "bf16": "003fa0bf40400080"}
    rest = {"fp16": "1914ff7b0100fffb", "bf16": "833a744981337fff"}
    for name in ("fp16", "bf16"):
        data, _ = Half(name).pack(v, Layout.flat(8), {}, Moment())  # type: ignore[arg-type]
        assert data.hex() == expected[name] + rest[name]
        assert Half(name).pack(v[:0], Layout.flat(0), {}, Moment())[0] == b""  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "bits"), [("fp16", "007c"), ("fp16", "01fe"), ("bf16", "807f"), ("bf16", "c1ff")])
def test_what_decodes_to_no_finite_number_is_refused(name: str, bits: str) -> None:
    with pytest.raises(CodecError, match="'values' holds"):
        Half(name).unpack(memoryview(bytes.fromhex(bits)), Layout.flat(1), {}, Moment())  # type: ignore[arg-type]


def test_another_format_is_refused() -> None:
    with pytest.raises(CodecError, match="format = 'fp8': expected 'fp16' or 'bf16'"):
        Half("fp8")  # type: ignore[arg-type]
