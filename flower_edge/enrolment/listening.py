"""The public port: an ASGI application behind TLS, in a thread of its own, with bounds on who sends nothing.

uvicorn does the work. What is added is a time for a request's head (uvicorn waits for it without limit), certificates
that are replaced while it listens, and a port that is bound before anything else is started. Nothing here knows what
is served.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import EnrolmentError

__all__ = ["PublicPort", "bind"]

#: For the head of a request, from the first to the last byte, and for a new connection to send one at all.
_HEAD_S: Final = 20.0
_HEAD_BYTES: Final = 32_768


class _Patient(H11Protocol):
    """Closes a connection on which no whole request's head has come for `_HEAD_S`."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(_HEAD_S, self._close)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _close(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.transport.close()


def bind(host: str, port: int, option: str = "--listen") -> socket.socket:
    """A socket that has the port but does not listen yet; `option` is what a user would give another one with.

    Raises:
        EnrolmentError: somebody else has it, or it may not be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        fix = f"give another one with {option} HOST:PORT, or end what has it (`ss -ltnp` tells)"
        raise EnrolmentError(f"cannot listen on {host}:{port} ({error.strerror or error}); {fix}") from None
    return held


class PublicPort:
    """Serves an application behind TLS while the context lasts.

    Args:
        app: an ASGI application.
        held: as `bind` gives it.
        certificate, key: PEM files of the server's certificate and key.
        connections: at the same time; more are answered with 503.
    """

    def __init__(
        self, app: Callable[..., Any], held: socket.socket, certificate: Path, key: Path, *, connections: int = 1000
    ) -> None:
        self._held, self._files = held, (certificate, key)
        self._config = uvicorn.Config(
            app,
            http=_Patient,
            ws="none",
            lifespan="on",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            limit_concurrency=connections,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
        )
        self._server = uvicorn.Server(self._config)
        self._thread = threading.Thread(target=self._run, name="public-port", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._held.getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def renew(self) -> None:
        """Read certificate and key again; connections that are there keep what they have."""
        assert isinstance(self._config.ssl, ssl.SSLContext)
        self._config.ssl.load_cert_chain(*self._files)

    def __enter__(self) -> Self:
        # What strangers send is no news, and it comes as often as they like.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._config.load()
        assert self._config.ssl is not None
        self._config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise EnrolmentError("the public port does not open; the log above says why")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._held.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._held]))
