"""A model as one vector of floats and back: what its dtypes cannot hold is refused, not made infinite."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flower_edge.codecs.block import Block
from flower_edge.codecs.codec import from_config, label
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.random_k import RandomK
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError


def test_what_float16_cannot_hold_is_refused_by_name() -> None:
    """The floats travel as float32: whoever made these bytes for a model of float32 sends up to 3e38."""
    wide, narrow = {"w": np.full(4, 1e5, np.float32)}, {"w": np.zeros(4, np.float16)}
    payload, _ = Sign().encode(wide, Sign().init(wide))
    with pytest.raises(CodecError, match=r"'w' is float16 and was told 1000\d\d.*at most 65504"):
        Sign().decode(payload, Sign().init(narrow))


def test_tiny_numbers_become_zero_in_float16_without_a_word() -> None:
    wide, narrow = {"w": np.full(4, 1e-30, np.float32)}, {"w": np.zeros(4, np.float16)}
    payload, _ = Sign().encode(wide, Sign().init(wide))
    model, _ = Sign().decode(payload, Sign().init(narrow))
    assert model["w"].dtype == np.float16
    assert not model["w"].any()


def test_equal_codecs_have_equal_labels_however_their_numbers_were_written() -> None:
    """A label is what both ends of a packet compare; `1` and `1.0` are the same option."""
    assert TopK(1) == TopK(1.0)
    assert label(TopK(1)) == label(TopK(1.0)) == label(TopK(np.float64(1)))
    assert label(stc(1)) == label(stc(1.0)) != label(stc(0.5))
    assert label(Delta(Identity(), step=1, mixing=1)) == label(Delta(Identity()))


def test_numbers_of_numpy_become_plain_ones_in_a_config_or_are_refused_with_what_to_write() -> None:
    """float32 would count in float32 at one end, and in float64 at the other."""
    config = json.dumps(Block(np.int64(8)).config())  # type: ignore[arg-type]
    assert from_config(json.loads(config)) == Block(8)
    with pytest.raises(CodecError, match=r"fraction = np.float32\(0.5\).*; write float\(...\) around it"):
        TopK(np.float32(0.5))  # type: ignore[arg-type]
    with pytest.raises(CodecError, match=r"seed = np.int64\(3\).*; write int\(...\) around it"):
        RandomK(0.5, seed=np.int64(3))  # type: ignore[arg-type]
