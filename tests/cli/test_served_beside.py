"""What `up` and the agent serve beside what they do: where others reach it with a token and TLS, else as it is."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from flower_edge.cli.served_beside import Address, serve_metrics
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.errors import ConfigError
from flower_edge.telemetry import Metrics

TOKEN = "a-token-nobody-guesses"


def metrics() -> Metrics:
    made = Metrics()
    made.gauge("peers", "Peers.").set(2)
    return made


def serial(port: int, authority: Path) -> str:
    """Of the certificate that is shown."""
    context = ssl.create_default_context(cafile=str(authority))
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as channel:
        shown = channel.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


def test_where_others_reach_it_it_goes_over_tls_with_a_token_and_a_renewed_certificate_is_shown(tmp_path: Path) -> None:
    folder = ServerFolder.at(tmp_path)
    files, authority = folder.public_certificate(["127.0.0.1"]), folder.authority_file()
    at = Address.of("--metrics", "0.0.0.0:0", TOKEN)
    assert at is not None
    with serve_metrics(metrics(), at, files) as server:
        url, trust = f"https://127.0.0.1:{server.port}/metrics", ssl.create_default_context(cafile=str(authority))
        asked = Request(url, headers={"authorization": f"Bearer {TOKEN}"})
        assert "flower_edge_peers 2.0" in urlopen(asked, context=trust, timeout=60).read().decode()
        with pytest.raises(HTTPError, match="401"):
            urlopen(url, context=trust, timeout=60)
        with pytest.raises((URLError, OSError)):
            urlopen(url.replace("https", "http"), timeout=60)
        before = serial(server.port, authority)
        folder.public_certificate(["127.0.0.1", "edge.example"])  # another one, in the same files
        assert serial(server.port, authority) == before
        server.renew()
        assert serial(server.port, authority) != before


def test_on_this_machine_it_is_served_as_it_is(tmp_path: Path) -> None:
    at = Address.of("--metrics", "127.0.0.1:0", None)
    assert at is not None
    with serve_metrics(metrics(), at, (tmp_path / "none.pem", tmp_path / "none.key")) as server:
        assert "flower_edge_peers 2.0" in urlopen(server.url, timeout=60).read().decode()
        server.renew()  # nothing to read


@pytest.mark.parametrize("text", ["here", "127.0.0.1", "127.0.0.1:x", ":1", "::1:9"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        Address.of("--page", text, None)


def test_nothing_given_is_nothing_served() -> None:
    assert Address.of("--page", "", TOKEN) is None
