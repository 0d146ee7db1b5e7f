"""`VectorCodecLaws`: what every codec of flat vectors owes, beside `CodecLaws`. Subclass, give `make`, get every law.

class TestBlockOfFourBits(VectorCodecLaws):
    def make(self):
        return Block(bits=4)

Every law runs with NumPy's kernels and, where Numba is installed, with compiled ones; with nothing public, and with
aggregates and a leader's support. A codec that needs other public knowledge overrides `public`.
"""

from __future__ import annotations

import time
import tracemalloc
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.codecs.codec import from_config
from flower_edge.codecs.kernels import available, using
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sparse import Sparse, Update, dense
from flower_edge.codecs.vector_codec import State, VectorCodec
from flower_edge.errors import CodecError
from flower_edge.store import tree_from_bytes, tree_to_bytes

from .codec_laws import CodecLaws, models
from .vectors import LAYOUTS, MIXED, TINY, same_update, vectors, well_formed

PATHS = ["reference", "fast"] if available() else ["reference"]
by_path = pytest.mark.parametrize("path", PATHS)


class VectorCodecLaws(CodecLaws):
    """Laws of a codec of vectors."""

    #: Float32 words per number that decoding may take, whatever came in.
    words: ClassVar[int] = 12
    #: Whether what is decoded is finite whatever came in.
    finite: ClassVar[bool] = True
    #: Systematic error allowed to a codec that says it is unbiased, relative to the vector's root mean square.
    bias: ClassVar[float] = 1e-4

    def make(self) -> VectorCodec:
        """The codec under test."""
        raise NotImplementedError

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """As the codec says."""
        return self.make().exact

    def public(self, layout: Layout) -> list[Public]:
        """What may be known at both ends; the laws hold with each."""
        rng = np.random.default_rng(11)
        aggregates = tuple(rng.normal(size=layout.size).astype(np.float32) for _ in range(2))
        leader = np.flatnonzero(rng.random(layout.size) < 0.1)
        return [Public(), Public(aggregates), Public(aggregates, leader)]

    def moments(self, layout: Layout, round: int = 3, node: int = 2) -> list[Moment]:
        """One moment for each."""
        return [Moment(round, node, public) for public in self.public(layout)]

    def _carried(
        self, given: list[Floats], layout: Layout, public: Public, state: State | None = None
    ) -> tuple[list[bytes], list[Update]]:
        """Payloads of one vector after the other, and what the other end makes of them."""
        codec = self.make()
        own = other = codec.start(layout) if state is None else state
        payloads: list[bytes] = []
        updates: list[Update] = []
        for i, v in enumerate(given):
            at = Moment(i, 2, public)
            data, own = codec.pack(v, layout, own, at)
            update, other = codec.unpack(memoryview(data), layout, other, at)
            payloads.append(data)
            updates.append(update)
        return payloads, updates

    # -- the same bytes ----------------------------------------------------------------------------------------------

    @pytest.mark.skipif(not available(), reason="Numba is not installed")
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_bytes_and_vectors_are_the_same_with_and_without_compiled_kernels(self, name: str) -> None:
        layout = LAYOUTS[name]
        for public in self.public(layout):
            given = list(vectors(layout.size))
            with using("reference"):
                slow = self._carried(given, layout, public)
            with using("fast"):
                fast = self._carried(given, layout, public)
            assert slow[0] == fast[0]
            assert all(map(same_update, slow[1], fast[1]))

    @by_path
    def test_any_finite_vector_is_a_finite_vector_at_the_other_end(self, path: Any) -> None:
        with using(path):
            for layout in LAYOUTS.values():
                for public, v in product(self.public(layout), vectors(layout.size)):
                    _, (update,) = self._carried([v], layout, public)
                    assert well_formed(update, layout.size)
                    assert np.isfinite(dense(update)).all()
                    assert not self.make().exact or dense(update).tobytes() == v.tobytes()

    @by_path
    @pytest.mark.parametrize("size", [0, 1, 2, 300])
    def test_zeros_are_zeros_at_the_other_end(self, path: Any, size: int) -> None:
        with using(path):
            _, updates = self._carried([np.zeros(size, np.float32)] * 3, Layout.flat(size), Public())
            assert not any(dense(update).any() for update in updates)

    @by_path
    def test_vectors_and_states_handed_in_are_left_as_they_were(self, path: Any) -> None:
        codec = self.make()
        v = next(vectors(MIXED.size))
        before = v.tobytes()
        with using(path):
            for at in self.moments(MIXED):
                own = codec.start(MIXED)
                data, own = codec.pack(v, MIXED, own, at)  # a state that has seen something
                update, other = codec.unpack(memoryview(data), MIXED, codec.start(MIXED), at)
                kept, told = tree_to_bytes([own, other]), dense(update).copy()
                again, _ = codec.pack(v, MIXED, own, Moment(4, 2, at.public))
                codec.unpack(memoryview(again), MIXED, other, Moment(4, 2, at.public))
                assert v.tobytes() == before
                assert tree_to_bytes([own, other]) == kept
                assert dense(update).tobytes() == told.tobytes()

    @by_path
    def test_states_out_of_a_checkpoint_go_on_as_the_states_themselves(self, path: Any) -> None:
        codec = self.make()
        with using(path):
            for public in self.public(MIXED):
                own = other = codec.start(MIXED)
                for i, v in enumerate([*vectors(MIXED.size)][:5]):
                    at = Moment(i, 2, public)
                    data, after = codec.pack(v, MIXED, own, at)
                    update, heard = codec.unpack(memoryview(data), MIXED, other, at)
                    own, other = tree_from_bytes(tree_to_bytes([own, other]))
                    again, own = codec.pack(v, MIXED, own, at)
                    same, other = codec.unpack(memoryview(again), MIXED, other, at)
                    assert again == data
                    assert same_update(same, update)
                    assert tree_to_bytes([own, other]) == tree_to_bytes([after, heard])

    @by_path
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_value_that_is_not_finite_is_refused_by_the_name_of_its_array(self, path: Any, bad: float) -> None:
        codec = self.make()
        with using(path):
            for at in self.moments(MIXED):
                v = next(vectors(MIXED.size)).copy()
                v[MIXED.slices()[1].start + 3] = bad
                with pytest.raises(CodecError, match=r"conv\.bias"):
                    codec.pack(v, MIXED, codec.start(MIXED), at)

    @by_path
    def test_a_model_decodes_to_what_its_floats_decode_to(self, path: Any) -> None:
        codec, (model,) = self.make(), models(1)
        with using(path):
            state = codec.init(model)
            payload, _ = codec.encode(model, state)
            out, _ = codec.decode(payload, state)
            rest, update, _ = codec.decode_update(payload, state)
            assert well_formed(update, sum(array.size for array in model.values()))
            flat = np.concatenate([array.reshape(-1).astype(np.float32) for array in out.values()])
            assert rest == {}
            assert flat.tobytes() == dense(update).tobytes()

    def test_a_config_of_another_version_is_refused(self) -> None:
        with pytest.raises(CodecError, match=r"version 99.*same flower-edge version"):
            from_config({**self.make().config(), "version": 99})

    # -- what it says of itself --------------------------------------------------------------------------------------

    @by_path
    def test_if_unbiased_the_mean_over_rounds_is_the_vector(self, path: Any) -> None:
        codec, layout = self.make(), MIXED
        if not codec.unbiased:
            return
        v = next(vectors(layout.size))
        with using(path):
            for public in self.public(layout):
                errors = np.empty((400, layout.size))
                for i in range(len(errors)):
                    at = Moment(i, 2, public)
                    data, _ = codec.pack(v, layout, codec.start(layout), at)
                    update, _ = codec.unpack(memoryview(data), layout, codec.start(layout), at)
                    errors[i] = dense(update).astype(np.float64) - v
                rms = float(np.sqrt(np.mean(np.square(v, dtype=np.float64))))
                spread = errors.std(axis=0, ddof=1) / 20  # standard error of each number's mean
                pooled = np.sqrt(np.mean(spread**2))  # a rarely sent number may have had no luck at all
                assert (np.abs(errors.mean(axis=0)) <= 5 * np.maximum(spread, pooled) + self.bias * rms).all()
                signs = np.random.default_rng(1).choice([-1.0, 1.0], (6, layout.size))
                for direction in [v.astype(np.float64), np.sign(v), *signs]:
                    along = errors @ (direction / np.linalg.norm(direction))
                    allowed = 5 * along.std(ddof=1) / 20 + self.bias * float(np.linalg.norm(v))
                    assert abs(along.mean()) <= allowed

    def _within_its_bound(self, v: Floats, layout: Layout, at: Moment) -> None:
        codec = self.make()
        delta = codec.contraction(layout.size)
        assert delta is not None
        assert 0 <= delta <= 1
        state = codec.start(layout)
        data, _ = codec.pack(v, layout, state, at)
        update, _ = codec.unpack(memoryview(data), layout, state, at)
        lost = np.sum(np.square(v.astype(np.float64) - dense(update)))
        # 1e-5: a scale rounded to float32; TINY: what is flushed to zero.
        assert lost <= (1 - delta + 1e-5) * np.sum(np.square(v, dtype=np.float64)) + v.size * TINY**2

    @by_path
    def test_if_contractive_any_vector_meets_the_bound(self, path: Any) -> None:
        if self.make().contraction(100) is None:
            return

        numbers = st.floats(-(2.0**100), 2.0**100, width=32)
        shape = st.tuples(st.integers(0, 2**32), st.sampled_from([1, 2, 31, 256, 600]), st.sampled_from([1.1, 2, 30]))
        listed = st.lists(numbers, max_size=40).map(lambda values: np.array(values, np.float32))
        drawn = shape.map(lambda s: np.random.default_rng(s[0]).standard_t(s[2], s[1]).astype(np.float32))

        @settings(max_examples=50)
        @given(listed | drawn)
        def holds(v: Floats) -> None:
            layout = Layout.flat(v.size)
            for at in self.moments(layout):
                self._within_its_bound(v, layout, at)

        with using(path):
            for layout in LAYOUTS.values():
                for at, v in product(self.moments(layout), vectors(layout.size)):
                    self._within_its_bound(v, layout, at)
            holds()

    @by_path
    def test_if_linear_the_sum_decodes_to_the_sum(self, path: Any) -> None:
        codec = self.make()
        if not codec.linear:
            return
        with using(path):
            for layout, (one, other) in product(LAYOUTS.values(), [(0, 4), (0, 3), (4, 2)]):
                given = list(vectors(layout.size))
                a, b = given[one], given[other]
                for public in self.public(layout):
                    state = codec.start(layout)
                    decoded = []
                    for node, v in enumerate([a, b, a + b]):
                        at = Moment(5, node, public)
                        data, _ = codec.pack(v, layout, state, at)
                        decoded.append(dense(codec.unpack(memoryview(data), layout, state, at)[0]))
                    scale = max((float(np.abs(part).max(initial=0)) for part in decoded), default=0.0)
                    np.testing.assert_allclose(decoded[0] + decoded[1], decoded[2], rtol=1e-5, atol=1e-5 * scale)

    @by_path
    def test_feeding_is_packing_the_sum_and_keeping_what_it_leaves_out(self, path: Any) -> None:
        codec = self.make()
        with using(path):
            for layout in LAYOUTS.values():
                given = list(vectors(layout.size))
                for at, v in product(self.moments(layout), [*given[:5], given[-1]]):
                    memories: list[Floats | None] = [None, given[4]]
                    for memory in memories:
                        before = v.tobytes(), None if memory is None else memory.tobytes()
                        state = codec.start(layout)
                        data, left, after = codec.feed(v, memory, layout, state, at)
                        whole = v if memory is None else v + memory
                        packed, expected = codec.pack(whole, layout, state, at)
                        update, _ = codec.unpack(memoryview(packed), layout, state, at)
                        assert data == packed
                        assert tree_to_bytes(after) == tree_to_bytes(expected)
                        assert left.dtype == np.float32
                        np.testing.assert_array_equal(left, whole - dense(update))
                        assert before == (v.tobytes(), None if memory is None else memory.tobytes())

    # -- whatever comes in -------------------------------------------------------------------------------------------

    def _read(self, data: bytes, layout: Layout, state: State, at: Moment) -> bool:
        """Whether bytes are read as a vector of the right form; anything else must be a CodecError."""
        try:
            update, _ = self.make().unpack(memoryview(data), layout, state, at)
        except CodecError:
            return False
        assert well_formed(update, layout.size)
        if self.finite:
            assert np.isfinite(update.values if isinstance(update, Sparse) else update).all()
        return True

    @by_path
    def test_any_bytes_are_a_vector_or_a_codec_error(self, path: Any) -> None:
        rng = np.random.default_rng(3)
        with using(path):
            for layout in LAYOUTS.values():
                state = self.make().start(layout)
                given = list(vectors(layout.size))
                for at, v in product(self.moments(layout), [given[0], given[1], given[3]]):
                    data, _ = self.make().pack(v, layout, state, at)
                    assert self._read(data, layout, state, at)
                    for _ in range(10):
                        bad = bytearray(data)
                        for _ in range(int(rng.integers(1, 5)) if bad else 0):
                            bad[int(rng.integers(len(bad)))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x3C]))
                        self._read(bytes(bad), layout, state, at)
                        self._read(data[: int(rng.integers(len(data) + 1))], layout, state, at)
                        self._read(rng.bytes(int(rng.integers(0, 2 * len(data) + 8))), layout, state, at)
                        self._read(rng.bytes(len(data)), layout, state, at)

    @by_path
    def test_bytes_too_many_or_too_few_are_refused(self, path: Any) -> None:
        with using(path):
            for at, v in product(self.moments(MIXED), [*vectors(MIXED.size)][:4]):
                state = self.make().start(MIXED)
                data, _ = self.make().pack(v, MIXED, state, at)
                assert data
                for wrong in (data[:-1], b"", data + b"\0", data + b"\x80", data + data):
                    assert not self._read(wrong, MIXED, state, at)

    @by_path
    def test_garbage_takes_bounded_memory_and_time(self, path: Any) -> None:
        layout = Layout(("w", "b"), ((150, 200), (100,)))
        rng = np.random.default_rng(4)
        with using(path):
            for at in self.moments(layout):
                codec, state = self.make(), self.make().start(layout)
                data, _ = codec.pack(next(vectors(layout.size)), layout, state, at)
                flips = [bytearray(data) for _ in range(4)]
                for place, flipped in enumerate(flips):
                    flipped[place % len(flipped)] = 0xFF
                garbage = [
                    *flips,
                    rng.bytes(len(data)),
                    rng.bytes(4 * layout.size),
                    b"\xff" * len(data),
                    bytes(len(data)),
                ]
                for bad in garbage:  # imports and compiled kernels are not what is measured
                    self._read(bytes(bad), layout, state, at)
                for bad in garbage:
                    tracemalloc.start()
                    began = time.process_time()
                    try:
                        self._read(bytes(bad), layout, state, at)
                        spent_s = time.process_time() - began
                        assert tracemalloc.get_traced_memory()[1] < self.words * 4 * layout.size + len(bad) + 128_000
                        assert spent_s < 3
                    finally:
                        tracemalloc.stop()
