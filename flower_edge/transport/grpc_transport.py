"""`GrpcTransport`: the `PeerTransport` over gRPC streams, with whatever credentials it is given.

One HTTP/2 connection per dialled connection, raw bytes, no protoc. Which credentials fit which end: `credentials`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from ..errors import TransportError, TransportRefused
from ..loopback import is_loopback
from .credentials import Credentials, split_address
from .grpc_connection import GrpcConnection, PeerLimits, told
from .grpc_server import OFFER, STREAM, TICKET_KEY, GrpcServer, options
from .transport import Accept, Connection, ConnectionClosed, Hello, Limits, Peer

__all__ = ["GrpcTransport"]


@dataclass(frozen=True)
class GrpcTransport:
    """Serves and dials with one set of credentials.

    Attributes:
        credentials: what this end shows and whom it believes.
        limits: of this end.

    >>> from flower_edge.transport.credentials import Insecure
    >>> def accept(hello, peer):
    ...     return lambda connection: connection.send(hello.run.encode() + connection.receive())
    >>> transport = GrpcTransport(Insecure())
    >>> with transport.serve("127.0.0.1", 0, accept) as server:
    ...     hello = Hello(purpose="greeting", run="7", node=3)
    ...     with transport.dial(f"127.0.0.1:{server.port}", hello) as connection:
    ...         connection.send(b" up")
    ...         connection.receive()
    b'7 up'
    """

    credentials: Credentials
    limits: Limits = field(default_factory=Limits)

    def serve(self, host: str, port: int, accept: Accept, *, limits: Limits | None = None) -> GrpcServer:
        """Listen on `host:port`; 0 takes a free port. See `PeerTransport.serve`."""
        return GrpcServer(self.credentials, host, port, accept, self.limits if limits is None else limits)

    def dial(self, address: str, hello: Hello, *, timeout_s: float = 10.0) -> Connection:
        """Open a connection to `host:port`. See `PeerTransport.dial`."""
        until_s = time.monotonic() + timeout_s
        host, _ = split_address(address)
        request = PeerLimits.of(self.limits).before(hello.to_bytes())
        secure, more = self.credentials.for_dialling(host)
        settings = [
            *options(self.limits),
            *more,
            # A connection of its own, and no waiting because an earlier one failed.
            ("grpc.use_local_subchannel_pool", 1),
            *([("grpc.enable_http_proxy", 0)] if is_loopback(host) else []),
        ]
        channel = (
            grpc.insecure_channel(address, settings)
            if secure is None
            else grpc.secure_channel(address, secure, settings)
        )
        try:
            return self._open(channel, address, request, until_s)
        except grpc.RpcError as error:
            channel.close()
            raise told(error, f"no connection to {address}") from None
        except BaseException:
            channel.close()
            raise

    def _open(self, channel: Any, address: str, request: bytes, until_s: float) -> Connection:
        answer = channel.unary_unary(OFFER)(request, timeout=max(0.001, until_s - time.monotonic()))
        try:
            peer_limits, ticket = PeerLimits.split(answer)
            ticket_text = ticket.decode("ascii")
        except (TransportRefused, UnicodeDecodeError):
            raise TransportError(f"{address} answered a hello with something else; is it this transport?") from None
        connection = _Dialled(Peer(address), self.limits, peer_limits, channel)
        connection.start(channel.stream_stream(STREAM), ticket_text)
        try:
            left_s = until_s - time.monotonic()
            if not connection.opened.wait(left_s):
                raise TransportError(f"no connection to {address}: it was accepted and not opened in time")
            # A handler may have said all it had to say and be gone; that waits to be received.
            with suppress(ConnectionClosed):
                connection.ping(max(0.001, until_s - time.monotonic()))
        except BaseException:
            connection.abandon(ConnectionClosed("it was never opened"))
            raise
        return connection


class _Dialled(GrpcConnection):
    """The dialling end, which owns its channel."""

    def __init__(self, peer: Peer, limits: Limits, peer_limits: PeerLimits, channel: Any) -> None:
        super().__init__(peer, limits, peer_limits)
        self._channel = channel

    def start(self, method: Any, ticket: str) -> None:
        call = method(self.outgoing(), metadata=((TICKET_KEY, ticket),))
        self.cancel = call.cancel
        self.listen(call, f"flower-edge {self.peer.address} in")

    def ended(self) -> None:
        # Whatever made the reader stop, there is nobody to read what may still come.
        self.cancel()

    def close(self) -> None:
        super().close()
        self._channel.close()
