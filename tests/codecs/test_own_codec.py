"""A codec of one's own: every law, across a federation, and what `register` refuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import own_codec
import pytest
from laws.vector_codec_laws import VectorCodecLaws
from own_codec import Ternary

from flower_edge.codecs import Half, from_config, register
from flower_edge.errors import CodecError

ROOT = Path(__file__).parents[2]


class TestTernary(VectorCodecLaws):
    def make(self) -> Ternary:
        return Ternary()


def test_the_page_shows_the_codec_that_is_tested() -> None:
    source = Path(own_codec.__file__).read_text()
    shown = source[source.index("@register") :]
    assert shown in (ROOT / "docs/howto_codec.md").read_text()


def test_a_registered_kind_is_rebuilt_from_its_config() -> None:
    assert from_config(Ternary(threshold=0.5).config()) == Ternary(threshold=0.5)
    assert register(Ternary) is Ternary  # as a module that is loaded anew does


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (type("Plain", (), {"kind": "plain"}), "expected a frozen dataclass"),
        (dataclass(type("NoKind", (), {})), "expected a frozen dataclass"),
        (Half, "'half' is that of flower-edge itself"),
        (dataclass(type("Second", (), {"kind": "my-ternary"})), "'my-ternary' is that of own_codec.Ternary"),
    ],
)
def test_what_cannot_be_registered_is_refused(made: type, words: str) -> None:
    with pytest.raises(CodecError, match=words):
        register(made)


def test_a_kind_that_nobody_registered_is_refused_with_what_to_do() -> None:
    @dataclass(frozen=True)
    class Unknown(Ternary):
        kind: ClassVar[str] = "somebody-elses"

    with pytest.raises(CodecError, match="`register` a codec of your own in a module that both import"):
        from_config(Unknown().config())
