"""By layer, by name: the first rule that fits, a vector for each, each with its own state and moment."""

from __future__ import annotations

import numpy as np
import pytest
from laws.vector_codec_laws import MIXED, VectorCodecLaws, same_update, vectors

from flower_edge.codecs.by_layer import ByLayer, first_and_last
from flower_edge.codecs.codec import from_config
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import CodecError

LAYERS = ByLayer((("*.bias", Half()), ("head*", TopK(0.2, values=Identity()))), default=Sign())


class TestByLayer(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return LAYERS


class TestByLayerOfStatefulCodecs(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return ByLayer((("conv*", stc(0.3)),), default=ErrorFeedback(Sign(), momentum=0.5))


class TestByLayerOfOneRule(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return ByLayer((("*", TopK(0.1)),), default=Half())


def packed(codec: VectorCodec, v: np.ndarray, layout: Layout, at: Moment | None = None) -> bytes:
    return codec.pack(v, layout, codec.start(layout), at or Moment())[0]


def test_the_first_rule_that_fits_has_the_array_and_upper_case_matters() -> None:
    layout = Layout(("a.bias", "head.bias", "head.weight", "HEAD.weight"), ((1,), (2,), (3,), (4,)))
    assert [(g.codec, g.arrays) for g in LAYERS.groups(layout)] == [(0, (0, 1)), (1, (2,)), (2, (3,))]


def test_a_group_is_coded_as_the_vector_of_its_arrays() -> None:
    v = next(vectors(MIXED.size))
    parts = MIXED.slices()
    middle = np.concatenate([v[parts[i]] for i in (0, 2, 3)])
    halves, signs, top = (
        packed(Half(), v[parts[1]], MIXED.select([1])),
        packed(Sign(), middle, MIXED.select([0, 2, 3])),
        packed(TopK(0.2, values=Identity()), v[parts[4]], MIXED.select([4])),
    )
    assert packed(LAYERS, v, MIXED) == bytes([len(halves)]) + halves + _with_length(top) + signs


def _with_length(data: bytes) -> bytes:
    if len(data) < 128:
        return bytes([len(data)]) + data
    return bytes([len(data) & 127 | 128, len(data) >> 7]) + data


def test_where_all_arrays_fit_one_rule_it_is_that_codec_to_the_byte() -> None:
    v = next(vectors(MIXED.size))
    assert packed(ByLayer((("*", TopK(0.1)),), Half()), v, MIXED) == packed(TopK(0.1), v, MIXED)
    assert packed(ByLayer((), Half()), v, MIXED) == packed(Half(), v, MIXED)


def test_sparse_groups_that_lie_in_between_one_another_are_one_sparse_vector() -> None:
    layout = Layout(("a.w", "a.b", "c.w", "c.b"), ((40,), (7,), (30,), (9,)))
    codec = ByLayer((("*.b", TopK(0.3, values=Identity())),), default=TopK(0.1, values=Identity()))
    v = next(vectors(layout.size))
    update, _ = codec.unpack(memoryview(packed(codec, v, layout)), layout, codec.start(layout), Moment())
    assert isinstance(update, Sparse)
    assert (np.diff(update.indices) > 0).all()
    np.testing.assert_array_equal(update.values, v[update.indices])
    outside = [i for i in update.indices.tolist() if 40 <= i < 47 or i >= 77]
    assert len(outside) == round(0.3 * 16)  # of the 16 numbers of the biases
    largest = np.sort(np.abs(np.concatenate([v[40:47], v[77:]])))[-len(outside) :]
    np.testing.assert_array_equal(np.sort(np.abs(v[outside])), largest)


def test_what_is_public_reaches_each_codec_in_its_own_places() -> None:
    layout = Layout(("a", "b", "c"), ((60,), (50,), (40,)))
    rng = np.random.default_rng(2)
    v, aggregate = next(vectors(150)), rng.normal(size=150).astype(np.float32)
    leader = np.sort(rng.choice(150, 30, replace=False))
    own = SharedSupport(0.2)
    codec = ByLayer((("b", Half()),), default=own)
    narrow = Layout(("a", "c"), ((60,), (40,)))
    inside = leader[(leader < 60) | (leader >= 110)]
    inside = np.where(inside >= 110, inside - 50, inside)
    around = np.r_[0:60, 110:150]
    wide, at = Moment(1, 0, Public((aggregate,), leader)), Moment(1, 0, Public((aggregate[around],), inside))
    assert packed(codec, v, layout, wide).endswith(packed(own, v[around], narrow, at))


def test_the_one_teacher_sees_and_tells_its_own_arrays() -> None:
    layout = Layout(("a", "b", "c"), ((60,), (50,), (40,)))
    codec = ByLayer((("b", Half()),), default=SharedSupport(0.2, turn=2))
    teacher, plain = codec.teacher(), SharedSupport(0.2, turn=2).teacher()
    assert teacher is not None
    assert plain is not None
    rng = np.random.default_rng(3)
    state, alone = teacher.init(layout), plain.init(Layout(("a", "c"), ((60,), (40,))))
    around, told_any = np.r_[0:60, 110:150], False
    for round_ in range(6):
        told, state = teacher.tell(state, round_)
        expected, alone = plain.tell(alone, round_)
        assert (told.leader is None) == (expected.leader is None)
        if told.leader is not None and expected.leader is not None:
            told_any = True
            np.testing.assert_array_equal(told.leader, around[expected.leader])
        sparse = np.sort(rng.choice(150, 40, replace=False))
        v = rng.normal(size=150).astype(np.float32)
        updates = {0: Sparse(sparse, v[sparse], 150), 1: v}
        short = {node: dense(update)[around] for node, update in updates.items()}
        kept = np.flatnonzero(short[0])
        state = teacher.learn(state, round_, updates)
        alone = plain.learn(alone, round_, {0: Sparse(kept, short[0][kept], 100), 1: short[1]})
        assert teacher.metrics(state) == plain.metrics(alone)
    assert told_any


def test_two_teachers_in_one_message_are_refused() -> None:
    codec = ByLayer((("a", SharedSupport(0.2)),), default=SharedSupport(0.1))
    with pytest.raises(CodecError, match="2 of the codecs in 'by_layer' live on shared information"):
        codec.teacher()
    assert ByLayer((), Half()).teacher() is None


def test_it_is_unbiased_and_linear_if_all_of_them_are() -> None:
    assert ByLayer((("a", Identity()),), default=Identity()).unbiased
    assert ByLayer((("a", Identity()),), default=Identity()).linear
    assert not ByLayer((("a", Sign()),), default=Identity()).unbiased
    assert not ByLayer((("a", Identity()),), default=Sign()).linear


# -- first and last --------------------------------------------------------------------------------------------------


def test_first_and_last_layers_are_found_also_where_a_layer_holds_layers() -> None:
    names = ["enc.bias", "enc.mid.weight", "enc.mid.bias", "head.weight", "head.bias"]
    codec = first_and_last(names, first=Identity(), last=Half(), default=Sign())
    layout = Layout(tuple(names), ((1,),) * 5)
    assert [g.arrays for g in codec.groups(layout)] == [(0,), (3, 4), (1, 2)]
    slashes = first_and_last(["a/w", "a/b", "c/w"], first=Identity(), last=Half(), default=Sign(), dot="/")
    assert slashes.rules == (("a/*", Identity()), ("c/*", Half()))


def test_a_name_with_brackets_is_taken_literally() -> None:
    names = ["w[0]", "w[1]", "w[2]"]
    codec = first_and_last(names, first=Identity(), last=Half(), default=Sign())
    assert [g.arrays for g in codec.groups(Layout(tuple(names), ((1,),) * 3))] == [(0,), (2,), (1,)]


def test_one_layer_has_no_first_and_last() -> None:
    with pytest.raises(CodecError, match=r"layers \['a'\]: expected at least two"):
        first_and_last(["a.w", "a.b"], first=Identity(), last=Half(), default=Sign())


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [5, "abc", (("a",),), ((3, Half()),), (("a", Half(), Half()),), (Half(),)])
def test_rules_that_are_none_are_refused(rules: object) -> None:
    with pytest.raises(CodecError, match=r"rules.*expected .*pattern and a codec"):
        ByLayer(rules, Half())  # type: ignore[arg-type]


def test_a_rule_or_a_default_without_a_codec_is_refused() -> None:
    with pytest.raises(CodecError, match=r"rules\[0\] = 'half'.*a codec of vectors"):
        ByLayer((("a", "half"),), Half())  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="default = 'half'"):
        ByLayer((), "half")  # type: ignore[arg-type]


def test_rules_as_lists_are_the_same_codec() -> None:
    listed = ByLayer([["*.bias", Half()]], Sign())  # type: ignore[arg-type,list-item]
    assert listed == ByLayer((("*.bias", Half()),), Sign()) == from_config(listed.config())
    assert hash(listed) == hash(from_config(listed.config()))


def test_packing_and_feeding_decode_alike_for_every_array_order() -> None:
    layout = Layout(("b.bias", "a", "head", "c.bias"), ((5,), (20,), (30,), (6,)))
    v = next(vectors(61))
    data, left, _ = LAYERS.feed(v, None, layout, LAYERS.start(layout), Moment())
    update, _ = LAYERS.unpack(memoryview(data), layout, LAYERS.start(layout), Moment())
    again, _ = LAYERS.unpack(memoryview(packed(LAYERS, v, layout)), layout, LAYERS.start(layout), Moment())
    assert same_update(update, again)
    np.testing.assert_array_equal(left, v - dense(update))
