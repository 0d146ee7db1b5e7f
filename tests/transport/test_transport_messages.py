"""Messages over real sockets: whole, in order, both ways, at a pace; and what closing means."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from channel import LIMITS, PAIRS, accept_with, dial, echo, eventually, hello, our_threads, serve

from flower_edge.errors import TransportError, TransportRefused
from flower_edge.transport.transport import (
    Connection,
    ConnectionClosed,
    Handler,
    Hello,
    Limits,
    Peer,
    TransportTimeout,
)

CHUNK = LIMITS.chunk_bytes
SIZES = [0, 1, 100_000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5_000_000]


def payload(size: int, seed: int = 0) -> bytes:
    return bytes((seed + i) % 251 for i in range(1_009)) * (size // 1_009 + 1)


@pytest.mark.parametrize("pair", PAIRS)
def test_messages_of_any_size_come_back_as_they_were(pair: str) -> None:
    serving, dialling = PAIRS[pair]()
    with serve(credentials=serving) as server, dial(server, credentials=dialling) as connection:
        for size in SIZES:
            message = payload(size)[:size]
            connection.send(message)
            assert connection.receive() == message
        connection.flush()
        figures = connection.figures
    assert figures.sent_bits == figures.received_bits == 8 * sum(SIZES)
    assert figures.sent_messages == figures.received_messages == len(SIZES)
    assert figures.sending_s > 0.0
    assert figures.receiving_s > 0.0


def test_messages_keep_their_order_when_nobody_waits_for_answers() -> None:
    messages = [payload(1_000 * i, i)[: 1_000 * i] for i in range(60)]
    with serve() as server, dial(server) as connection:
        sender = threading.Thread(target=lambda: [connection.send(message) for message in messages])
        sender.start()
        received = [connection.receive() for _ in messages]
        sender.join()
    assert received == messages


def test_pieces_of_the_smallest_size_make_the_same_messages() -> None:
    limits = Limits(chunk_bytes=4096, close_s=5.0)
    with serve(limits=limits) as server, dial(server, limits=limits) as connection:
        for size in (4095, 4096, 4097, 1_000_000):
            connection.send(payload(size)[:size])
            assert connection.receive() == payload(size)[:size]


def test_connections_do_not_mix() -> None:
    def work(node: int) -> bool:
        with dial(server, hello(node=node)) as connection:
            for step in range(20):
                message = payload(10_000 + node, node * 31 + step)
                connection.send(message)
                if connection.receive() != message:
                    return False
        return True

    with serve() as server:
        with ThreadPoolExecutor(LIMITS.connections) as pool:
            assert all(pool.map(work, range(LIMITS.connections)))
        assert eventually(lambda: server.connections == 0)


def test_whoever_accepts_sees_the_hello_as_it_was_said() -> None:
    seen: list[Hello] = []

    def accept(said: Hello, peer: Peer) -> Handler:
        seen.append(said)
        assert peer.address
        assert peer.fingerprint is None
        return echo

    said = Hello(purpose="split", run="run/ü", node=2**64 - 1, token="t", data={"round": 3, "tags": ["a", None, 0.5]})
    with serve(accept=accept) as server, dial(server, said):
        pass
    assert seen == [said]


def test_a_program_that_asks_later_finds_what_came_before_the_other_end_closed() -> None:
    def three(connection: Connection) -> None:
        for i in range(3):
            connection.send(payload(1_000_000, i))

    with serve(three) as server, dial(server) as connection:
        time.sleep(0.05)
        assert [connection.receive() for _ in range(3)] == [payload(1_000_000, i) for i in range(3)]
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="other end"):
                connection.receive()
        with pytest.raises(ConnectionClosed):
            connection.send(b"")
        with pytest.raises(ConnectionClosed):
            connection.ping()


def test_a_handler_that_says_one_thing_and_is_gone_has_been_heard() -> None:
    with serve(lambda connection: connection.send(b"welcome")) as server:
        for _ in range(100):
            with dial(server) as connection:
                assert connection.receive() == b"welcome"


def test_closing_waits_until_the_other_end_has_everything() -> None:
    received: list[int] = []
    done = threading.Event()

    def count(connection: Connection) -> None:
        try:
            while True:
                received.append(len(connection.receive()))
        except ConnectionClosed:
            done.set()

    with serve(count) as server:
        for _ in range(10):
            received.clear()
            done.clear()
            with dial(server) as connection:
                for size in (5, 2_000_000, 7):
                    connection.send(bytes(size))
            assert done.wait(10.0)
            assert received == [5, 2_000_000, 7]


def test_a_closed_connection_says_so_and_may_be_closed_again() -> None:
    with serve() as server:
        connection = dial(server)
        connection.close()
        connection.close()
        for use in (lambda: connection.send(b""), connection.receive, connection.ping):
            with pytest.raises(ConnectionClosed, match="this end"):
                use()


def test_what_did_not_leave_before_the_end_is_no_success() -> None:
    with serve(lambda connection: None) as server:
        connection = dial(server)
        connection.pace(8e3)
        with suppress(ConnectionClosed):
            connection.send(bytes(100_000))
            with pytest.raises(ConnectionClosed, match="other end"):
                connection.flush()
        connection.close()


def test_closing_in_the_middle_of_a_long_answer_is_quick() -> None:
    def pour(connection: Connection) -> None:
        connection.pace(1.3e6)
        while True:
            connection.send(bytes(5_000_000))  # half a minute each

    with serve(pour) as server:
        connection = dial(server)
        time.sleep(0.05)
        start_s = time.monotonic()
        connection.close()
        assert time.monotonic() - start_s < 15.0
        assert eventually(lambda: server.connections == 0)


def test_a_time_out_leaves_the_connection_as_it_was() -> None:
    answer = threading.Event()

    def slow(connection: Connection) -> None:
        message = connection.receive()
        answer.wait(10.0)
        connection.send(message)

    with serve(slow) as server, dial(server) as connection:
        connection.send(b"hello")
        for wait_s in (0.0, 0.02):
            with pytest.raises(TransportTimeout, match="no message"):
                connection.receive(wait_s)
        answer.set()
        assert connection.receive() == b"hello"


def test_a_sender_waits_for_a_receiver_that_does_not_ask() -> None:
    go_on = threading.Event()
    sizes: list[int] = []

    def later(connection: Connection) -> None:
        go_on.wait(20.0)
        while True:
            sizes.append(len(connection.receive()))

    with serve(later) as server:
        with dial(server) as connection:
            sent = 0
            try:
                for _ in range(20):
                    connection.send(bytes(LIMITS.message_bytes), timeout_s=0.3)
                    sent += 1
            except TransportTimeout:
                pass
            # One is unread there, one waits to be kept, the network holds a few megabytes, two wait here.
            assert 3 <= sent < 12
            with pytest.raises(TransportTimeout):
                connection.flush(0.05)
            go_on.set()
            connection.send(b"last")
            connection.flush()
        assert eventually(lambda: len(sizes) == sent + 1)
    assert sizes == [LIMITS.message_bytes] * sent + [4]


def test_whoever_will_wait_without_end_may_say_so() -> None:
    with serve() as server, dial(server) as connection:
        connection.send(b"x", timeout_s=math.inf)
        assert connection.receive(timeout_s=math.inf) == b"x"
        connection.flush(timeout_s=math.inf)
        assert connection.ping(timeout_s=math.inf) > 0.0


def test_a_ping_is_answered_while_the_program_at_the_other_end_computes() -> None:
    done = threading.Event()

    def compute(connection: Connection) -> None:
        done.wait(60.0)
        assert connection.round_trip_s is None
        assert 0.0 < connection.ping() < 5.0
        assert connection.round_trip_s is not None

    with serve(compute) as server, dial(server) as connection:
        first_s = connection.round_trip_s
        assert first_s is not None
        assert 0.0 < connection.ping(5.0) < 5.0
        done.set()
        with pytest.raises(ConnectionClosed):
            connection.receive()


def test_a_message_on_a_paced_connection_takes_its_time_and_not_less() -> None:
    with serve(lambda connection: connection.send(connection.receive()[:1])) as server, dial(server) as connection:
        connection.pace(8e6)
        start_s = time.monotonic()
        connection.send(bytes(300_000))
        assert connection.receive() == b"\0"
        # 300 kB at 1 MB/s; a busy machine may be late, nobody may be early.
        assert time.monotonic() - start_s >= 0.3
        connection.flush()
        assert connection.figures.sending_s >= 0.299


def test_a_pace_changed_in_the_middle_of_a_message_counts_from_there() -> None:
    with serve(lambda connection: connection.send(connection.receive()[:1])) as server, dial(server) as connection:
        connection.pace(8e3)  # a quarter of a minute for a piece, an hour for the message
        connection.send(bytes(3_000_000))
        with pytest.raises(TransportTimeout):
            connection.receive(0.1)
        connection.pace(None)
        assert connection.receive(10.0) == b"\0"


def test_a_failing_handler_ends_its_connection_and_no_other() -> None:
    def accept(said: Hello, peer: Peer) -> Handler:
        return echo if said.node == 1 else fail

    def fail(connection: Connection) -> None:
        connection.receive()
        raise ZeroDivisionError("a secret of this server")

    with serve(accept=accept) as server, dial(server, hello(node=1)) as good, dial(server, hello(node=2)) as bad:
        bad.send(b"")
        with pytest.raises(TransportRefused, match="its log says why") as caught:
            bad.receive()
        assert caught.value.code == "failed"
        assert "secret" not in str(caught.value)
        good.send(b"still here")
        assert good.receive() == b"still here"


def test_a_handler_may_refuse_later_and_say_why() -> None:
    def refuse(connection: Connection) -> None:
        connection.receive()
        raise TransportRefused("round 3 is over", "late")

    with serve(refuse) as server, dial(server) as connection:
        connection.send(b"")
        with pytest.raises(TransportRefused, match="round 3") as caught:
            connection.receive()
        assert caught.value.code == "late"


def test_a_client_that_says_nothing_is_let_go() -> None:
    limits = Limits(idle_s=0.1)
    with serve(limits=limits) as server, dial(server) as connection:
        with pytest.raises(TransportRefused, match=r"within 0\.1 s") as caught:
            connection.receive()
        assert caught.value.code == "timeout"
        assert eventually(lambda: server.connections == 0)


def test_a_stopping_server_ends_connections_in_good_order_and_accepts_no_more() -> None:
    before = set(our_threads())
    server = serve()
    connections = [dial(server, hello(node=node)) for node in range(3)]
    for connection in connections:
        connection.send(b"x")
        connection.receive()
    start_s = time.monotonic()
    server.stop()
    assert time.monotonic() - start_s < LIMITS.close_s
    for connection in connections:
        with pytest.raises(ConnectionClosed):
            connection.receive()
        connection.close()
    with pytest.raises(TransportError):
        dial(server, timeout_s=1.0)
    server.stop()
    assert eventually(lambda: set(our_threads()) <= before), our_threads()


def test_a_server_stops_in_time_though_a_handler_computes() -> None:
    done = threading.Event()
    raised: list[Exception] = []

    def compute(connection: Connection) -> None:
        done.wait(60.0)
        try:
            connection.receive()
        except TransportError as error:
            raised.append(error)

    server = serve(compute)
    connection = dial(server)
    start_s = time.monotonic()
    server.stop(0.2)
    assert time.monotonic() - start_s < 30.0
    done.set()
    assert eventually(lambda: len(raised) == 1)
    assert isinstance(raised[0], ConnectionClosed)
    connection.close()


def test_nothing_is_left_running_after_many_connections() -> None:
    before = set(our_threads())
    with serve(accept=accept_with(echo)) as server:
        for node in range(20):
            with dial(server, hello(node=node)) as connection:
                connection.send(b"x")
                connection.receive()
    assert eventually(lambda: set(our_threads()) <= before), our_threads()
