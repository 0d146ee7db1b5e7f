"""`ServedPage`: pages of this process, served from a thread of their own behind their gate; `until_ctrl_c`.

Nothing here draws, and nothing here knows what is shown.
"""

from __future__ import annotations

import gc
import importlib.util
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from ..errors import ConfigError
from ..loopback import is_loopback
from .access import Access

__all__ = ["ServedPage", "reached_by_others", "until_ctrl_c"]

#: A port to try where another is taken.
_ANOTHER_PORT: Final = 8808
#: Seconds that open websockets get when it ends.
_PATIENCE_S: Final = 2


class ServedPage:
    """Pages that are served from a thread until they are closed. A context manager.

    NiceGUI keeps one application per process, so a process has one of these.

    Args:
        build: makes the ASGI application for an access.
        host: what to bind to; one that other machines reach needs a token.
        port: of TCP; 0 takes a free one, see `url`.
        token: of 16 characters or more; needed by every request where it is given.
        certificate, key: files in PEM; it is then served over TLS.
        names: further host names by which it is asked for, such as a proxy's.
        what: what it is called.

    Raises:
        ConfigError: a host without token, no NiceGUI, a port that is taken, half of a certificate, a second page.
    """

    def __init__(
        self,
        build: Callable[[Access], Any],
        host: str,
        port: int,
        token: str | None,
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        names: Sequence[str] = (),
        what: str = "page",
    ) -> None:
        if importlib.util.find_spec("nicegui") is None:
            raise ConfigError(f"the {what} needs NiceGUI, which is not installed; pip install 'flower-edge[ui]'")
        if (certificate is None) != (key is None):
            raise ConfigError(f"certificate = {certificate} and key = {key}: expected both of them, or none")
        access = Access(host, token, tuple(names), secure=certificate is not None)
        import uvicorn

        self._socket = _bound(host, port)
        self._port = int(self._socket.getsockname()[1])
        # Cookies do not tell ports apart: two pages of one machine must not take each other's.
        access = replace(access, cookie=f"{access.cookie}_{self._port}")
        self._scheme = "https" if certificate is not None else "http"
        self._host, self._token = host, token
        try:
            config = uvicorn.Config(
                build(access),
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
        # NiceGUI looks for the server among all objects there are, and to look at one of torch's is a warning. What is
        # frozen is not looked at.
        gc.freeze()
        try:
            self._config, self._files = config, (certificate, key)
            self._server = uvicorn.Server(config)
            self._thread = threading.Thread(target=self._run, name=what, daemon=True)
            self._thread.start()
            while self._thread.is_alive() and not self._server.started:
                self._thread.join(0.01)
        finally:
            gc.unfreeze()

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

    def renew(self) -> None:
        """Read certificate and key again; nothing where it is not served over TLS."""
        certificate, key = self._files
        if self._config.ssl is not None and certificate is not None:
            self._config.ssl.load_cert_chain(certificate, key)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it has ended, or so long; returns whether it has."""
        self._thread.join(timeout_s)
        return self.ended

    def close(self) -> None:
        """End it; what it shows goes on. Twice does no harm."""
        self._server.should_exit = True
        self._thread.join(_PATIENCE_S + 5)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def until_ctrl_c(page: ServedPage, what: str, *, plain: bool, instead: str | None = None) -> None:
    """Say what to open, and wait for Ctrl-C or the page's end.

    Args:
        page: that is served; it is not closed here.
        what: what it is called.
        plain: whether others reach it without TLS, which is worth a warning.
        instead: printed instead of all that.
    """

    def say(text: str) -> None:
        if instead is None:
            # Flushed: whoever starts this as a process waits for that line.
            print(f"{what}: {text}", flush=True)

    # Ctrl-C may come as soon as the line is out.
    try:
        if instead is not None:
            print(instead, flush=True)
        say(page.entrance)
        if plain:
            say("without TLS, others on the way can read the token; give certificate and key")
        while not page.wait(0.5):
            pass
    except KeyboardInterrupt:
        say("ended")


def reached_by_others(host: str) -> bool:
    """Whether machines beside this one reach a page on that host."""
    return not is_loopback(host)


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
        another = port + 1 if 0 < port < 65535 else _ANOTHER_PORT
        raise ConfigError(f"host = {host!r}, port = {port}: {error}; give another, such as --port {another}") from error
    return bound
