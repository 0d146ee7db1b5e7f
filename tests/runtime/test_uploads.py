"""A node's request may take the longer the larger it is: a reply over a slow link is not begun anew without an end."""

from __future__ import annotations

import importlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supernode import fleet_http_client

from flower_edge.runtime import flower_private_upload
from flower_edge.runtime.flower_private_upload import upload_patience_s, wait_for_uploads


@pytest.fixture
def slow_answer() -> Iterator[int]:
    """A port whose server takes a second for an answer, of no content."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += stream.recv(65536)
                time.sleep(1.0)
                stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                while stream.recv(65536):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(30)


def upload(port: int, size: int) -> None:
    url = f"127.0.0.1:{port}"
    client = fleet_http_client.FleetHttpClient.from_server_address(url, True, None, [])
    try:
        client.PushObject(PushObjectRequest(object_content=bytes(size)))
    finally:
        client._client.close()


def test_what_is_larger_has_more_time(monkeypatch: pytest.MonkeyPatch, slow_answer: int) -> None:
    monkeypatch.setattr(
        fleet_http_client.FleetHttpClient, "_unary_unary", fleet_http_client.ProtobufClient._unary_unary
    )
    # A tenth of a second, and a second for 6,250 bytes.
    monkeypatch.setattr(flower_private_upload, "_ANSWER_S", 0.1)
    assert wait_for_uploads()
    upload(slow_answer, 100_000)


def test_what_is_small_has_flowers_half_a_minute_and_no_more(monkeypatch: pytest.MonkeyPatch, slow_answer: int) -> None:
    monkeypatch.setattr(
        fleet_http_client.FleetHttpClient, "_unary_unary", fleet_http_client.ProtobufClient._unary_unary
    )
    assert upload_patience_s(0) == 30.0
    monkeypatch.setattr(flower_private_upload, "_ANSWER_S", 0.1)
    assert wait_for_uploads()
    with pytest.raises(httpx.ReadTimeout):
        upload(slow_answer, 10)


def test_where_flower_has_moved_it_its_own_time_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.import_module("flwr.supernode.fleet_http_client"), "FleetHttpClient", object)
    with caplog.at_level("WARNING", logger="flwr.flower-edge"):
        assert not wait_for_uploads()
    assert "may never arrive" in caplog.text
