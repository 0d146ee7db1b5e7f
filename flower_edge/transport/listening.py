"""`Listening`: what waits to be dialled, opened and closed; `close_all` of its connections.

What it does with who comes is its subclass's business.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

from ..errors import TransportError
from .transport import Connection, Handler, Hello, Peer, PeerTransport, Server

__all__ = ["Listening", "close_all"]


def close_all(connections: Iterable[Connection]) -> None:
    """Side by side: one whose other end is gone takes a while."""
    threads = [threading.Thread(target=connection.close) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Listening(ABC):
    """Serves connections between `open` and `close`; a context manager of the two.

    Args:
        transport: of the connections, with this end's credentials.
        host, port: where to listen; port 0 takes a free one.
    """

    def __init__(self, transport: PeerTransport, host: str, port: int) -> None:
        self._transport, self._host, self._port = transport, host, port
        self._server: Server | None = None

    @abstractmethod
    def accept(self, hello: Hello, peer: Peer) -> Handler:
        """Who is let in, and what serves them.

        Raises:
            TransportRefused: not this one; its code is told.
        """

    def open(self) -> None:
        """Listen. What listens already goes on."""
        if self._server is None:
            self._server = self._transport.serve(self._host, self._port, self.accept)

    def close(self) -> None:
        """End all connections, and stop listening. Safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Where it listens.

        Raises:
            TransportError: it does not.
        """
        if self._server is None:
            raise TransportError(f"this {type(self).__name__} does not listen; call open() first")
        return self._server.port
