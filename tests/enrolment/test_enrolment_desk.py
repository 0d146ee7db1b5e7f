"""Joining, asking and leaving over real TLS: what is refused, who gets no token, what breaks off and goes on."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from desk_cases import Server, code_of, desk_in, let_in
from filter_cases import HOST, front

from flower_edge.cli.join_checks import join_checks
from flower_edge.enrolment import desk_client, joining
from flower_edge.enrolment.desk_client import DeskClient, ServerUrl, fetch_authority
from flower_edge.enrolment.device_folder import DeviceFolder, NodeOptions
from flower_edge.enrolment.fleet_filter import Passed
from flower_edge.enrolment.joining import JoinLine, join, leave
from flower_edge.enrolment.node_keys import NodeKey, flower_header
from flower_edge.errors import ConfigError, EnrolmentError, EnrolmentRefused


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with desk_in(tmp_path / "server") as made:
        yield made


# --- the whole way ---


def test_a_device_joins_is_seen_and_leaves_and_its_key_is_not_taken_again(server: Server, tmp_path: Path) -> None:
    device = DeviceFolder(tmp_path / "device")
    joined = let_in(server, device, server.book.invite())
    assert (joined.name, joined.node_id) == ("pi-one-local", 2**63)
    key = NodeKey.at(device.file("node.key"))
    assert server.flower.nodes == {2**63: key.public}
    for name in ("node.key", "peer.key", "join.json"):
        assert stat.S_IMODE(device.file(name).stat().st_mode) == 0o600
    assert stat.S_IMODE(device.path.stat().st_mode) == 0o700

    with pytest.raises(EnrolmentError, match="the node is not online after 0 s"):
        joining.wait_online(device, joined, seconds=0.01)
    server.sightings.note(Passed(flower_header(key.public), "/v1/fleet/pull-messages", 200))
    with DeskClient(server.url, device.file("authority.pem").read_bytes(), key) as desk:
        assert desk.status().online
        server.sightings.note(Passed(flower_header(key.public), "/v1/fleet/deactivate-node", 200))
        assert not desk.status().online
        server.sightings.note(Passed(flower_header(key.public), "/v1/fleet/pull-messages", 401))
        assert not desk.status().online

    private = device.file("node.key").read_bytes()
    left = leave(device)
    assert server.flower.nodes == {}
    assert not device.path.exists()
    assert left.still == ""
    assert any("has let pi-one-local go" in line for line in left.done)
    assert any("node.key" in line for line in left.done)
    assert server.told == [f"pi-one-local has joined, node {2**63}", "pi-one-local has left"]

    device.make()
    device.write("node.key", private)
    assert code_of(server, device, server.book.invite()) == "removed"


def test_the_doctor_of_a_device_that_was_removed_says_so_and_what_to_do(server: Server, tmp_path: Path) -> None:
    device = DeviceFolder(tmp_path / "device")
    let_in(server, device, server.book.invite())
    before = {check.name: check.level for check in join_checks(device)}
    assert (before["server"], before["join"]) == ("ok", "warn")  # its node has not been started
    server.book.removed(NodeKey.at(device.file("node.key")).public)
    last = list(join_checks(device))[-1]
    assert (last.name, last.level) == ("join", "fail")
    assert "pi-one-local was removed from this server" in last.found
    assert last.advice == "flower-edge leave, then join with a new token"


def test_the_peer_certificate_is_for_the_devices_own_key_and_from_another_authority(
    server: Server, tmp_path: Path
) -> None:
    import ssl

    from cryptography import x509

    device = DeviceFolder(tmp_path / "device")
    let_in(server, device, server.book.invite())
    certificate = x509.load_pem_x509_certificate(device.file("peer.pem").read_bytes())
    peers = x509.load_pem_x509_certificate(device.file("peers.pem").read_bytes())
    authority = x509.load_pem_x509_certificate(device.file("authority.pem").read_bytes())
    certificate.verify_directly_issued_by(peers)
    with pytest.raises(ValueError, match=r"[Ii]ssuer"):
        certificate.verify_directly_issued_by(authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        device.file("peer.pem"), device.file("peer.key")
    )  # raises where they do not belong together


# --- what is refused ---


def test_a_token_lets_in_one_device_and_says_why_not_a_second(server: Server, tmp_path: Path) -> None:
    token = server.book.invite()
    let_in(server, DeviceFolder(tmp_path / "one"), token)
    assert code_of(server, DeviceFolder(tmp_path / "two"), token) == "token-used"
    assert code_of(server, DeviceFolder(tmp_path / "two"), "0" * 40) == "bad-token"
    assert code_of(server, DeviceFolder(tmp_path / "two"), None) == "no-token"
    soon = server.book.invite(valid_s=1e-6)
    assert code_of(server, DeviceFolder(tmp_path / "two"), soon) == "token-expired"
    assert len(server.flower.nodes) == 1


def test_with_another_fingerprint_nothing_is_sent_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    device = DeviceFolder(tmp_path / "device")
    asked: list[str] = []
    real = desk_client._ask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk_client, "_ask", lambda *given, **more: asked.append(given[3]) or real(*given, **more))
        with pytest.raises(EnrolmentRefused, match="it is another server, or somebody is in between; nothing was sent"):
            let_in(server, device, server.book.invite(), fingerprint="ab" * 32)
    assert asked == ["/enrol/authority"]
    assert list(device.path.iterdir()) == []


def test_a_server_in_between_with_the_right_certificate_file_but_not_its_key_gets_no_token(
    server: Server, tmp_path: Path
) -> None:
    # It hands on the true authority, which anybody may have, from a port with a certificate of its own.
    authority = server.front.authority.read_bytes()

    async def liar(scope: object, receive: object, send: object) -> None:
        from starlette.responses import Response

        seen.append(scope["raw_path"])  # type: ignore[index]
        await Response(authority)(scope, receive, send)  # type: ignore[arg-type]

    seen: list[bytes] = []
    with front(tmp_path / "liar", own=liar) as between:
        url = ServerUrl(HOST, between.port)
        with pytest.raises(EnrolmentError, match="not vouched for by the authority this device knows"):
            join(
                DeviceFolder(tmp_path / "device"),
                JoinLine(url, server.fingerprint, server.book.invite()),
                name="pi", manner="foreground", options=NodeOptions(),
            )  # fmt: skip
    assert seen == [b"/enrol/authority"]


@pytest.mark.parametrize("text", ["", "abc", "zz" * 32, "ab" * 31, "ab" * 33])
def test_a_fingerprint_that_is_none_is_refused_before_anything(server: Server, text: str) -> None:
    with pytest.raises(ConfigError, match="expected 64 hex digits"):
        fetch_authority(server.url, text)


def test_a_fingerprint_may_be_written_as_openssl_does(server: Server) -> None:
    digits = server.fingerprint.upper()
    written = "SHA256:" + ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    assert fetch_authority(server.url, written).pem == server.front.authority.read_bytes()


def test_requests_that_were_not_signed_or_are_played_again_are_refused(server: Server, tmp_path: Path) -> None:
    key, other = NodeKey.at(tmp_path / "a.key"), NodeKey.at(tmp_path / "b.key")
    server.book.admit(server.book.invite(), key.public, "pi")
    base = f"{server.url}/enrol"
    with httpx.Client(verify=server.front.trust()) as client:

        def ask(signer: NodeKey, verb: str = "status", to: str = "status", challenge: str = "") -> tuple[int, str]:
            fields = {"public_key": key.public, "challenge": challenge or client.post(f"{base}/challenge").text}
            answer = client.post(f"{base}/{to}", json={**fields, "signature": signer.prove(verb, fields)})
            return answer.status_code, answer.json().get("code", "")

        assert ask(key) == (200, "")
        assert ask(other) == (403, "bad-proof")
        assert ask(key, verb="status", to="leave") == (403, "bad-proof")
        once = client.post(f"{base}/challenge").text
        assert ask(key, challenge=once) == (200, "")
        assert ask(key, challenge=once) == (403, "bad-challenge")
        assert ask(key, challenge="made.up") == (403, "bad-challenge")
        assert ask(key, challenge=once[:-2] + "AA") == (403, "bad-challenge")
    assert len(server.book.devices()) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad-request"),
        (b"{", "bad-request"),
        (b"[]", "bad-request"),
        (b"{}", "bad-request"),
        (b'{"public_key": 1, "challenge": "a", "signature": "b"}', "bad-request"),
        (b'{"public_key": "a", "challenge": "a", "signature": "b", "more": 1}', "bad-request"),
        (b'{"public_key": "ssh-rsa AAAA", "challenge": "a", "signature": "b"}', "bad-key"),
        (b'{"public_key": "' + b"a" * 1000 + b'", "challenge": "a", "signature": "b"}', "bad-key"),
        (b"\xff\xfe", "bad-request"),
        (b"[" * 30_000, "bad-request"),
    ],
)
def test_a_body_that_is_no_request_is_answered_with_what_is_wrong(server: Server, body: bytes, code: str) -> None:
    with httpx.Client(verify=server.front.trust()) as client:
        answer = client.post(f"{server.url}/enrol/status", content=body)
        assert answer.status_code in (400, 403)
        assert answer.json()["code"] == code
        assert client.post(f"{server.url}/enrol/join", content=b"a" * 70_000).status_code == 413


def test_a_name_that_is_none_is_refused(server: Server, tmp_path: Path) -> None:
    key = NodeKey.at(tmp_path / "a.key")
    with DeskClient(server.url, server.front.authority.read_bytes(), key) as desk:
        for name in ("a.b", "../x", "A", "a" * 60, "edge.example"):
            with pytest.raises(ValueError, match="name"):
                desk.join(name, server.book.invite())
