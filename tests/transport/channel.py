"""A server and those who dial it, over loopback and real sockets, for the tests of the transport."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import cache

from flower_edge.transport.certificates import KeyPair, issue, make_authority
from flower_edge.transport.credentials import Credentials, Insecure, MutualTls, ServerTls, TrustServer
from flower_edge.transport.grpc_server import GrpcServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Accept, Connection, Handler, Hello, Limits, Peer

#: Waits short enough for tests; nothing that works comes near them.
LIMITS = Limits(message_bytes=8_000_000, connections=8, idle_s=20.0, close_s=5.0, keepalive_s=1.0)


@cache
def authority() -> KeyPair:
    return make_authority("tests")


@cache
def other_authority() -> KeyPair:
    return make_authority("tests")


@cache
def server_pair() -> KeyPair:
    return issue(authority(), ["127.0.0.1", "localhost"])


@cache
def node_pair() -> KeyPair:
    return issue(authority(), [], name="node 3")


def server_tls() -> ServerTls:
    return ServerTls(server_pair().certificate_pem, server_pair().key_pem)


def mutual(pair: KeyPair, allowed: frozenset[str] | None = None) -> MutualTls:
    return MutualTls(pair.certificate_pem, pair.key_pem, authority().certificate_pem, allowed)


#: What fits together: a name, the serving end, the dialling end.
PAIRS: dict[str, Callable[[], tuple[Credentials, Credentials]]] = {
    "insecure": lambda: (Insecure(), Insecure()),
    "server-tls": lambda: (server_tls(), TrustServer(authority().certificate_pem)),
    "mutual-tls": lambda: (mutual(server_pair()), mutual(node_pair())),
}


def hello(purpose: str = "echo", *, node: int = 3, token: str = "") -> Hello:
    return Hello(purpose=purpose, run="7", node=node, token=token)


def echo(connection: Connection) -> None:
    while True:
        connection.send(connection.receive())


def accept_with(handler: Handler) -> Accept:
    def accept(hello: Hello, peer: Peer) -> Handler:
        return handler

    return accept


def serve(
    handler: Handler = echo,
    *,
    credentials: Credentials | None = None,
    accept: Accept | None = None,
    limits: Limits = LIMITS,
) -> GrpcServer:
    transport = GrpcTransport(credentials or server_tls(), limits)
    return transport.serve("127.0.0.1", 0, accept or accept_with(handler))


def dial(
    server: GrpcServer,
    what: Hello | None = None,
    *,
    credentials: Credentials | None = None,
    limits: Limits = LIMITS,
    timeout_s: float = 20.0,
) -> Connection:
    transport = GrpcTransport(credentials or TrustServer(authority().certificate_pem), limits)
    return transport.dial(f"127.0.0.1:{server.port}", what or hello(), timeout_s=timeout_s)


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Whether it came true in time; other threads get to run meanwhile."""
    until_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.005)
    return True


def our_threads() -> list[str]:
    """Names of threads that a transport has started and not ended."""
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
