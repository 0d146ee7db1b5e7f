"""What dials and keeps to nothing: it ends its own connection, costs next to nothing, and the server goes on."""

from __future__ import annotations

import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from channel import dial, eventually, hello, serve

from flower_edge.errors import TransportError
from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_server import OFFER, STREAM, TICKET_KEY, GrpcServer
from flower_edge.transport.pieces import FIRST, OPEN
from flower_edge.transport.transport import HELLO_BYTES, Connection, Limits

#: What is said before a hello: how long a message may be, and the keepalive in milliseconds.
HEAD = struct.pack(">QQ", 1 << 20, 5_000)


class Raw:
    """A dialling end that keeps to nothing."""

    def __init__(self, server: GrpcServer) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def offer(self, request: bytes) -> bytes:
        return bytes(self.channel.unary_unary(OFFER)(request, timeout=10.0))

    def ticket(self) -> str:
        return self.offer(HEAD + hello().to_bytes())[len(HEAD) :].decode()

    def stream(self, ticket: str, pieces: Iterator[bytes]) -> list[bytes]:
        """What came back, until the end; raises grpc.RpcError."""
        return list(self.channel.stream_stream(STREAM)(pieces, metadata=((TICKET_KEY, ticket),), timeout=10.0))


@pytest.fixture
def plain() -> Iterator[GrpcServer]:
    with serve(credentials=Insecure(), limits=Limits(message_bytes=1 << 20, idle_s=5.0)) as server:
        yield server
        with dial(server, credentials=Insecure()) as connection:
            connection.send(b"still here")
            assert connection.receive() == b"still here"


def test_a_ticket_is_good_once(plain: GrpcServer) -> None:
    with Raw(plain) as raw:
        ticket = raw.ticket()
        assert raw.stream(ticket, iter([b"\x06"]))[0] == bytes([OPEN])
        for spent in (ticket, "", "rubbish"):
            with pytest.raises(grpc.RpcError, match="no accepted hello"):
                raw.stream(spent, iter([]))


def test_a_ticket_expires_and_gives_its_place_back() -> None:
    limits = Limits(connections=1, ticket_s=0.05)
    with serve(credentials=Insecure(), limits=limits) as server, Raw(server) as raw:
        ticket = raw.ticket()
        assert eventually(lambda: server.connections == 0)
        with pytest.raises(grpc.RpcError, match="no accepted hello"):
            raw.stream(ticket, iter([]))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\0" * 7,
        HEAD,
        HEAD + b"\x80\x04K\x01.",
        HEAD + b"[" * 60_000,
        HEAD + b'{"purpose": "echo", "run": "7", "node": 1e400}',
        HEAD + b'{"purpose": "echo", "run": "7", "node": -1}',
        HEAD + b'{"purpose": "echo", "run": "7", "node": "3"}',
        HEAD + b'{"purpose": "echo", "run": "7", "node": 3, "admin": true}',
        HEAD + b'{"purpose": "", "run": "7", "node": 3}',
        HEAD + b'"' + b"a" * HELLO_BYTES + b'"',
    ],
)
def test_a_hello_that_is_none_is_refused(plain: GrpcServer, request_bytes: bytes) -> None:
    with Raw(plain) as raw, pytest.raises(grpc.RpcError) as caught:
        raw.offer(request_bytes)
    assert ("flower-edge-code", "bad-hello") in [(item.key, item.value) for item in caught.value.trailing_metadata()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b"\0"],
        [b"\xff" * 100],
        [b"\x02more"],
        [struct.pack(">BQ", FIRST, 10) + b"a", struct.pack(">BQ", FIRST, 10) + b"a"],
        [struct.pack(">BQ", FIRST, 1 << 60) + b"a"],
        [struct.pack(">BQ", FIRST, 3) + b"aaaa"],
        [b"\x05"] * 2,
        [b"\x06more"],
        [b"\x03short"],
        [b"\x80\x04K\x01."],
    ],
)
def test_bytes_that_mean_nothing_end_their_own_connection(plain: GrpcServer, pieces: list[bytes]) -> None:
    with Raw(plain) as raw:
        ticket = raw.ticket()
        with pytest.raises(grpc.RpcError):
            raw.stream(ticket, iter(pieces))
    assert eventually(lambda: plain.connections == 0)


def test_an_announcement_of_everything_costs_nothing(plain: GrpcServer) -> None:
    with Raw(plain) as raw:
        tracemalloc.start()
        try:
            for announced in (1 << 34, 1 << 63):
                with pytest.raises(grpc.RpcError):
                    raw.stream(raw.ticket(), iter([struct.pack(">BQ", FIRST, announced) + bytes(100)]))
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_a_piece_above_the_limit_is_not_taken(plain: GrpcServer) -> None:
    with Raw(plain) as raw, pytest.raises(grpc.RpcError):
        raw.stream(raw.ticket(), iter([struct.pack(">BQ", FIRST, 1 << 20) + bytes((1 << 20) + 1)]))


def test_a_message_in_pieces_of_one_byte_is_a_message(plain: GrpcServer) -> None:
    def pieces() -> Iterator[bytes]:
        yield struct.pack(">BQ", FIRST, 500) + b"a"
        for _ in range(499):
            yield b"\x02b"
        echoed.wait(5.0)
        yield b"\x06"

    echoed = threading.Event()
    with Raw(plain) as raw:
        got: list[bytes] = []
        call = raw.channel.stream_stream(STREAM)(pieces(), metadata=((TICKET_KEY, raw.ticket()),), timeout=10.0)
        for piece in call:
            got.append(piece)
            if piece[0] == FIRST:
                echoed.set()
    assert got == [bytes([OPEN]), struct.pack(">BQ", FIRST, 500) + b"a" + b"b" * 499, b"\x06"]


def test_rubbish_on_the_port_is_no_connection(plain: GrpcServer) -> None:
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"\x16\x03\x01\x00\x05hello"):
        with socket.create_connection(("127.0.0.1", plain.port), timeout=5.0) as raw:
            raw.sendall(rubbish)
    assert plain.connections == 0


def test_a_hundred_who_connect_and_say_nothing_keep_nobody_out() -> None:
    idle = []
    with serve() as server:
        try:
            idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5.0) for _ in range(100)]
            with dial(server) as connection:
                connection.send(b"x")
                assert connection.receive() == b"x"
            with dial(server) as connection:
                connection.send(b"x")
                assert connection.receive() == b"x"
            assert eventually(lambda: server.connections == 0)
        finally:
            for each in idle:
                each.close()


def test_hellos_that_never_come_are_given_up_and_keep_nobody_out_for_long() -> None:
    limits = Limits(connections=1, ticket_s=1.0)
    said = threading.Event()

    def never() -> Iterator[bytes]:
        said.wait(20.0)
        yield b""

    with serve(credentials=Insecure(), limits=limits) as server, Raw(server) as raw:
        # More than the server takes at once; gRPC turns the others away.
        calls = [raw.channel.stream_unary(OFFER).future(never()) for _ in range(30)]

        def answered() -> bool:
            with suppress(TransportError), dial(server, credentials=Insecure(), limits=limits) as connection:
                connection.send(b"x")
                return connection.receive() == b"x"
            return False

        try:
            assert eventually(answered)
            assert eventually(lambda: all(call.done() for call in calls))
        finally:
            said.set()


def test_whoever_only_connects_is_let_go() -> None:
    with (
        serve(credentials=Insecure(), limits=Limits(ticket_s=0.5)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as silent,
    ):
        while silent.recv(4096):
            pass


def test_a_hello_that_ends_before_it_begins_is_refused(plain: GrpcServer) -> None:
    with Raw(plain) as raw, pytest.raises(grpc.RpcError) as caught:
        raw.channel.stream_unary(OFFER)(iter(()), timeout=10.0)
    assert "too short" in str(caught.value)


def test_a_stream_that_stops_in_the_middle_of_a_message_breaks() -> None:
    errors: list[Exception] = []

    def keep(connection: Connection) -> None:
        try:
            connection.receive()
        except TransportError as error:
            errors.append(error)

    with serve(keep, credentials=Insecure()) as server, Raw(server) as raw:
        with suppress(grpc.RpcError):
            raw.stream(raw.ticket(), iter([struct.pack(">BQ", FIRST, 100) + b"half"]))
        assert eventually(lambda: len(errors) == 1)
    assert "broke off" in str(errors[0])
