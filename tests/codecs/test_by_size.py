"""By size: small arrays one codec, large ones another."""

from __future__ import annotations

import pytest
from laws.vector_codec_laws import MIXED, VectorCodecLaws, vectors

from flower_edge.codecs.by_layer import ByLayer
from flower_edge.codecs.by_size import BySize
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.random_k import RandomK
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import CodecError


class TestBySize(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return BySize(small=Half(), large=stc(0.1), threshold=200)


class TestBySizeOfRandomPlaces(VectorCodecLaws):
    """Both unbiased and linear, so the whole is."""

    def make(self) -> VectorCodec:
        return BySize(small=RandomK(0.5, same=True), large=RandomK(0.2, same=True, seed=3), threshold=200)


def test_it_is_unbiased_and_linear_if_both_are() -> None:
    both, one = TestBySizeOfRandomPlaces().make(), BySize(Half(), RandomK(0.2, same=True))
    assert (both.unbiased, both.linear) == (True, True)
    assert (one.unbiased, one.linear) == (False, False)


def test_an_array_of_threshold_numbers_is_large() -> None:
    layout = Layout(("a", "b", "c"), ((2, 4), (7,), ()))
    assert [(g.codec, g.arrays) for g in BySize(Half(), Sign(), threshold=8).groups(layout)] == [(0, (1, 2)), (1, (0,))]


@pytest.mark.parametrize(("threshold", "codec"), [(1, Sign()), (10**6, Half())])
def test_where_all_arrays_are_of_one_kind_it_is_that_codec_to_the_byte(threshold: int, codec: VectorCodec) -> None:
    layout = Layout(("a", "b"), ((30, 4), (7,)))
    v = next(vectors(layout.size))
    by_size = BySize(Half(), Sign(), threshold=threshold)
    assert by_size.pack(v, layout, by_size.start(layout), Moment())[0] == codec.pack(v, layout, {}, Moment())[0]


def test_it_is_the_same_as_naming_the_arrays() -> None:
    by_size = BySize(Half(), Sign(), threshold=200)
    by_name = ByLayer((("conv.bias", Half()), ("scale", Half()), ("empty", Half())), default=Sign())
    v = next(vectors(MIXED.size))
    one, _ = by_size.decode_update(_encoded(by_size, v), {**_form(), "vector": by_size.start(MIXED)})[1:]
    other, _ = by_name.decode_update(_encoded(by_name, v), {**_form(), "vector": by_name.start(MIXED)})[1:]
    assert one.tobytes() == other.tobytes()  # type: ignore[union-attr]


def _form() -> dict[str, list[object]]:
    return {"names": list(MIXED.names), "shapes": [list(s) for s in MIXED.shapes], "dtypes": ["float32"] * 5}


def _encoded(codec: VectorCodec, v: object) -> bytes:
    return codec.pack(v, MIXED, codec.start(MIXED), Moment())[0]  # type: ignore[arg-type]


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(CodecError, match="small = None"):
        BySize(None, Half())  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="large = 3"):
        BySize(Half(), 3)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="threshold = 0: expected a whole number from 1"):
        BySize(Half(), Half(), threshold=0)
