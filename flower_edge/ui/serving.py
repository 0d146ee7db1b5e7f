"""`ControlPage` serves the control page of a session from a thread of its own; `serve` does so until Ctrl-C.

The session stays in this process and goes on whether somebody looks or not. Nothing here draws: see `page`.
"""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ..errors import ConfigError
from .access import Access, is_loopback

if TYPE_CHECKING:
    from ..runtime.compression.session_torch import CompressionSession

__all__ = ["DEFAULT_PORT", "ControlPage", "serve"]

DEFAULT_PORT: Final = 8808
#: Seconds that open websockets get when it ends.
_PATIENCE_S: Final = 2


class ControlPage:
    """A session's page, served from a thread of its own. A context manager.

    NiceGUI keeps one application per process, so a process has one page.

    Args:
        session: what it shows and drives. It is not closed with the page.
        host: what to bind to; one that other machines reach needs a token.
        port: of TCP; 0 takes a free one, see `url`.
        token: of 16 characters or more; needed by every request where it is given.
        certificate, key: files in PEM; the page is then served over TLS.
        names: further host names by which it is asked for, such as a proxy's.

    Raises:
        ConfigError: a host without token, no NiceGUI, a port that is taken, half of a certificate, a second page.
    """

    def __init__(
        self,
        session: CompressionSession,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        names: Sequence[str] = (),
    ) -> None:
        if importlib.util.find_spec("nicegui") is None:
            raise ConfigError("the control page needs NiceGUI, which is not installed; pip install 'flower-edge[ui]'")
        if (certificate is None) != (key is None):
            raise ConfigError(f"certificate = {certificate} and key = {key}: expected both of them, or none")
        access = Access(host, token, tuple(names), secure=certificate is not None)
        import uvicorn

        from .application import application

        self._socket = _bound(host, port)
        self._port = int(self._socket.getsockname()[1])
        # Cookies do not tell ports apart: two pages of one machine must not take each other's.
        access = replace(access, cookie=f"{access.cookie}_{self._port}")
        self._scheme = "https" if certificate is not None else "http"
        self._host, self._token = host, token
        try:
            config = uvicorn.Config(
                application(session, access),
                ssl_certfile=certificate,
                ssl_keyfile=key,
                ws="wsproto",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_PATIENCE_S,
            )
            config.load()
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"certificate = {certificate}, key = {key}: {error}; expected files in PEM") from error
        except BaseException:
            self._socket.close()
            raise
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="control page", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def url(self) -> str:
        """What to open, without the token."""
        shown = "localhost" if self._host in ("0.0.0.0", "::") else self._host
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{self._scheme}://{shown}:{self._port}/"

    @property
    def entrance(self) -> str:
        """What to open the first time: with the token where there is one."""
        return self.url if self._token is None else f"{self.url}?token={quote(self._token, safe='')}"

    @property
    def ended(self) -> bool:
        """Whether it serves no more."""
        return not self._thread.is_alive()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it has ended, or so long; returns whether it has."""
        self._thread.join(timeout_s)
        return self.ended

    def close(self) -> None:
        """End it. The session goes on. Twice does no harm."""
        self._server.should_exit = True
        self._thread.join(_PATIENCE_S + 5)
        self._socket.close()

    def __enter__(self) -> ControlPage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    session: CompressionSession,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    *,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    names: Sequence[str] = (),
) -> None:
    """Serve the page until Ctrl-C; what to open is printed. Arguments and errors as of `ControlPage`.

    Raises:
        ConfigError: see there.
    """
    with ControlPage(session, host, port, token, certificate=certificate, key=key, names=names) as page:
        # Flushed: whoever starts this as a process waits for that line.
        print(f"control page: {page.entrance}", flush=True)
        if not is_loopback(host) and certificate is None:
            print(
                "control page: without TLS, others on the way can read the token; give certificate and key", flush=True
            )
        try:
            while not page.wait(0.5):
                pass
        except KeyboardInterrupt:
            print("control page: ended", flush=True)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        another = port + 1 if 0 < port < 65535 else DEFAULT_PORT
        raise ConfigError(f"host = {host!r}, port = {port}: {error}; give another, such as --port {another}") from error
    return bound
