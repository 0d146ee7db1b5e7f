"""`/metrics` is read by who may, and by nobody else: hosts, tokens, methods, over real sockets and as ASGI."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flower_edge.errors import ConfigError
from flower_edge.telemetry import Metrics, MetricsServer, metrics_app
from flower_edge.transport import issue, make_authority

TOKEN = "a-token-nobody-guesses"


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.gauge("peers", "Peers.").set(2)
    return made


def asked(
    port: int, path: str = "/metrics", method: str = "GET", context: ssl.SSLContext | None = None, **headers: str
) -> tuple[int, str]:
    """Status and body."""
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if context is None
        else http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
    )
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def open_server(metrics: Metrics) -> Iterator[MetricsServer]:
    with MetricsServer(metrics, port=0) as server:
        yield server


def test_on_this_machine_it_is_read_without_asking(open_server: MetricsServer) -> None:
    status, text = asked(open_server.port)
    assert (status, text.splitlines()[-1]) == (200, "flower_edge_peers 2.0")
    assert open_server.url == f"http://127.0.0.1:{open_server.port}/metrics"
    assert asked(open_server.port, method="HEAD") == (200, "")
    assert asked(open_server.port, "/metrics?x=1")[0] == 200


def test_nothing_else_is_there_and_nothing_can_be_changed(open_server: MetricsServer) -> None:
    for path in ("/", "/metrics/../etc", "/metricsx", "//attacker.example/metrics"):
        assert asked(open_server.port, path)[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert asked(open_server.port, method=method)[0] == 405


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "", "[::1"])
def test_a_name_that_was_made_to_point_here_reads_nothing(open_server: MetricsServer, host: str) -> None:
    status, text = asked(open_server.port, Host=host)
    assert status == 421
    assert "peers" not in text


def test_with_a_token_nobody_reads_without_it(metrics: Metrics) -> None:
    with MetricsServer(metrics, "0.0.0.0", 0, TOKEN) as server:
        assert asked(server.port)[0] == 401
        assert asked(server.port, Authorization=f"Basic {TOKEN}")[0] == 401
        assert asked(server.port, Authorization="Bearer another-token-of-sixteen")[0] == 401
        assert asked(server.port, Authorization=f"Bearer {TOKEN}", Host="edge.example")[0] == 200
        assert server.url.startswith("http://localhost:")


def test_a_host_that_others_reach_needs_a_token_that_cannot_be_guessed(metrics: Metrics) -> None:
    with pytest.raises(ConfigError, match=r"--token \S{20}"):
        MetricsServer(metrics, "0.0.0.0", 0)
    with pytest.raises(ConfigError, match="16 or more"):
        MetricsServer(metrics, "0.0.0.0", 0, "short")
    with pytest.raises(ConfigError, match="16 or more"):
        metrics_app(metrics, "short")


def test_a_port_that_is_taken_is_said_with_another(metrics: Metrics, open_server: MetricsServer) -> None:
    with pytest.raises(ConfigError, match=f"give another, such as {open_server.port + 1}"):
        MetricsServer(metrics, port=open_server.port)


def test_over_tls_it_is_read_with_its_authority_alone(metrics: Metrics, tmp_path: Path) -> None:
    authority = make_authority("test")
    pair = issue(authority, ["localhost"])
    for name, data in (("ca", authority.certificate_pem), ("pem", pair.certificate_pem), ("key", pair.key_pem)):
        (tmp_path / name).write_bytes(data)
    with MetricsServer(metrics, port=0, certificate=tmp_path / "pem", key=tmp_path / "key") as server:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca"))
        assert asked(server.port, context=trusting)[0] == 200
        with pytest.raises(ssl.SSLError):
            asked(server.port, context=ssl.create_default_context())
        with socket.create_connection(("127.0.0.1", server.port)):  # a handshake that never comes holds up nobody
            assert asked(server.port, context=trusting)[0] == 200
    with pytest.raises(ConfigError, match="expected both"):
        MetricsServer(metrics, port=0, certificate=tmp_path / "pem")
    with pytest.raises(ConfigError, match="expected files in PEM"):
        MetricsServer(metrics, port=0, certificate=tmp_path / "key", key=tmp_path / "key")


def test_as_asgi_it_answers_the_same(metrics: Metrics) -> None:
    def sent(path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        scope = {"type": "http", "method": method, "path": path,
                 "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}  # fmt: skip
        messages: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            messages.append(message)

        asyncio.run(metrics_app(metrics, TOKEN)(scope, None, send))  # type: ignore[arg-type]
        return messages[0]["status"], messages[1]["body"]

    bearer = {"authorization": f"Bearer {TOKEN}"}
    for path in ("/metrics", "/metrics/", "/", ""):  # by itself, and mounted at /metrics
        status, body = sent(path, **bearer)
        assert (status, b"flower_edge_peers 2.0" in body) == (200, True)
    assert sent("/metrics")[0] == 401
    assert sent("/other", **bearer)[0] == 404
    assert sent("/metrics", "HEAD", **bearer) == (200, b"")
