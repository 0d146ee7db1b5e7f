"""What both ends know is worked out once for all messages that have it in common, and nothing is kept of nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from laws.vector_codec_laws import by_path

from flower_edge.codecs.by_layer import ByLayer
from flower_edge.codecs.contexts import Contexts
from flower_edge.codecs.kernels import using
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK

LAYOUT = Layout(("w", "v", "b"), ((40, 30), (20, 20), (30,)))


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).laplace(size=LAYOUT.size).astype(np.float32)


def test_contexts_are_found_once_for_each_public_and_layout() -> None:
    public = Public((drawn(1), drawn(2)))
    assert Contexts.of(public, LAYOUT) is Contexts.of(public, LAYOUT)
    assert Contexts.of(public, Layout.flat(LAYOUT.size)) is not Contexts.of(public, LAYOUT)
    other = Contexts.of(Public(public.aggregates[:1]), LAYOUT)
    known = Contexts.of(public, LAYOUT)
    assert known is not None
    assert other is not None
    assert (known.groups != other.groups).any()


def test_parts_are_selected_once_so_that_nested_codecs_find_their_contexts_again() -> None:
    public = Public((drawn(1),))
    assert public.select(LAYOUT, [0, 2]) is public.select(LAYOUT, (0, 2)) is not public.select(LAYOUT, [0, 1])


def test_where_nothing_is_known_nothing_is_kept() -> None:
    """The default is one object for the whole process."""
    assert Moment().public is Moment().public
    assert Contexts.of(Moment().public, LAYOUT) is None
    assert Moment().public.select(LAYOUT, [0]) is not Moment().public.select(LAYOUT, [0])
    assert Moment().public.once("question", lambda: 1) == 1
    assert Moment().public.once("question", lambda: 2) == 2


@by_path
def test_many_messages_with_one_public_are_those_with_one_each(path: Any) -> None:
    codec = ByLayer((("b", Sign()),), TopK(0.1, support="context"))
    shared, state = Public((drawn(1), drawn(2))), codec.start(LAYOUT)
    with using(path):
        for node in range(3):
            v = drawn(1) + drawn(3 + node)
            own, common = Moment(1, node, Public(shared.aggregates)), Moment(1, node, shared)
            data, _ = codec.pack(v, LAYOUT, state, common)
            assert data == codec.pack(v, LAYOUT, state, own)[0]
            one, _ = codec.unpack(memoryview(data), LAYOUT, state, common)
            other, _ = codec.unpack(memoryview(data), LAYOUT, state, own)
            np.testing.assert_array_equal(one, other)


@by_path
@pytest.mark.parametrize("scale", [2.0**-90, 1e-40])
def test_aggregates_too_small_to_be_the_same_everywhere_tell_nothing(path: Any, scale: float) -> None:
    tiny = (np.sign(drawn(1)) * np.float32(scale)).astype(np.float32)
    with using(path):
        assert Contexts.of(Public((tiny,)), LAYOUT) is None
        assert Contexts.of(Public((tiny, drawn(1))), LAYOUT) is not None
