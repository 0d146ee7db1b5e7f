"""What is noticed, and how soon, when the process at the other end is killed, hangs or just ends."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from channel import eventually, hello, serve

from flower_edge.errors import TransportError
from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_server import GrpcServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Connection, ConnectionClosed, Limits, TransportTimeout

pytestmark = [pytest.mark.slow, pytest.mark.alone]

LIMITS = Limits(keepalive_s=1.0, idle_s=60.0, close_s=2.0)


class Watch:
    """A handler that answers and notes when and how its connection ended."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.over = threading.Event()
        self.error: Exception | None = None
        self.at_s = 0.0

    def __call__(self, connection: Connection) -> None:
        try:
            while True:
                connection.receive()
                if not self.answered.is_set():
                    connection.send(b"you are")
                    self.answered.set()
        except TransportError as error:
            self.at_s = time.monotonic()
            self.error = error
            self.over.set()


@contextmanager
def dialler(server: GrpcServer, what: str) -> Iterator[subprocess.Popen[bytes]]:
    script = Path(__file__).with_name("dialler.py")
    process = subprocess.Popen([sys.executable, str(script), str(server.port), what])
    try:
        yield process
    finally:
        process.kill()
        process.wait(20.0)


@pytest.mark.parametrize("what", ["wait", "pour"])
def test_a_killed_peer_is_noticed_within_a_second(what: str) -> None:
    watch = Watch()
    with serve(watch, credentials=Insecure(), limits=LIMITS) as server, dialler(server, what) as process:
        assert watch.answered.wait(60.0)
        time.sleep(0.1)
        killed_s = time.monotonic()
        process.send_signal(signal.SIGKILL)
        assert watch.over.wait(5.0)
        assert watch.at_s - killed_s < 1.0
        assert not isinstance(watch.error, ConnectionClosed)
        assert eventually(lambda: server.connections == 0)


@pytest.mark.parametrize("what", ["wait", "pour"])
def test_a_peer_that_hangs_is_noticed_within_about_two_keepalives(what: str) -> None:
    watch = Watch()
    with serve(watch, credentials=Insecure(), limits=LIMITS) as server, dialler(server, what) as process:
        assert watch.answered.wait(60.0)
        time.sleep(0.1)
        stopped_s = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        try:
            assert watch.over.wait(15.0)
        finally:
            process.send_signal(signal.SIGCONT)
        assert watch.at_s - stopped_s < 6.0
        assert not isinstance(watch.error, ConnectionClosed)


def test_a_process_that_forgets_to_close_ends_all_the_same() -> None:
    watch = Watch()
    with serve(watch, credentials=Insecure(), limits=LIMITS) as server, dialler(server, "forget") as process:
        assert process.wait(60.0) == 0
        assert watch.over.wait(10.0)


def test_a_server_that_forgets_to_stop_does_not_keep_its_process() -> None:
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from channel import dial, serve
server = serve()
connection = dial(server)
connection.send(b"x")
connection.receive()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], timeout=60.0, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0


class Link:
    """A network between a dialling end and a server that is as slow as one wants, or gone."""

    def __init__(self, port: int, up_bps: float) -> None:
        self.there = threading.Event()
        self.there.set()
        self._port = port
        self._up_bps = up_bps
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.there.set()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            near, _ = self._listening.accept()
            far = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [near, far]
            threading.Thread(target=self._carry, args=(near, far, self._up_bps), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, math.inf), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket, bps: float) -> None:
        with suppress(OSError):
            while data := near.recv(1400):
                time.sleep(8 * len(data) / bps)
                self.there.wait()
                far.sendall(data)


def test_a_long_upload_over_a_slow_link_is_not_taken_for_a_dead_peer() -> None:
    limits = Limits(keepalive_s=0.5, chunk_bytes=1 << 15, close_s=2.0)
    with (
        serve(
            lambda connection: connection.send(connection.receive()[:1]), credentials=Insecure(), limits=limits
        ) as server,
        Link(server.port, up_bps=2e6) as link,
        GrpcTransport(Insecure(), limits).dial(f"127.0.0.1:{link.port}", hello()) as connection,
    ):
        connection.send(bytes(800_000))
        assert connection.receive(30.0) == b"\0"


def test_a_network_that_goes_is_noticed_at_both_ends() -> None:
    watch = Watch()
    with serve(watch, credentials=Insecure(), limits=LIMITS) as server, Link(server.port, math.inf) as link:
        connection = GrpcTransport(Insecure(), LIMITS).dial(f"127.0.0.1:{link.port}", hello())
        connection.send(b"here")
        connection.receive()
        link.there.clear()
        gone_s = time.monotonic()
        with pytest.raises(TransportError, match="nothing was heard"):
            connection.receive()
        assert watch.over.wait(10.0)
        assert time.monotonic() - gone_s < 6.0
        connection.close()


def test_two_ends_with_nothing_to_say_stay_connected() -> None:
    limits = Limits(keepalive_s=0.3)
    with (
        serve(credentials=Insecure(), limits=LIMITS) as server,
        GrpcTransport(Insecure(), limits).dial(f"127.0.0.1:{server.port}", hello()) as connection,
    ):
        with pytest.raises(TransportTimeout):
            connection.receive(2.0)
        connection.send(b"still here")
        assert connection.receive() == b"still here"
