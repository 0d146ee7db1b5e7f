"""Values at a leader's places: every law of a codec, and what shares and does not share bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import VectorCodecLaws

from flower_edge.codecs.codec import from_config
from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.leader import leads
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError

LAYOUT = Layout.flat(1000)
LEADER = np.arange(0, 1000, 20)


def vector(seed: int, size: int = 1000) -> Floats:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def carried(codec: SharedSupport, v: Floats, at: Moment) -> tuple[bytes, Sparse]:
    layout = Layout.flat(v.size)
    data, _ = codec.pack(v, layout, {}, at)
    update, _ = codec.unpack(memoryview(data), layout, {}, at)
    assert isinstance(update, Sparse)
    return data, update


class TestSharedSupport(VectorCodecLaws):
    def make(self) -> SharedSupport:
        return SharedSupport(0.1, 0.02, fallback=TopK(0.2))


class TestWithoutInnovation(VectorCodecLaws):
    def make(self) -> SharedSupport:
        return SharedSupport(0.1, 0.0, values=Half("bf16"), fallback=Sign(), turn=3)


def test_values_at_the_leaders_places_travel_without_an_index() -> None:
    at = Moment(round=1, node=0, public=Public(leader=LEADER))
    data, update = carried(SharedSupport(innovation=0.0), vector(0), at)
    assert len(data) == 1 + 2 + -(-LEADER.size // 8)  # kind, one magnitude, signs
    assert np.array_equal(update.indices, LEADER)
    assert np.array_equal(np.sign(update.values), np.sign(vector(0)[LEADER]))


def test_the_innovation_is_the_largest_of_what_lies_outside_the_leaders_places() -> None:
    v = vector(1)
    at = Moment(round=1, node=0, public=Public(leader=LEADER))
    _, update = carried(SharedSupport(innovation=0.01), v, at)
    outside = v.copy()
    outside[LEADER] = 0
    assert np.array_equal(np.setdiff1d(update.indices, LEADER), np.sort(np.argsort(-np.abs(outside))[:10]))


def test_who_leads_sends_its_own_places_whatever_the_leader_before_published() -> None:
    codec, v = SharedSupport(0.05, turn=4), vector(2)
    at = Moment(round=2, node=6, public=Public(leader=LEADER))
    assert leads(6, 2, 4)
    _, update = carried(codec, v, at)
    assert np.array_equal(update.indices, np.sort(np.argsort(-np.abs(v))[:50]))


def test_without_a_leader_the_fallback_codes() -> None:
    codec, at = SharedSupport(fallback=TopK(0.03, Identity())), Moment(round=1)
    data, update = carried(codec, vector(3), at)
    alone, _ = codec.fallback.pack(vector(3), LAYOUT, {}, at)
    assert data[1:] == alone
    assert update.indices.size == 30


def test_a_node_that_sends_by_a_leader_unknown_here_is_told_to_send_its_own_support() -> None:
    codec = SharedSupport()
    data, _ = codec.pack(vector(4), LAYOUT, {}, Moment(round=1, public=Public(leader=LEADER)))
    with pytest.raises(CodecError, match="send its own support"):
        codec.unpack(memoryview(data), LAYOUT, {}, Moment(round=1))


@pytest.mark.parametrize(
    "places", [[3, 3], [4, 2], [-1, 4], [0, 1000]], ids=["twice", "falling", "negative", "beyond the end"]
)
def test_places_of_a_leader_that_are_no_places_are_refused(places: list[int]) -> None:
    at = Moment(round=1, public=Public(leader=np.array(places)))
    with pytest.raises(CodecError, match="increase"):
        SharedSupport().pack(vector(5), LAYOUT, {}, at)


@settings(max_examples=6)
@given(st.integers(0, 2**32), st.integers(0, 5))
def test_error_feedback_sends_everything_in_the_end_under_leaders_that_rotate(seed: int, turn: int) -> None:
    codec = ErrorFeedback(SharedSupport(0.1, 0.05, turn=turn))
    layout, nodes = Layout.flat(60), 2
    teacher = codec.teacher()
    assert teacher is not None
    heard = teacher.init(layout)
    states = [codec.start(layout) for _ in range(nodes)]
    given_once = [vector(seed + node, 60) for node in range(nodes)]
    arrived = [np.zeros(60, np.float32) for _ in range(nodes)]
    for round in range(150):
        told, heard = teacher.tell(heard, round)
        updates = {}
        for node in range(nodes):
            at = Moment(round, node, Public(leader=told.leader))
            v = given_once[node] if round == 0 else np.zeros(60, np.float32)
            data, states[node] = codec.pack(v, layout, states[node], at)
            update, _ = codec.unpack(memoryview(data), layout, codec.start(layout), at)
            updates[node] = update
            arrived[node] += dense(update)
        heard = teacher.learn(heard, round, updates)
    for node in range(nodes):
        np.testing.assert_allclose(arrived[node], given_once[node], atol=0.05)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": 1.5}, "fraction"),
        ({"innovation": -0.1}, "innovation"),
        ({"turn": -1}, "turn"),
        ({"values": 3}, "values"),
        ({"fallback": None}, "fallback"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, object], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        from_config({"kind": "shared_support", **options})
