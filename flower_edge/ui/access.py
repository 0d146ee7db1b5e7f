"""Who may see and use a page: `Access` says who, `Gate` stands in front of everything that is served.

On this machine alone (loopback) nothing is asked of a browser but that it means this machine: the Host it names is a
name of this machine, so that no other site's name can be made to point here, and a page of another site cannot reach in
(Origin). Anywhere else, and here too where one is given, a token is needed: once as `?token=...`, which leaves a cookie
that scripts cannot read, or with every request as `Authorization: Bearer ...`. The same holds for each file, for the
exports and for websockets. Nothing here knows what is served, and nothing needs NiceGUI.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from ..errors import ConfigError
from ..loopback import host_of, is_loopback
from ..telemetry.serving import same_secret

__all__ = ["HEADERS", "Access", "Gate"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Fewer characters could be tried out.
_LEAST_CHARACTERS: Final = 16

#: With every answer. NiceGUI puts scripts and styles into its page and compiles templates in the browser, so these two
#: cannot be refused; whatever is not of this server is.
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Access:
    """Who may use a page.

    Attributes:
        host: what it is bound to.
        token: what a user has to have; None: nothing, on loopback alone.
        names: further host names by which it may be asked for, such as that of a proxy in front of it.
        cookie: name of the cookie.
        pass_: what the cookie holds: a number of this run, so that the token itself stays out of the browser.
        secure: whether the cookie goes over TLS alone.

    Raises:
        ConfigError: a host that others reach and no token, or a token that could be guessed.

    >>> Access("127.0.0.1").token is None
    True
    """

    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    cookie: str = "flower_edge_page"
    pass_: str = field(default_factory=secrets.token_urlsafe, repr=False)
    secure: bool = False

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"host = {self.host!r} can be reached from other machines and there is no token; expected one: "
                f"--token {secrets.token_urlsafe(18)} (or leave the host at 127.0.0.1)"
            )
        token = self.token
        if token is not None and (len(token) < _LEAST_CHARACTERS or not token.isascii() or not token.isprintable()
                                  or " " in token):  # fmt: skip
            raise ConfigError(
                f"a token of {len(token)} characters; expected {_LEAST_CHARACTERS} or more, of ASCII and no space "
                f"among them, such as {secrets.token_urlsafe(18)}"
            )

    def allows_host(self, header: str) -> bool:
        """Whether a Host header names this server.

        >>> Access().allows_host("localhost:8808"), Access().allows_host("attacker.example:8808")
        (True, False)
        """
        name = host_of(header)
        if not name:
            return False
        return not is_loopback(self.host) or is_loopback(name) or name in self.names

    def knows(self, given: str | None) -> bool:
        """Whether it is the token; takes as long whatever is wrong with it."""
        return self.token is not None and given is not None and same_secret(given, self.token)

    def admits(self, headers: dict[str, str]) -> bool:
        """Whether a request with such headers, names in small letters, has what is needed."""
        if self.token is None:
            return True
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.knows(bearer.strip()):
            return True
        # By hand: what other servers of this machine left there may be no cookie by the book, and readers of those give
        # up on all that follow.
        pairs = (one.strip().partition("=") for one in headers.get("cookie", "").split(";"))
        return any(name == self.cookie and same_secret(value, self.pass_) for name, _, value in pairs)

    @property
    def set_cookie(self) -> str:
        """The header's value that lets a browser in."""
        return f"{self.cookie}={self.pass_}; Path=/; HttpOnly; SameSite=Strict" + ("; Secure" if self.secure else "")


@dataclass(frozen=True)
class Gate:
    """An ASGI application in front of another: lets through whom `access` allows, and adds `HEADERS` to each answer."""

    app: App
    access: Access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        guarded = _with_headers(send)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.access.allows_host(host):
            message = f"host {host!r} is not this server; expected such as http://127.0.0.1"
            await _refuse(scope, receive, guarded, 421, message)
        elif origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            await _refuse(scope, receive, guarded, 403, f"a page of {origin} may not use this one")
        elif scope["type"] == "http" and scope["method"] == "GET" and self._brings_token(scope):
            await _answer(guarded, 303, "", {"location": _without_token(scope), "set-cookie": self.access.set_cookie})
        elif self.access.admits(headers):
            await self.app(scope, receive, guarded)
        else:
            message = (
                "this page needs its token: open it as http://…/?token=YOUR_TOKEN, or send the header "
                "'Authorization: Bearer YOUR_TOKEN'"
            )
            await _refuse(scope, receive, guarded, 401, message)

    def _brings_token(self, scope: Scope) -> bool:
        return any(self.access.knows(token) for token in _query(scope).get("token", ()))


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _without_token(scope: Scope) -> str:
    """The token leaves the address at once: it would stay in the history and on the screen."""
    rest = urlencode({name: value for name, value in _query(scope).items() if name != "token"}, doseq=True)
    # "//host" would be another site's address.
    return quote("/" + scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower().decode() not in HEADERS]
            page = any(name.lower() == b"content-type" and b"text/html" in value for name, value in kept)
            if page:  # it holds what the session told at that time
                kept = [(name, value) for name, value in kept if name.lower() != b"cache-control"]
                kept.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*kept, *_encoded(HEADERS.items())]}
        await send(message)

    return guarded


def _encoded(pairs: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": message[:120]})
        return
    await _answer(send, status, message + "\n", {"www-authenticate": "Bearer"} if status == 401 else {})


async def _answer(send: Send, status: int, text: str, more: dict[str, str]) -> None:
    body = text.encode()
    headers = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **more}
    headers["cache-control"] = "no-store"
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers.items())})
    await send({"type": "http.response.body", "body": body})
