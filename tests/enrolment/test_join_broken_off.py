"""Joins and leaves that break off, and what goes wrong on a device: each is told, and can be done again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from desk_cases import Server, desk_in, let_in
from filter_cases import HOST

from flower_edge.enrolment import joining
from flower_edge.enrolment.desk_client import Authority, ServerUrl, fetch_authority
from flower_edge.enrolment.device_folder import DeviceFolder, Joined, NodeOptions
from flower_edge.enrolment.joining import JoinLine, join, leave
from flower_edge.enrolment.node_keys import NodeKey
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.errors import ConfigError, EnrolmentError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with desk_in(tmp_path / "server") as made:
        yield made


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
