"""The fleet filter: what devices reach of a SuperLink. A reverse proxy that passes the fleet API and nothing else.

A SuperLink has one port for everything, and who reaches its control API can start a run, which is code on every node.
So the SuperLink listens on the loopback address, and this stands on the public port. What passes is a list: paths are
compared as they were sent, before anything is decoded, and what is not spelt exactly as Flower's SuperNode spells it is
refused. Bodies are streamed in both directions; no model is held in memory. An ASGI application; nothing here listens.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

__all__ = ["FilterLimits", "FleetFilter", "Passed"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Flower's SuperNode posts to these, and spells them so.
_FLEET: Final = re.compile(rb"/v1/fleet/[a-z]+(?:-[a-z]+)*")
#: Ours. A `+` of a wheel's version is the one character that clients may write in two ways.
_OWN: Final = re.compile(rb"/enrol/[a-z]+|/wheels/(?:[A-Za-z0-9_](?:[A-Za-z0-9._+-]|%2[Bb])*/?){0,2}")
#: Meant for one connection and not for the next (RFC 9110, 7.6.1), or told anew there.
_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade expect host content-length date server cookie forwarded x-forwarded-for x-forwarded-host "
    b"x-forwarded-proto x-real-ip".split()
)
_KEY_HEADER: Final = b"flwr-public-key"


@dataclass(frozen=True)
class FilterLimits:
    """What a device may cost.

    Attributes:
        body_bytes: of one request, at most. Flower sends models in pieces of 5 MB.
        own_body_bytes: the same for enrolment.
        silent_s: that a device may take between two pieces of a body.
        request_s: for the whole body of a request.
        answer_s: that the SuperLink may take between two pieces of an answer.
        connections: to the SuperLink at the same time; more wait for `answer_s`.
    """

    body_bytes: int = 64_000_000
    own_body_bytes: int = 65_536
    silent_s: float = 30.0
    request_s: float = 600.0
    answer_s: float = 120.0
    connections: int = 256


@dataclass(frozen=True)
class Passed:
    """One request that went to the SuperLink: whose key it named (Base64, not checked here), and the verdict."""

    public_key: str
    path: str
    status: int


class _Refused(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Gone(Exception):
    """The device has closed the connection."""


class FleetFilter:
    """Passes the fleet API to a SuperLink, `/enrol/` and `/wheels/` to an application of ours, and refuses the rest.

    Args:
        superlink: of the SuperLink, as `https://127.0.0.1:9000`; may be changed while it runs.
        trust: whom to trust for the SuperLink's certificate; None where it has none.
        own: the application for our own paths.
        limits: what a device may cost.
        watch: is called with each request that the SuperLink has answered. Its status is the SuperLink's verdict on
            the key: below 300 it was proved.
    """

    def __init__(
        self,
        superlink: str,
        *,
        trust: ssl.SSLContext | None,
        own: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None,
        limits: FilterLimits | None = None,
        watch: Callable[[Passed], None] | None = None,
    ) -> None:
        self.superlink = superlink
        self._trust, self._own, self._watch = trust, own, watch
        self._limits = limits or FilterLimits()
        self._client: httpx.AsyncClient | None = None
        #: Requests that were refused here, and never reached the SuperLink; those for which it was not there, too.
        self.refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path, method = bytes(scope["raw_path"]), str(scope["method"])
        try:
            if _FLEET.fullmatch(path) and not scope["query_string"]:
                _expect(method, "POST")
                await self._pass(scope, receive, send)
            elif path == b"/health":
                _expect(method, "GET", "HEAD")
                await self._pass(scope, receive, send)
            elif self._own is not None and _OWN.fullmatch(path):
                await self._own(scope, _Bounded(scope, receive, self._limits, self._limits.own_body_bytes), send)
            else:
                raise _Refused(403, "only the fleet API is reached from here; runs are started on the server itself")
        except _Refused as refused:
            self.refused += 1
            await _say(send, refused.status, str(refused))
        except _Gone:
            pass

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        most = self._limits.connections
        self._client = httpx.AsyncClient(
            verify=self._trust or False,
            timeout=httpx.Timeout(self._limits.answer_s, connect=5.0),
            # A SuperLink closes an idle connection after 5 s; a request that is sent just then would be lost.
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=2.0),
            trust_env=False,
            follow_redirects=False,
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._client is not None, "not started"
        path = bytes(scope["raw_path"]).decode("ascii")
        body = _Bounded(scope, receive, self._limits, self._limits.body_bytes)
        headers = _onward(scope["headers"])
        has_body = scope["method"] == "POST"
        if has_body and body.length is not None:
            headers.append((b"content-length", str(body.length).encode()))
        request = self._client.build_request(
            scope["method"], self.superlink + path, headers=headers, content=body.pieces() if has_body else None
        )
        try:
            answer = await self._client.send(request, stream=True)
        except (_Refused, _Gone):
            raise
        except httpx.TimeoutException:
            raise _Refused(504, "the SuperLink has not answered in time; try again") from None
        except httpx.TransportError:
            raise _Refused(503, "the SuperLink is not there now, it is being started; try again") from None
        try:
            if self._watch is not None and path != "/health":
                keys = [value for name, value in scope["headers"] if name == _KEY_HEADER]
                key = keys[0].decode("latin-1") if len(keys) == 1 else ""
                self._watch(Passed(key, path, answer.status_code))
            kept = [(name.lower(), value) for name, value in answer.headers.raw]
            passed_on = _onward(kept) + [pair for pair in kept if pair[0] == b"content-length"]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": passed_on})
            async for piece in answer.aiter_raw():
                event = {"type": "http.response.body", "body": piece, "more_body": True}
                await asyncio.wait_for(send(event), self._limits.silent_s)
            await send({"type": "http.response.body", "body": b""})
        except (httpx.TransportError, TimeoutError):
            # The answer broke off, or nobody takes it. It is left unfinished, so that the server closes the connection:
            # half an answer is not a whole one.
            return
        finally:
            await answer.aclose()


class _Bounded:
    """A request's body with limits. Called, it is ASGI's `receive`."""

    def __init__(self, scope: Scope, receive: Receive, limits: FilterLimits, most_bytes: int) -> None:
        names = [name for name, _ in scope["headers"]]
        given = [value for name, value in scope["headers"] if name == b"content-length"]
        # A length beside chunks is how requests are smuggled; the chunks are what is read here.
        self.length = int(given[0]) if given and b"transfer-encoding" not in names else None
        self._receive, self._limits, self._most, self._seen = receive, limits, most_bytes, 0
        self._latest_s = asyncio.get_running_loop().time() + limits.request_s
        self._ended = False
        if self.length is not None and self.length > most_bytes:
            raise _Refused(413, f"a body of {self.length} bytes, the most is {most_bytes}")

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._ended:  # what comes now is only that the device has gone, and that may take as long as it likes
            return await self._receive()
        left_s = self._latest_s - asyncio.get_running_loop().time()
        try:
            event = await asyncio.wait_for(self._receive(), max(0.0, min(self._limits.silent_s, left_s)))
        except TimeoutError:
            raise _Refused(408, "the rest of the body has not come in time") from None
        self._seen += len(event.get("body", b""))
        if self._seen > self._most:
            raise _Refused(413, f"a body of more than {self._most} bytes")
        self._ended = event["type"] != "http.request" or not event.get("more_body", False)
        return event

    async def pieces(self) -> AsyncIterator[bytes]:
        while not self._ended:
            event = await self()
            if event["type"] == "http.disconnect":
                raise _Gone
            if event["body"]:
                yield event["body"]


def _expect(method: str, *methods: str) -> None:
    if method not in methods:
        raise _Refused(405, f"{method} is not what this path takes; it takes {' and '.join(methods)}")


def _onward(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    return [(name, value) for name, value in headers if name not in _HOP and name not in named]


async def _say(send: Send, status: int, words: str) -> None:
    body = f"{words}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        # What is left of a refused body is not waited for.
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
