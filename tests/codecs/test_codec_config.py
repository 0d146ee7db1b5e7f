"""Configs come over the wire: whatever they hold, a codec is built or a CodecError says what was expected."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.codecs.block import Block
from flower_edge.codecs.by_layer import ByLayer
from flower_edge.codecs.by_size import BySize
from flower_edge.codecs.codec import _KINDS, Codec, from_config, label
from flower_edge.codecs.eden import Eden
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.low_rank import LowRank
from flower_edge.codecs.predicted import Predicted
from flower_edge.codecs.rate_controlled import RateControlled
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import CodecError

NESTED = [
    stc(0.05),
    ErrorFeedback(Predicted(TopK(0.1, values=Block(4))), momentum=0.5, reset_after=3),
    ByLayer((("*.bias", Half()), ("head*", stc(0.1))), default=BySize(Identity(), Eden(1, seed=5))),
    ErrorFeedback(LowRank(2, values=Half("bf16"))),
    ErrorFeedback(RateControlled((TopK(0.01), Sign(), Half()), budget_error=0.2, groups="layer")),
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(sorted(_KINDS)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "version", "inner", "fraction", "rules", "default", "x"]), inner)
        | st.sampled_from(sorted(_KINDS)).map(lambda kind: {"kind": kind})
    ),
    max_leaves=8,
)


def options(kind: str) -> list[str]:
    module, name = _KINDS[kind]
    return [field.name for field in fields(getattr(import_module(f"flower_edge.codecs.{module}"), name))]


@pytest.mark.parametrize("codec", NESTED, ids=lambda codec: codec.kind)
def test_nested_codecs_are_rebuilt_from_json(codec: Codec) -> None:
    rebuilt = from_config(json.loads(json.dumps(codec.config())))
    assert rebuilt == codec
    assert label(rebuilt) == label(codec)
    assert hash(rebuilt) == hash(codec)


def test_labels_tell_codecs_apart_and_say_the_kind() -> None:
    labels = [label(codec) for codec in (*NESTED, stc(0.06), ErrorFeedback(TopK(0.05, values=Half())), Half())]
    assert len(set(labels)) == len(labels)
    assert labels[0].startswith("error_feedback-")
    assert label(Identity()) == "identity"


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_every_kind_is_there_and_names_itself(kind: str) -> None:
    module, name = _KINDS[kind]
    made = getattr(import_module(f"flower_edge.codecs.{module}"), name)
    assert made.kind == kind
    assert isinstance(made.version if hasattr(made, "version") else 1, int)


@pytest.mark.parametrize("kind", sorted(set(_KINDS) - {"identity"}))
def test_any_option_of_any_kind_is_taken_or_refused_as_a_codec_error(kind: str) -> None:
    names = options(kind)

    @settings(max_examples=40)
    @given(st.dictionaries(st.sampled_from([*names, "version", "levle"]), anything, max_size=4))
    def holds(drawn: dict[str, Any]) -> None:
        try:
            codec = from_config({"kind": kind, **drawn})
        except CodecError:
            return
        assert label(from_config(json.loads(json.dumps(codec.config())))) == label(codec)

    holds()


@settings(max_examples=100)
@given(anything)
def test_anything_at_all_is_a_codec_or_a_codec_error(config: Any) -> None:
    try:
        codec = from_config(config)
    except CodecError:
        return
    assert codec.config()["kind"] in _KINDS


def deep(levels: int) -> dict[str, Any]:
    config: dict[str, Any] = {"kind": "identity"}
    for _ in range(levels):
        config = {"kind": "error_feedback", "inner": config}
    return config


def test_codecs_nest_a_few_times_and_not_without_end() -> None:
    assert label(from_config(deep(8))).startswith("error_feedback-")
    for levels in (9, 100, 5000):
        with pytest.raises(CodecError, match="nested deeper than 8"):
            from_config(deep(levels))


def test_lists_in_lists_are_refused_before_they_go_deep() -> None:
    rules: list[Any] = []
    for _ in range(5000):
        rules = [rules]
    with pytest.raises(CodecError, match="lists nested too deep"):
        from_config({"kind": "by_layer", "rules": rules, "default": {"kind": "identity"}})


def test_a_config_of_another_version_is_refused_wherever_it_is_nested() -> None:
    config = json.loads(json.dumps(stc(0.1).config()))
    config["inner"]["values"]["version"] = 7
    with pytest.raises(CodecError, match=r"codec 'sign' of version 7, this side reads 1; install the same"):
        from_config(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "error_feedback"}, "cannot be built from"),
        ({"kind": "error_feedback", "inner": "identity"}, "inner = 'identity': expected a codec of vectors"),
        ({"kind": "error_feedback", "inner": {"kind": "zip"}}, "codec of kind 'zip': expected one of"),
        (
            {"kind": "by_layer", "rules": [["a", 3]], "default": {"kind": "identity"}},
            r"rules\[0\] = 3: expected a codec",
        ),
        ({"kind": "predicted", "inner": {"kind": "identity"}, "decay": [1]}, "decay = "),
        ({"kind": "rate_controlled", "candidates": [[]], "budget_bytes": 9}, r"candidates\[0\] = "),
        ({"kind": "low_rank", "rank": 10**30}, "rank = .*: expected a whole number from 1"),
        ({"kind": "by_size", "small": {"kind": "identity"}, "large": {"kind": "identity"}, "thr": 1}, "'thr'"),
    ],
)
def test_the_error_names_the_option_and_what_was_expected(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        from_config(config)


def test_reading_a_config_imports_neither_torch_nor_flower_nor_numba() -> None:
    code = (
        "import sys; from flower_edge.codecs.codec import from_config\n"
        "from_config({'kind': 'by_layer', 'rules': [], 'default': {'kind': 'identity'}})\n"
        "assert not {'torch', 'flwr', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
