"""The serving end over gRPC: hellos are accepted or refused, and each connection gets its handler in a thread.

Two calls. `Offer` carries the hello and nothing else, so that a refusal arrives with its reason: a server that ends a
stream it has not read to the end often shows no more than INTERNAL. `Stream` carries the pieces and is bound to an
accepted hello by a ticket that is good once and for a short time.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from logging import getLogger
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import grpc

from ..errors import TransportError, TransportRefused
from ..loopback import is_loopback
from .certificates import fingerprint
from .credentials import Credentials
from .grpc_connection import CODE_KEY, GrpcConnection, PeerLimits
from .pieces import MOST_HEAD_BYTES, OPEN
from .transport import Accept, ConnectionClosed, Handler, Hello, Limits, Peer, TransportTimeout

__all__ = ["OFFER", "SERVICE", "STREAM", "TICKET_KEY", "GrpcServer", "options"]

log = getLogger(__name__)

#: With the version of everything this file and `pieces` say.
SERVICE: Final = "flower_edge.Transport1"
OFFER: Final = f"/{SERVICE}/Offer"
STREAM: Final = f"/{SERVICE}/Stream"
TICKET_KEY: Final = "flower-edge-ticket"
#: Hellos and mistaken streams at once, beside the connections; more are turned away by gRPC.
_HELLOS: Final = 16


def options(limits: Limits) -> list[tuple[str, Any]]:
    """gRPC's options at either end.

    Its own keepalive is off: its pings, and the TCP time-out that comes with them, end connections that are only slow.
    See `pulse`.
    """
    return [
        ("grpc.max_receive_message_length", limits.chunk_bytes + MOST_HEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),
    ]


@dataclass(frozen=True)
class _Accepted:
    """A hello that waits for its stream."""

    handler: Handler
    peer: Peer
    peer_limits: PeerLimits
    until_s: float


class GrpcServer:
    """A server that listens from the moment it is made; see `transport.Server`.

    Raises:
        ConfigError: credentials that do not fit.
        TransportError: the address cannot be listened on.
    """

    def __init__(
        self,
        credentials: Credentials,
        host: str,
        port: int,
        accept: Accept,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._accept = accept
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._accepted: dict[str, _Accepted] = {}
        self._reserved = 0
        self._live: dict[GrpcConnection, threading.Thread] = {}
        self._closing = False
        secure = credentials.for_serving(host)
        methods = {
            # A stream of one message: of a unary call gRPC would wait for the message without end.
            "Offer": grpc.stream_unary_rpc_method_handler(self._offer),
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        self._server = grpc.server(
            _ThreadPerCall(),
            handlers=(grpc.method_handlers_generic_handler(SERVICE, methods),),
            options=[
                *options(limits),
                # A port that is taken is an error, not shared with whoever has it.
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", 10_000),
                # Whoever has come in and says nothing, or went without a word, is let go.
                ("grpc.max_connection_idle_ms", max(1000, round(2e3 * limits.ticket_s))),
            ],
            maximum_concurrent_rpcs=limits.connections + _HELLOS,
        )
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self._port = (
                self._server.add_insecure_port(where) if secure is None else self._server.add_secure_port(where, secure)
            )
        except RuntimeError:
            self._port = 0
        if self._port == 0:
            raise TransportError(f"cannot listen on {where}: the port is taken or the host is not this machine's")
        self._server.start()
        log.info("listening on %s, port %d%s", host, self._port, "" if is_loopback(host) else ", for other hosts")

    @property
    def port(self) -> int:
        """The one it listens on."""
        return int(self._port)

    @property
    def connections(self) -> int:
        """How many there are now, those accepted and not yet opened included."""
        with self._changed:
            return self._used()

    def stop(self, timeout_s: float | None = None) -> None:
        """Accept nobody, close every connection, and wait for handlers; idempotent."""
        until_s = self._clock() + (self._limits.close_s if timeout_s is None else timeout_s)
        with self._changed:
            self._closing = True
            self._accepted.clear()
            live = dict(self._live)
        ended = self._server.stop(max(0.0, until_s - self._clock()))
        for connection in live:
            connection.finish()
        for connection in live:
            if not connection.over.wait(max(0.0, until_s - self._clock())):
                connection.abandon(ConnectionClosed("the server has stopped"))
        for thread in live.values():
            if thread is not threading.current_thread():
                thread.join(max(0.1, until_s - self._clock()))
        ended.wait(max(0.1, until_s - self._clock()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _used(self) -> int:
        now_s = self._clock()
        for ticket in [ticket for ticket, waiting in self._accepted.items() if waiting.until_s <= now_s]:
            del self._accepted[ticket]
        return len(self._accepted) + self._reserved + len(self._live)

    def _offer(self, requests: Iterator[bytes], context: Any) -> bytes:
        peer = _peer(context)
        late = threading.Timer(self._limits.ticket_s, context.cancel)
        late.daemon = True
        late.start()
        try:
            request = next(requests, b"")
        finally:
            late.cancel()
        try:
            self._credentials.admit(peer.fingerprint)
            peer_limits, hello = PeerLimits.split(request)
            ticket = self._admit(Hello.from_bytes(hello), peer, peer_limits)
        except TransportRefused as refused:
            _abort(context, refused)
        except Exception:
            log.exception("a hello from %s could not be decided on", peer.address)
            _abort(context, TransportRefused("the server could not decide about this hello", "failed"))
        return PeerLimits.of(self._limits).before(ticket.encode())

    def _admit(self, hello: Hello, peer: Peer, peer_limits: PeerLimits) -> str:
        """Ask whoever serves, with a place kept for the connection meanwhile."""
        with self._changed:
            if self._closing:
                raise TransportRefused("the server is stopping", "closing")
            if self._used() >= self._limits.connections:
                raise TransportRefused(
                    f"the server has its {self._limits.connections} connections; dial again later, or raise "
                    "Limits(connections=…) there",
                    "busy",
                )
            self._reserved += 1
        ticket = secrets.token_urlsafe(24)
        try:
            handler = self._accept(hello, peer)
            with self._changed:
                until_s = self._clock() + self._limits.ticket_s
                self._accepted[ticket] = _Accepted(handler, peer, peer_limits, until_s)
        finally:
            with self._changed:
                self._reserved -= 1
        return ticket

    def _stream(self, incoming: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            accepted = self._claim(context)
        except TransportRefused as refused:
            _abort(context, refused)
        connection = GrpcConnection(accepted.peer, self._limits, accepted.peer_limits, cancel=context.cancel)
        name = f"flower-edge {accepted.peer.address}"
        thread = threading.Thread(target=self._handle, args=(connection, accepted.handler), name=name, daemon=True)
        # The reader may be waiting for a handler that computes: told here, too, when the other end is gone.
        context.add_callback(lambda: connection.end(TransportError("the other end went away")))
        with self._changed:
            self._reserved -= 1
            connection.listen(incoming, f"{name} in")
            thread.start()
            # Only now: `stop` waits for threads that have begun, and one that could not holds no place.
            self._live[connection] = thread
            if self._closing:
                connection.finish()
        try:
            yield bytes([OPEN])
            yield from connection.outgoing()
        finally:
            connection.end(TransportError("the other end went away"))
        if connection.fault is not None:
            _abort(context, connection.fault)

    def _claim(self, context: Any) -> _Accepted:
        ticket = dict(context.invocation_metadata()).get(TICKET_KEY, "")
        with self._changed:
            self._used()
            accepted = self._accepted.pop(ticket, None)
            if accepted is not None:
                self._reserved += 1
        if accepted is None:
            raise TransportRefused("no accepted hello waits under this ticket; dial anew", "bad-ticket")
        if accepted.peer.fingerprint != _peer(context).fingerprint:
            with self._changed:
                self._reserved -= 1
            raise TransportRefused("this ticket was given to another certificate", "bad-ticket")
        return accepted

    def _handle(self, connection: GrpcConnection, handler: Handler) -> None:
        where = connection.peer.address
        try:
            handler(connection)
        except TransportRefused as refused:
            log.info("the connection of %s was ended: %s", where, refused)
            connection.refuse(refused)
        except TransportTimeout as late:
            log.warning("the connection of %s was ended: %s", where, late)
            connection.refuse(TransportRefused(f"the other end gave up: {late}", "timeout"))
        except TransportError as error:
            log.info("the connection of %s ended: %s", where, error)
        except Exception:
            log.exception("the handler of %s failed", where)
            connection.refuse(TransportRefused("the handler at the other end failed; its log says why", "failed"))
        finally:
            connection.close()
            with self._changed:
                self._live.pop(connection, None)


class _ThreadPerCall(Executor):
    """A thread for each call, gone with it. gRPC says how many there may be.

    Those of a ThreadPoolExecutor are waited for when Python ends, also by a program that forgot to stop its server.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, name="flower-edge call", daemon=True).start()
        return future


def _peer(context: Any) -> Peer:
    pem = context.auth_context().get("x509_pem_cert")
    return Peer(context.peer(), fingerprint(pem[0]) if pem else None)


def _abort(context: Any, refused: TransportRefused) -> NoReturn:
    status = grpc.StatusCode.RESOURCE_EXHAUSTED if refused.code == "busy" else grpc.StatusCode.PERMISSION_DENIED
    context.set_trailing_metadata(((CODE_KEY, refused.code),))
    context.abort(status, str(refused)[:1000])
    raise AssertionError("abort raises")
