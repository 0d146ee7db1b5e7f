"""Tokens: only what this server made, for that run, node and purpose, and only for a time."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, TransportRefused
from flower_edge.transport.tokens import TokenMaker

SECRET = bytes(range(32))


def code(maker: TokenMaker, token: str, *, run: str = "7", node: int = 3, purpose: str = "split/12") -> str:
    try:
        maker.check(token, run=run, node=node, purpose=purpose)
    except TransportRefused as refused:
        return refused.code
    return ""


def made(maker: TokenMaker, **other: object) -> str:
    arguments = {"run": "7", "node": 3, "purpose": "split/12", "valid_s": 60.0} | other
    return maker.make(**arguments)  # type: ignore[arg-type]


def test_a_token_is_good_for_whom_it_was_made_and_for_nobody_else() -> None:
    maker = TokenMaker(SECRET)
    token = made(maker)
    assert code(maker, token) == ""
    assert code(maker, token, run="8") == "other-run"
    assert code(maker, token, node=4) == "other-node"
    assert code(maker, token, purpose="split/13") == "other-purpose"


def test_a_token_ends_when_its_time_is_over() -> None:
    now = [1e9]
    maker = TokenMaker(SECRET, clock=lambda: now[0])
    token = made(maker)
    now[0] += 59.9
    assert code(maker, token) == ""
    now[0] += 0.1
    assert code(maker, token) == "expired-token"


def test_another_secret_knows_none_of_them() -> None:
    assert code(TokenMaker.fresh(), made(TokenMaker(SECRET))) == "bad-token"


def test_the_same_secret_in_another_process_knows_them() -> None:
    assert code(TokenMaker(SECRET), made(TokenMaker(SECRET))) == ""


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.characters(max_codepoint=0x3FF))
def test_a_token_with_one_character_changed_is_forged(where: int, letter: str) -> None:
    maker = TokenMaker(SECRET, clock=lambda: 1e9)
    token = made(maker)
    index = where % len(token)
    changed = token[:index] + letter + token[index + 1 :]
    assert code(maker, changed) == ("" if changed == token else "bad-token")


@settings(max_examples=80)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=100).map(lambda data: data.decode("latin-1"))))
def test_rubbish_is_no_token(text: str) -> None:
    assert code(TokenMaker(SECRET), text) == "bad-token"


def test_a_longer_life_written_into_the_claims_is_forged() -> None:
    maker = TokenMaker(SECRET)
    version, _, mac = made(maker).split(".")
    claims = base64.urlsafe_b64encode(json.dumps(["7", 3, "split/12", 1e12]).encode()).rstrip(b"=").decode()
    assert code(maker, f"{version}.{claims}.{mac}") == "bad-token"


def test_ten_megabytes_of_token_are_refused_unread() -> None:
    assert code(TokenMaker(SECRET), "a" * 10_000_000) == "bad-token"


def test_names_may_hold_anything() -> None:
    maker = TokenMaker(SECRET)
    token = made(maker, run='7"],[.', purpose="ü/\0.", node=2**64 - 1)
    assert code(maker, token, run='7"],[.', purpose="ü/\0.", node=2**64 - 1) == ""


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(TokenMaker(SECRET))


def test_what_cannot_be_a_token_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="15 bytes"):
        TokenMaker(bytes(15))
    for valid_s in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="above 0"):
            made(TokenMaker(SECRET), valid_s=valid_s)
    with pytest.raises(ConfigError, match="shorter names"):
        made(TokenMaker(SECRET), run="r" * 3000)
