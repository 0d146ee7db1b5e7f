"""`/metrics` over HTTP: `metrics_app` to mount in an ASGI server that is there, `MetricsServer` where there is none.

Read only: GET and HEAD, one path. On this machine alone (loopback) nobody is asked who they are, but the Host has to be
a name of this machine, so that no web page can read it by a name of its own that points here. Anywhere else a token is
needed, as `Authorization: Bearer ...`. Nothing here knows what is told.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import socket
import socketserver
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..loopback import host_of, is_loopback
from .metrics import CONTENT_TYPE, Metrics

__all__ = ["DEFAULT_METRICS_PORT", "LEAST_CHARACTERS", "MetricsServer", "metrics_app", "same_secret"]

log = logging.getLogger(__name__)

DEFAULT_METRICS_PORT: Final = 9464
#: Of a token: fewer could be tried out.
LEAST_CHARACTERS: Final = 16
#: Seconds that a client may take for its request.
_PATIENCE_S: Final = 10.0

_App = Callable[[MutableMapping[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[None]]], Any]


@dataclass(frozen=True)
class _Page:
    """What is answered, whoever listens."""

    metrics: Metrics
    token: str | None = field(default=None, repr=False)
    #: Whether only names of this machine are answered.
    here_only: bool = False

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and (len(token) < LEAST_CHARACTERS or not token.isascii() or not token.isprintable()):
            raise ConfigError(
                f"a token of {len(token)} characters; expected {LEAST_CHARACTERS} or more, of ASCII, such as "
                f"{secrets.token_urlsafe(18)}"
            )

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request; names of `headers` in small letters."""
        if self.here_only and not is_loopback(host_of(headers.get("host", ""))):
            return _said(421, f"host {headers.get('host', '')!r} is not this server")
        if path.rstrip("/") != "/metrics":
            return _said(404, "there is /metrics here, and nothing else")
        if method not in ("GET", "HEAD"):
            return _said(405, "metrics are read only", {"allow": "GET, HEAD"})
        kind, _, given = headers.get("authorization", "").partition(" ")
        if self.token is not None and not (kind.lower() == "bearer" and same_secret(given.strip(), self.token)):
            return _said(401, "needs the header 'Authorization: Bearer YOUR_TOKEN'", {"www-authenticate": "Bearer"})
        try:
            text = self.metrics.text()
        except Exception:
            log.exception("metrics could not be told")
            return _said(500, "metrics could not be told; the log says why")
        return 200, {"content-type": CONTENT_TYPE, **_ALWAYS}, text.encode()


def metrics_app(metrics: Metrics, token: str | None = None) -> _App:
    """An ASGI application that answers `/metrics`, to mount in a server that is there.

    Whoever mounts it decides who reaches it; what is in front of it checks hosts and origins.

    Args:
        metrics: what is told.
        token: of 16 characters or more; then needed as `Authorization: Bearer ...`.

    Raises:
        ConfigError: a token that could be guessed.
    """
    page = _Page(metrics, token)

    async def app(scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            return
        import asyncio

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        # Mounted at /metrics, a framework may hand on what is behind that: nothing.
        path = scope["path"] if scope["path"] not in ("", "/") else "/metrics"
        status, more, body = await asyncio.to_thread(page.answer, scope["method"], path, headers)
        more = {**more, "content-length": str(len(body))}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in more.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


class MetricsServer:
    """Serves `/metrics` from a thread of its own until it is closed. A context manager.

    Args:
        metrics: what is told.
        host: what to bind to; one that other machines reach needs a token.
        port: of TCP; 0 takes a free one, see `port`.
        token: of 16 characters or more; needed by every request where it is given.
        certificate, key: files in PEM; it is then served over TLS.

    Raises:
        ConfigError: a host without token, a token that could be guessed, a port that is taken, half of a certificate.

    >>> from urllib.request import urlopen
    >>> metrics = Metrics()
    >>> metrics.gauge("peers", "Neighbours that are connected.").set(2)
    >>> with MetricsServer(metrics, port=0) as server:
    ...     urlopen(server.url).read().decode().splitlines()[-1]
    'flower_edge_peers 2.0'
    """

    def __init__(
        self,
        metrics: Metrics,
        host: str = "127.0.0.1",
        port: int = DEFAULT_METRICS_PORT,
        token: str | None = None,
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"metrics on host = {host!r} can be reached from other machines and there is no token; expected one: "
                f"--token {secrets.token_urlsafe(18)} (or leave the host at 127.0.0.1)"
            )
        if (certificate is None) != (key is None):
            raise ConfigError(f"certificate = {certificate} and key = {key}: expected both of them, or none")
        page = _Page(metrics, token, here_only=is_loopback(host))
        try:
            self._server = _Http((host, port), _handler(page), host)
        except (OSError, OverflowError) as error:
            another = port + 1 if 0 < port < 65535 else DEFAULT_METRICS_PORT
            raise ConfigError(
                f"metrics on host = {host!r}, port = {port}: {error}; give another, such as {another}"
            ) from (error)
        if certificate is not None:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, key)
            except OSError as error:
                self._server.server_close()
                raise ConfigError(
                    f"certificate = {certificate}, key = {key}: {error}; expected files in PEM"
                ) from error
            self._server.tls = context
        self._files = certificate, key
        self._host, self._scheme = host, "http" if certificate is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What Prometheus is to scrape."""
        shown = "localhost" if self._host in ("0.0.0.0", "::") else self._host
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{self._scheme}://{shown}:{self.port}/metrics"

    def renew(self) -> None:
        """Read certificate and key again; nothing where it is not served over TLS."""
        certificate, key = self._files
        if self._server.tls is not None and certificate is not None:
            self._server.tls.load_cert_chain(certificate, key)

    def close(self) -> None:
        """End it. Twice does no harm."""
        self._server.shutdown()
        self._thread.join(_PATIENCE_S)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], host: str) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks up the name of this host, which may take seconds, for CGI that nobody uses.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def get_request(self) -> tuple[Any, Any]:
        request, address = super().get_request()
        request.settimeout(_PATIENCE_S)
        if self.tls is not None:
            # Hands are shaken in the thread of the request: one that never comes holds up nobody else.
            request = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        return request, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request for metrics of %s broke off", client_address, exc_info=True)


def _handler(page: _Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        server_version, sys_version = "flower-edge", ""

        def _answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = page.answer(self.command, urlsplit(self.path).path, headers)
            self.send_response(status)
            for name, value in {**more, "content-length": str(len(body)), "connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler


#: With every answer.
_ALWAYS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def _said(status: int, text: str, more: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    return status, {"content-type": "text/plain; charset=utf-8", **_ALWAYS, **(more or {})}, f"{text}\n".encode()


def same_secret(one: str, other: str) -> bool:
    """Whether they are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
