"""Changes against a replica: both ends hold the same one, bit for bit, or the receiver says that it does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.codec_laws import CodecLaws

from flower_edge.codecs.codec import Codec, State
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import NO_MOMENT, Moment
from flower_edge.codecs.sparse import Sparse, Update
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import CodecError, CodecGap
from flower_edge.store import tree_from_bytes, tree_to_bytes


@dataclass(frozen=True)
class Largest(VectorCodec):
    """The largest `count` numbers, as they are. It counts its packets at both ends, to have a state."""

    kind: ClassVar[str] = "largest"
    count: int = 2

    def start(self, layout: Layout) -> State:
        return {"packets": 0}

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        places = np.sort(np.argsort(-np.abs(v), kind="stable")[: self.count]).astype("<i4")
        data = bytes([state["packets"] % 256]) + places.tobytes() + v[places].tobytes()
        return data, {"packets": state["packets"] + 1}

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        count = min(self.count, layout.size)
        if len(data) != 1 + 8 * count or data[0] != state["packets"] % 256:
            raise CodecError("no packet of these")
        places = np.frombuffer(data[1 : 1 + 4 * count], "<i4").astype(np.int64)
        values = np.frombuffer(data[1 + 4 * count :], "<f4").astype(np.float32)
        if (np.diff(places) <= 0).any() or (places < 0).any() or (places >= layout.size).any():
            raise CodecError("places that are none")
        return Sparse(places, values, layout.size), {"packets": state["packets"] + 1}


class TestDeltaOfIdentity(CodecLaws):
    exact = False

    def make(self) -> Codec:
        return Delta(Identity())


def model(seed: int, size: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(size // 3, 3)).astype(np.float32),
        "half": rng.normal(size=2).astype(np.float16),
        "double": rng.normal(size=2),
        "steps": np.array(seed, np.int64),
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one[n].tobytes() == other[n].tobytes() and one[n].dtype == other[n].dtype for n in {*one, *other})


CODECS: dict[str, Callable[[], Delta]] = {
    "identity": lambda: Delta(Identity()),
    "largest": lambda: Delta(Largest(2)),
    "in part": lambda: Delta(Largest(3), step=0.5),
}


@pytest.mark.parametrize("name", CODECS)
def test_after_every_packet_a_receiver_holds_what_the_sender_believes_it_holds(name: str) -> None:
    codec = CODECS[name]()
    sender = receiver = codec.init(model(0))
    for k in range(20):
        x = model(k)
        payload, sender = codec.encode(x, sender, Moment(k, 3))
        told, receiver = codec.decode(payload, receiver, Moment(k, 3))
        assert same(told, codec.published(x, sender))
        assert told["steps"] == k
        assert receiver["replica"].tobytes() == sender["replica"].tobytes()


def test_what_a_packet_leaves_out_is_told_by_those_that_follow() -> None:
    codec, x = Delta(Largest(2)), model(1)
    sender = receiver = codec.init(x)
    payload, sender = codec.encode(model(0), sender)
    _, receiver = codec.decode(payload, receiver)
    for _ in range(8):  # sixteen numbers, two at a time
        payload, sender = codec.encode(x, sender)
        told, receiver = codec.decode(payload, receiver)
    for name, array in x.items():
        np.testing.assert_allclose(told[name].astype(float), array.astype(float), rtol=1e-3)


def test_a_model_that_both_ends_begin_from_saves_the_plain_packet() -> None:
    codec, start = Delta(Largest(2)), model(0)
    sender = receiver = codec.begin(start)
    payload, sender = codec.encode(model(1), sender)
    told, receiver = codec.decode(payload, receiver)
    assert same(told, codec.published(model(1), sender))
    assert len(payload) == 9 + 8 + 1 + 2 * 8  # header, what is no float, the change
    with pytest.raises(CodecGap, match="of another replica than the one held"):
        codec.decode(payload, codec.begin(model(7)))


def test_a_receiver_that_missed_a_packet_says_so_and_a_plain_one_puts_it_right() -> None:
    codec = Delta(Largest(2))
    sender = receiver = codec.begin(model(0))
    _, sender = codec.encode(model(1), sender)  # lost
    payload, sender = codec.encode(model(2), sender)
    with pytest.raises(CodecGap, match="change 2 where 1 is next; ask its sender for a plain packet"):
        codec.decode(payload, receiver)
    payload, sender = codec.encode(model(3), codec.afresh(sender))
    told, receiver = codec.decode(payload, receiver)
    assert same(told, codec.published(model(3), sender))
    np.testing.assert_array_equal(told["w"], model(3)["w"])


def test_a_sender_that_began_anew_is_not_taken_for_the_one_before() -> None:
    codec = Delta(Identity())
    sender = receiver = codec.init(model(0))
    payload, _ = codec.encode(model(1), sender)
    _, receiver = codec.decode(payload, receiver)
    _, again = codec.encode(model(2), sender)  # the same number, which this receiver never sees
    payload, again = codec.encode(model(3), again)
    with pytest.raises(CodecGap, match="of another replica"):
        codec.decode(payload, receiver)


def test_the_packet_that_came_last_may_come_again_and_changes_nothing() -> None:
    codec = Delta(Largest(2))
    sender = receiver = codec.begin(model(0))
    payload, sender = codec.encode(model(1), sender)
    told, receiver = codec.decode(payload, receiver)
    again, unchanged = codec.decode(payload, receiver)
    assert same(again, told)
    assert tree_to_bytes(unchanged) == tree_to_bytes(receiver)


HAPPENINGS = ["told", "lost", "twice", "plain", "restart", "saved"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(HAPPENINGS), max_size=25), st.integers(0, 9))
def test_whatever_happens_on_the_way_a_replica_is_the_senders_own_or_nothing_is_decoded(
    happenings: list[str], seed: int
) -> None:
    codec = Delta(Largest(3))
    rng = random.Random(seed)
    sender = receiver = codec.begin(model(seed))
    for number, what in enumerate(happenings):
        if what == "restart":
            sender = codec.init(model(seed))
        if what == "plain":
            sender = codec.afresh(sender)
        if what == "saved":
            sender, receiver = (tree_from_bytes(tree_to_bytes(state)) for state in (sender, receiver))
        x = model(rng.randrange(1000) + number)
        payload, sender = codec.encode(x, sender)
        for _ in range({"lost": 0, "twice": 2}.get(what, 1)):
            try:
                told, receiver = codec.decode(payload, receiver)
            except CodecGap:
                assert payload[0] == 1
                continue
            assert same(told, codec.published(x, sender))


def test_models_that_are_handed_out_cannot_change_what_is_remembered() -> None:
    codec = Delta(Identity())
    payload, sender = codec.encode(model(1), codec.init(model(1)))
    told, receiver = codec.decode(payload, codec.init(model(1)))
    for array in (told["w"], codec.published(model(1), sender)["w"]):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0.0
    payload, _ = codec.encode(model(2), sender)
    assert same(codec.decode(payload, receiver)[0], codec.decode(payload, receiver)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_is_no_number_is_refused_by_name_at_both_ends(bad: float) -> None:
    codec, x = Delta(Identity()), {"w": np.array([1.0, bad], np.float32)}
    fine = {"w": np.zeros(2, np.float32)}
    for held in (codec.init(fine), codec.begin(fine)):
        with pytest.raises(CodecError, match=r"'w' holds (nan|inf)"):
            codec.encode(x, held)
    payload, _ = Identity().encode(x, Identity().init(x))
    with pytest.raises(CodecError, match=r"'w' holds (nan|inf)"):
        codec.decode(bytes(9) + payload, codec.init(x))
    change = b"\1" + (1).to_bytes(4, "little") + bytes(4) + payload
    with pytest.raises(CodecError, match=r"'w' holds (nan|inf)"):
        codec.decode(change, codec.begin(fine))


def test_any_bytes_are_a_model_or_a_codec_error_whatever_is_held() -> None:
    codec, rng = Delta(Largest(3)), np.random.default_rng(5)
    payload, _ = codec.encode(model(1), codec.begin(model(0)))
    for held in (codec.init(model(0)), codec.begin(model(0))):
        for k in range(400):
            bad = bytearray(payload if k % 2 else rng.bytes(int(rng.integers(0, 2 * len(payload)))))
            for _ in range(2):
                if bad:
                    bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            try:
                told, _ = codec.decode(bytes(bad), held)
            except CodecError:
                continue
            assert {name: (a.shape, a.dtype) for name, a in told.items()} == {
                name: (a.shape, a.dtype) for name, a in model(0).items()
            }


def test_numbers_begin_anew_where_they_end() -> None:
    codec = Delta(Identity())
    payload, sender = codec.encode(model(1), {**codec.begin(model(0)), "sequence": (1 << 32) - 1})
    assert (payload[0], sender["sequence"]) == (0, 0)


def test_a_model_without_floats_and_one_without_anything_are_told() -> None:
    for x in ({"n": np.array([3], np.int32)}, {"e": np.zeros((0, 2), np.float32)}, {"one": np.ones(1, np.float32)}):
        codec = Delta(Identity())
        sender = receiver = codec.begin(x)
        for _ in range(2):
            payload, sender = codec.encode(x, sender)
            told, receiver = codec.decode(payload, receiver)
            assert same(told, x)


def test_golden_bytes() -> None:
    codec, x = Delta(Identity()), {"w": np.array([1.0, -2.0], np.float32), "n": np.array(5, np.int16)}
    plain, state = codec.encode(x, codec.init(x))
    change, _ = codec.encode({**x, "w": np.array([1.5, -2.0], np.float32)}, state)
    assert plain.hex() == GOLDEN_PLAIN
    assert change.hex() == GOLDEN_CHANGE


GOLDEN_PLAIN = "0001000000562687c30000803f000000c00500"
GOLDEN_CHANGE = "01020000003a2cdfcc05000000003f00000000"


class Errors(Largest):
    kind = "error_feedback"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Delta(Errors()), r"error_feedback would send it twice.*take what is inside it"),
        (lambda: Delta(Delta(Identity())), "expected a codec of vectors"),
        (lambda: Delta("identity"), "expected a codec of vectors"),
        (lambda: Delta(Identity(), first=Delta(Identity())), "expected a codec of whole models"),
        (lambda: Delta(Identity(), step=0.0), "step = 0.0 of Delta: expected a number above 0"),
        (lambda: Delta(Identity(), mixing=1.5), "mixing = 1.5 of Delta"),
        (lambda: Delta(Identity(), mixing=True), "mixing = True of Delta"),
        (lambda: Delta(Identity(), mixing=float("nan")), "mixing = nan of Delta"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_take_instead(make: Callable[[], Delta], why: str) -> None:
    with pytest.raises(CodecError, match=why):
        make()


def test_the_moment_reaches_the_codec_within() -> None:
    seen: list[Moment] = []

    class Noting(Identity):
        def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
            seen.append(at)
            return super().pack(v, layout, state, at)

    codec = Delta(Noting())
    codec.encode(model(1), codec.begin(model(0)), Moment(5, 2))
    codec.encode(model(1), codec.begin(model(0)))
    assert seen == [Moment(5, 2), NO_MOMENT]


@pytest.mark.parametrize("inner", [Identity(), TopK(1.0, Identity())], ids=["dense", "sparse"])
def test_a_step_of_a_quarter_tells_a_quarter_of_the_change(inner: Any) -> None:
    codec = Delta(inner, step=0.25)
    state = codec.begin({"w": np.zeros(3, np.float32)})
    payload, _ = codec.encode({"w": np.array([4, -8, 12], np.float32)}, state)
    told, _ = codec.decode(payload, state)
    np.testing.assert_array_equal(told["w"], np.array([1, -2, 3], np.float32))
