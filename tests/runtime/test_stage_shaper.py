"""The relay is as slow as its link says, lets every byte through in order, and leaves no thread behind."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from flower_edge.errors import TransportError
from flower_edge.fringe import Link
from flower_edge.runtime.fringe.shaper import LinkShaper


@contextmanager
def echo() -> Iterator[str]:
    """Sends back what comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    one, _ = listener.accept()
                    with one:
                        while data := one.recv(1 << 16):
                            one.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(60)


def dial(shaper: LinkShaper) -> socket.socket:
    host, port = shaper.address.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def round_trip_s(one: socket.socket, data: bytes) -> float:
    began_s = time.monotonic()
    one.sendall(data)
    back = b""
    while len(back) < len(data):
        back += one.recv(1 << 16)
    assert back == data
    return time.monotonic() - began_s


@pytest.mark.parametrize(
    ("link", "back", "size"),
    [
        (Link(math.inf, 0.05), None, 10),
        (Link(math.inf, 0.02), Link(math.inf, 0.04), 10),
        (Link(2e6, 0.01), None, 25_000),
        (Link(math.inf), Link(4e6), 25_000),
    ],
)
def test_bytes_take_what_the_link_says_and_come_as_they_were(link: Link, back: Link | None, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    expected_s = link.seconds(size) + (0.0 if back is None else back.seconds(size))
    with echo() as target, LinkShaper(target, link, back=back) as shaper, dial(shaper) as one:
        taken_s = min(round_trip_s(one, data) for _ in range(2))
        assert taken_s >= expected_s - 0.001  # a busy machine may be late, none is early
        assert shaper.carried_bytes == (2 * size, 2 * size)


def test_a_link_changes_under_an_open_connection() -> None:
    with echo() as target, LinkShaper(target, Link(math.inf)) as shaper, dial(shaper) as one:
        round_trip_s(one, b"x")
        shaper.change(Link(math.inf, 0.1))
        assert shaper.link.delay_s == 0.1
        assert round_trip_s(one, b"x") >= 0.099


def test_who_cannot_be_reached_behind_it_is_gone_and_closing_ends_everything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
    with LinkShaper(dead, Link(1e6)) as shaper, dial(shaper) as one:
        assert one.recv(1) == b""
    with echo() as target, LinkShaper(target, Link(1e6, 60.0)) as shaper, dial(shaper) as one:
        one.sendall(b"would arrive in a minute")
        shaper.close()
        with suppress(ConnectionError):
            assert one.recv(1) == b""
        with pytest.raises(TransportError, match=r"call open\(\) first"):
            _ = shaper.address
    assert not [thread for thread in threading.enumerate() if thread.name == "link shaper"]


def test_bytes_keep_their_order_while_a_link_is_lifted_and_comes_back() -> None:
    words = [number.to_bytes(4, "big") for number in range(300)]
    with echo() as target, LinkShaper(target, Link(math.inf)) as shaper, dial(shaper) as one:
        back = b""
        for number, word in enumerate(words):
            if number % 20 == 0:  # what is under way then is overtaken by nothing
                slow = number // 20 % 2 == 0
                link = Link(math.inf, 0.01) if slow else Link(math.inf)
                shaper.change(link, back=link)
            one.sendall(word)
        while len(back) < 4 * len(words):
            back += one.recv(1 << 16)
    assert back == b"".join(words)
