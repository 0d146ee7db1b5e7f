"""Joining, asking and leaving over real TLS: what is refused, who gets no token, what breaks off and goes on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from filter_cases import HOST, Front, front

from flower_edge.enrolment import desk_client, joining
from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.enrolment.desk import EnrolmentDesk, Sightings
from flower_edge.enrolment.desk_client import Authority, DeskClient, ServerUrl, fetch_authority
from flower_edge.enrolment.device_folder import DeviceFolder, Joined, NodeOptions
from flower_edge.enrolment.fleet_filter import Passed
from flower_edge.enrolment.joining import JoinLine, join, leave
from flower_edge.enrolment.node_keys import NodeKey, flower_header
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.errors import ConfigError, EnrolmentError, EnrolmentRefused


@dataclass
class Register:
    """Who would tell Flower: keeps the nodes it was told of."""

    nodes: dict[int, str] = field(default_factory=dict)
    fails: bool = False

    def register(self, public_key: str, name: str) -> int:
        if self.fails:
            raise EnrolmentError("flwr supernode register: no answer")
        known = [node_id for node_id, key in self.nodes.items() if key == public_key]
        node_id = known[0] if known else 2**63 + len(self.nodes)
        self.nodes[node_id] = public_key
        return node_id

    def unregister(self, node_id: int) -> None:
        self.nodes.pop(node_id, None)


@dataclass
class Server:
    """A desk behind the filter, on a port."""

    front: Front
    book: EnrolmentBook
    flower: Register
    sightings: Sightings
    fingerprint: str
    told: list[str]

    @property
    def url(self) -> ServerUrl:
        return ServerUrl(HOST, self.front.port)

    def line(self, token: str | None = None, fingerprint: str = "") -> JoinLine:
        return JoinLine(self.url, fingerprint or self.fingerprint, token)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = ServerFolder.at(tmp_path / "server")
    authority, peers = folder.authority(), folder.peers()
    book, flower, sightings, told = EnrolmentBook(folder.book), Register(), Sightings(), list[str]()
    desk = EnrolmentDesk(
        book, flower, authority_pem=authority.certificate_pem, peers=peers, sightings=sightings, tell=told.append
    )
    with front(folder.path, own=desk) as made:
        yield Server(made, book, flower, sightings, folder.fingerprint(), told)


def let_in(server: Server, folder: DeviceFolder, token: str | None, **line: str) -> Joined:
    given = server.line(token, **line)
    return join(
        folder, given, name="Pi_One.local", manner="foreground", options=NodeOptions(node_config="partition-id=0")
    )


def code_of(server: Server, folder: DeviceFolder, token: str | None) -> str:
    with pytest.raises(EnrolmentRefused) as caught:
        let_in(server, folder, token)
    return caught.value.code


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


# --- what breaks off, and goes on ---


@pytest.mark.slow
def test_a_join_that_breaks_off_anywhere_goes_on_with_the_same_line(server: Server, tmp_path: Path) -> None:
    device, token = DeviceFolder(tmp_path / "device"), server.book.invite()
    server.flower.fails = True
    with pytest.raises(EnrolmentError, match="cannot do it now: flwr supernode register: no answer"):
        let_in(server, device, token)
    server.flower.fails = False
    key = NodeKey.at(device.file("node.key")).public

    real, broke_off = DeviceFolder.write, 0
    for stop in range(1, 20):
        left = [stop]

        def breaks(
            folder: DeviceFolder, name: str, content: bytes, *, mode: int = 0o600, left: list[int] = left
        ) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise EnrolmentError("the power is gone")
            real(folder, name, content, mode=mode)

        with pytest.MonkeyPatch.context() as patch, suppress(EnrolmentError):
            patch.setattr(DeviceFolder, "write", breaks)
            let_in(server, device, token)
        broke_off += left[0] <= 0
    assert broke_off == 6  # at each of its files
    joined = let_in(server, device, None)  # it may be done again, without a token too
    assert joined.node_id == 2**63
    assert server.flower.nodes == {2**63: key}  # one node, with the one key
    assert NodeKey.at(device.file("node.key")).public == key


def test_a_second_server_needs_a_folder_of_its_own(server: Server, tmp_path: Path) -> None:
    device = DeviceFolder(tmp_path / "device")
    let_in(server, device, server.book.invite())
    with pytest.raises(EnrolmentError, match=r"this device has joined https://.* run `flower-edge leave` first"):
        join(
            device, JoinLine(ServerUrl("other.example", 8000), "cd" * 32, "t"), name="pi", manner="foreground",
            options=NodeOptions(),
        )  # fmt: skip


def test_a_server_that_is_not_there_is_told_with_what_to_look_at(tmp_path: Path) -> None:
    line = JoinLine(ServerUrl(HOST, 9), "ab" * 32, "t")
    with pytest.raises(EnrolmentError, match=r"https://127.0.0.1:9 cannot be reached: .*; is `flower-edge up` running"):
        join(DeviceFolder(tmp_path / "device"), line, name="pi", manner="foreground", options=NodeOptions())


def test_leaving_needs_the_server_or_force_which_says_what_is_left_to_do(tmp_path: Path) -> None:
    device = DeviceFolder(tmp_path / "device")
    folder = ServerFolder.at(tmp_path / "server")
    device.make()
    NodeKey.at(device.file("node.key"))
    device.write("authority.pem", folder.authority().certificate_pem)
    device.keep(Joined(url=f"https://{HOST}:9", ca_fingerprint="ab" * 32, name="pi", manner="foreground"))
    with pytest.raises(
        EnrolmentError, match=r"cannot be reached.* do it again when the server is there, or use --force"
    ):
        leave(device)
    assert device.file("node.key").exists()
    left = leave(device, force=True)
    assert "On the server: flower-edge devices remove pi" in left.still
    assert not device.path.exists()
    with pytest.raises(ConfigError, match="nothing has joined in"):
        leave(device)


@pytest.mark.parametrize(("ahead", "direction"), [(3600.0, "ahead of"), (-86_400.0, "behind"), (8.0, "ahead of")])
def test_a_clock_that_flower_would_refuse_is_told_before_the_token_is_sent(
    server: Server, tmp_path: Path, ahead: float, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = joining.fetch_authority
    monkeypatch.setattr(joining, "fetch_authority", lambda url, wanted: Authority(real(url, wanted).pem, ahead))
    token = server.book.invite()
    with pytest.raises(
        EnrolmentError, match=f"clock is {abs(ahead):.0f} s {direction} the server's .the server says so"
    ):
        let_in(server, DeviceFolder(tmp_path / "device"), token)
    monkeypatch.undo()
    let_in(server, DeviceFolder(tmp_path / "device"), token)


def test_the_servers_clock_is_read_from_its_date(server: Server) -> None:
    seen = fetch_authority(server.url, server.fingerprint).ahead_s
    assert seen is not None
    assert abs(seen) < 60.0


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_costs_no_token(server: Server, tmp_path: Path) -> None:
    token = server.book.invite()
    (tmp_path / "file").touch()
    with pytest.raises(EnrolmentError, match=r"--state .* cannot be used"):
        let_in(server, DeviceFolder(tmp_path / "file" / "device"), token)
    # A disk that is full: no file may have a byte. In a process of its own, for the limit cannot be taken back.
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from flower_edge.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "main()\n"
    )
    arguments = ["join", str(server.url), "--token", token, "--ca-fingerprint", server.fingerprint, "--foreground"]
    device = tmp_path / "device"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--state", str(device)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be written (File too large); make room, or give another folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert let_in(server, DeviceFolder(device), token).node_id == 2**63  # the token is still good


@pytest.mark.parametrize(
    "url",
    ["ftp://edge:1", "http://edge:8000", "https://", "https://edge:99999", "https://edge:8000/path", "https://a@b:1"],
)
def test_an_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected https://HOST:PORT"):
        ServerUrl.read(url)


def test_an_ipv6_address_is_written_with_brackets() -> None:
    assert str(ServerUrl.read("https://[::1]:8000")) == "https://[::1]:8000"
    assert ServerUrl.read("edge.example").superlink == "edge.example:8000"


def test_a_damaged_key_or_join_is_named_and_force_removes_it(tmp_path: Path) -> None:
    device = DeviceFolder(tmp_path / "device")
    device.make()
    device.write("node.key", b"garbage")
    with pytest.raises(EnrolmentError, match=r"node.key is no key of this program"):
        NodeKey.at(device.file("node.key"))
    device.write("join.json", b"{}")
    with pytest.raises(EnrolmentError, match=r"join.json cannot be read .* leave with --force, join anew"):
        leave(device)
    assert leave(device, force=True).done[-1].endswith("join.json, node.key")
