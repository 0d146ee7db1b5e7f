"""The identity codec: the model's own bytes, and every law of a codec."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import VectorCodecLaws

from flower_edge.codecs.codec import Codec, from_config, label
from flower_edge.codecs.identity import Identity
from flower_edge.errors import CodecError

DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "int64", "float16", "float32", "float64", "complex64"]


class TestIdentity(VectorCodecLaws):
    def make(self) -> Codec:
        return Identity()


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=5), st.integers(0)
)
def test_any_arrays_come_back_bit_for_bit_and_cost_their_own_bytes(
    forms: list[tuple[str, list[int]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = {
        f"a{i}": (rng.integers(0, 2, shape) if dtype == "bool" else 50 * rng.random(shape)).astype(dtype)
        for i, (dtype, shape) in enumerate(forms)
    }
    codec = Identity()
    payload, state = codec.encode(model, codec.init(model))
    out, _ = codec.decode(payload, state)
    assert len(payload) == sum(array.nbytes for array in model.values())
    assert list(out) == list(model)
    for name, array in model.items():
        np.testing.assert_array_equal(out[name], array, strict=True)


def test_golden_bytes_are_little_endian_in_the_order_of_the_model() -> None:
    model = {"z": np.array([1.0, -2.0], np.float32), "a": np.array([258], np.int16), "t": np.array(True)}
    codec = Identity()
    assert codec.encode(model, codec.init(model))[0].hex() == "0000803f000000c0020101"


def test_arrays_that_are_strided_or_big_endian_give_the_same_bytes() -> None:
    plain = {"w": np.arange(12, dtype=np.float32).reshape(3, 4)}
    other = {"w": np.asfortranarray(plain["w"]).astype(">f4")}
    codec = Identity()
    state = codec.init(plain)
    assert codec.encode(other, state)[0] == codec.encode(plain, state)[0]
    assert codec.decode(codec.encode(other, state)[0], state)[0]["w"].dtype.isnative


def test_decoded_arrays_are_over_the_payloads_own_bytes() -> None:
    model = {"w": np.arange(1000, dtype=np.float32)}
    codec = Identity()
    payload, state = codec.encode(model, codec.init(model))
    out = codec.decode(payload, state)[0]["w"]
    assert np.shares_memory(out, np.frombuffer(payload, np.uint8))
    assert not out.flags.writeable


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([None]), np.zeros(2, np.longdouble), np.zeros(2, "M8[s]"), np.zeros(2, "V2")]
)
def test_a_dtype_that_means_nothing_elsewhere_is_refused_by_name(array: np.ndarray) -> None:
    with pytest.raises(CodecError, match=r"'layer' has dtype \w+.*astype"):
        Identity().init({"layer": array})


def test_bfloat16_of_another_package_is_refused_by_name() -> None:
    dtype = SimpleNamespace(name="bfloat16", hasobject=False)
    with pytest.raises(CodecError, match="'layer' has dtype bfloat16"):
        Identity().init({"layer": SimpleNamespace(dtype=dtype, shape=(2,))})  # type: ignore[dict-item]


def test_a_truth_value_that_is_neither_is_refused() -> None:
    codec = Identity()
    with pytest.raises(CodecError, match="'mask' is bool"):
        codec.decode(b"\x01\x02", codec.init({"mask": np.zeros(2, bool)}))


@pytest.mark.parametrize("config", [{}, {"kind": "zip"}, {"kind": ["identity"]}, {"kind": "codec"}, "identity", None])
def test_a_codec_nobody_knows_is_refused_with_those_that_are_known(config: object) -> None:
    with pytest.raises(CodecError, match=r"expected one of .*'identity'"):
        from_config(config)  # type: ignore[arg-type]


def test_a_label_tells_two_configs_of_one_kind_apart() -> None:
    class Levels:
        def __init__(self, bits: int) -> None:
            self.bits = bits

        def config(self) -> dict[str, object]:
            return {"kind": "levels", "bits": self.bits}

    one, other = label(Levels(4)), label(Levels(8))  # type: ignore[arg-type]
    assert one != other
    assert one.startswith("levels-")
    assert label(Levels(4)) == one  # type: ignore[arg-type]
