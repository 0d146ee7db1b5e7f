"""Tokens: proof that whoever dials was told to, by the one it dials. Strings; nothing here sends or stores them.

A token says for which run, node and purpose it was made and until when, in plain text, and carries an HMAC-SHA256 over
that under a secret which never leaves the server. It proves nothing to others, and is only as safe as the channel that
brought it. Whoever steals one may use it until it expires: give it no longer than a round, and put the round into the
purpose.

Source: HMAC is RFC 2104.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from ..errors import ConfigError, TransportRefused

__all__ = ["TokenMaker"]

_VERSION: Final = "fe1"
_MOST_CHARACTERS: Final = 2048


@dataclass(frozen=True)
class TokenMaker:
    """Makes tokens, and knows its own again.

    Attributes:
        secret: 16 bytes or more, drawn at random; `TokenMaker.fresh()` draws one.
        clock: seconds since 1970. Maker and checker are the same server; nobody else's clock matters.

    Raises:
        ConfigError: a secret too short to be one.

    >>> tokens = TokenMaker.fresh()
    >>> token = tokens.make(run="7", node=3, purpose="split/12", valid_s=60)
    >>> tokens.check(token, run="7", node=3, purpose="split/12")
    >>> tokens.check(token, run="7", node=4, purpose="split/12")
    Traceback (most recent call last):
    flower_edge.errors.TransportRefused: a token made for node 3, not for node 4
    """

    secret: bytes = field(repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < 16:
            raise ConfigError(f"a secret of {len(self.secret)} bytes: expected 16 or more, as secrets.token_bytes(32)")

    @classmethod
    def fresh(cls, *, clock: Callable[[], float] = time.time) -> Self:
        """With a new secret."""
        return cls(secrets.token_bytes(32), clock)

    def make(self, *, run: str, node: int, purpose: str, valid_s: float) -> str:
        """A token for `node`, good for `valid_s` seconds from now, of letters, digits, `-`, `_` and `.`.

        Raises:
            ConfigError: no such time, or names so long that the token would be refused.
        """
        if not 0.0 < valid_s < math.inf:
            raise ConfigError(f"a token valid for {valid_s!r} s: expected a number above 0")
        claims = json.dumps([run, node, purpose, self.clock() + valid_s], separators=(",", ":"))
        token = f"{_VERSION}.{_text(claims.encode())}.{_text(self._mac(claims.encode()))}"
        if len(token) > _MOST_CHARACTERS:
            raise ConfigError(f"a token of {len(token)} characters, the most is {_MOST_CHARACTERS}; use shorter names")
        return token

    def check(self, token: str, *, run: str, node: int, purpose: str) -> None:
        """Pass, or say why not. What was forged learns nothing but that.

        Raises:
            TransportRefused: `bad-token`, `expired-token`, `other-run`, `other-node` or `other-purpose`.
        """
        claimed_run, claimed_node, claimed_purpose, until_s = self._claims(token)
        if self.clock() >= until_s:
            raise TransportRefused("a token that has expired; ask for a new one", "expired-token")
        if claimed_run != run:
            raise TransportRefused(f"a token made for run {claimed_run!r}, not for run {run!r}", "other-run")
        if claimed_node != node:
            raise TransportRefused(f"a token made for node {claimed_node}, not for node {node}", "other-node")
        if claimed_purpose != purpose:
            raise TransportRefused(f"a token made for {claimed_purpose!r}, not for {purpose!r}", "other-purpose")

    def _claims(self, token: str) -> tuple[str, int, str, float]:
        refused = TransportRefused(
            "not a token of this server, but of another secret or none; send the one that came with the order, or give "
            "both ends the same secret",
            "bad-token",
        )
        if len(token) > _MOST_CHARACTERS:
            raise refused
        try:
            version, claims_text, mac_text = token.encode("ascii").split(b".")
            claims = _bytes(claims_text)
            genuine = hmac.compare_digest(_bytes(mac_text), self._mac(claims))
        except ValueError:
            raise refused from None
        # Only what this server wrote itself is looked into.
        if not genuine or version != _VERSION.encode():
            raise refused
        run, node, purpose, until_s = json.loads(claims)
        return run, node, purpose, until_s

    def _mac(self, claims: bytes) -> bytes:
        return hmac.new(self.secret, f"flower-edge token {_VERSION}\0".encode() + claims, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: bytes) -> bytes:
    data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(data).encode() != text:
        # Base64 has several spellings of the same bytes; there is one token.
        raise ValueError("not the one spelling")
    return data
