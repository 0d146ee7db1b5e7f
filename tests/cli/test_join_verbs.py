"""`flower-edge up`, `join`, `leave`, `devices` and the doctor's look at a join: what is refused, planned and told."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flower_edge.cli import join_checks
from flower_edge.cli.main import app
from flower_edge.cli.up import parse_duration
from flower_edge.enrolment import device_folder
from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.enrolment.device_folder import DeviceFolder, Joined
from flower_edge.enrolment.seen import write_seen
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.errors import ConfigError, EnrolmentError
from flower_edge.transport.certificates import make_authority

URL = "https://127.0.0.1:9"
PRINT = "ab" * 32


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


# --- join ---


@pytest.mark.parametrize("kind", ["systemd", "process", "termux"])
def test_a_dry_run_says_what_would_be_written_and_writes_and_sends_nothing(tmp_path: Path, kind: str) -> None:
    given = ("join", URL, "--token", "t0p-secret", "--ca-fingerprint", PRINT, "--state", str(tmp_path / "device"))
    options = ("--runner", kind, "--name", "Pi One", "--node-config", "partition-id=3", "--dry-run")
    document = json.loads(call(*given, *options, "--json"))
    assert document["runner"] == kind
    assert "--node-config partition-id=3" in document["node"].replace("'", "")
    assert len(document["files"]) == (0 if kind == "process" else 1)
    words = call(*given, *options)
    assert f"would join {URL} as pi-one and run, by {kind}" in words
    assert "t0p-secret" not in words
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--runner", "cron"), "--runner cron: expected one of auto, systemd, process, termux"),
        (("--min-battery", "1.5"), "--min-battery from 0 to 1"),
        (("--cpus", "-1"), "are 0 or more"),
        (("--wait-s", "0"), "--wait-s above 0"),
        (("--memory-mb", "nan"), "are 0 or more"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call("join", URL, "--ca-fingerprint", PRINT, "--state", str(tmp_path), *options)


def test_caps_that_nothing_keeps_are_said(tmp_path: Path) -> None:
    given = ["join", URL, "--token", "t", "--ca-fingerprint", PRINT, "--state", str(tmp_path), "--memory-mb", "400"]
    told = {}
    for kind in ("process", "systemd"):
        result = CliRunner().invoke(app, [*given, "--runner", kind])
        assert isinstance(result.exception, EnrolmentError)  # nobody is there
        told[kind] = result.output
    assert (
        "--memory-mb and --cpus hold under systemd only; here, by process, the node takes what it needs"
        in (told["process"])
    )
    assert "hold under systemd" not in told["systemd"]


def test_leaving_where_nothing_joined_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing has joined in .*; give the --state that"):
        call("leave", "--state", str(tmp_path / "nowhere"))


# --- up and devices ---


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("0.5d", 43_200.0)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "12", "-1h", "0s", "nanh", "1w", "infd"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time; write a number and s, m, h or d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "nowhere"), "nowhere"),
        (("--uses", "-1"), "--uses -1: expected 0 or more"),
        (("--app", "no-app"), "--app .*no-app: there is no such folder or file"),
        (("--valid", "x"), "is no time"),
        (("--metrics", "0.0.0.0:9464"), "other machines reach it, and there is no token; add --metrics-token"),
        (("--page", "[::]:8809"), "other machines reach it, and there is no token; add --page-token"),
        (("--page", "here"), "address 'here'"),
    ],
)
def test_a_server_says_what_it_cannot_use(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call("up", "--state", str(tmp_path), *options)


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnrolmentError, match=r"--state .* cannot be written to"):
        call("up", "--state", str(tmp_path / "file" / "in-it"))


def test_devices_are_listed_and_invited_from_the_servers_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder of `flower-edge up`"):
        call("devices", "list", "--state", str(tmp_path))
    folder = ServerFolder.at(tmp_path)
    folder.authority()
    book = EnrolmentBook(folder.book)
    assert "no device has joined" in call("devices", "list", "--state", str(tmp_path))
    folder.remember("public-url", "https://edge.example:8000")
    line = call("devices", "invite", "--state", str(tmp_path), "--uses", "2").split()
    assert line[:3] == ["flower-edge", "join", "https://edge.example:8000"]
    assert line[-1] == folder.fingerprint()
    book.admit(line[4], "key", "pi")
    book.joined("key", 2**64 - 1)
    (device,) = json.loads(call("devices", "list", "--state", str(tmp_path), "--json"))["devices"]
    assert (device["name"], device["node_id"], device["state"]) == ("pi", 2**64 - 1, "joined")
    assert str(2**64 - 1) in call("devices", "list", "--state", str(tmp_path))


def test_the_list_says_who_was_seen_when_while_somebody_serves(tmp_path: Path) -> None:
    folder = ServerFolder.at(tmp_path)
    book = EnrolmentBook(folder.book)
    for node_id, key in enumerate(("here", "gone", "never"), 1):
        book.admit(book.invite(), key, key)
        book.joined(key, node_id)

    def seen() -> dict[str, float | None]:
        listed = json.loads(call("devices", "list", "--state", str(tmp_path), "--json"))
        assert listed["serves"] is folder.in_use
        return {device["name"]: device["seen_s_ago"] for device in listed["devices"]}

    nobody = {"here": None, "gone": None, "never": None}
    write_seen(folder, {"here": 1.0, "gone": 7200.0})
    assert seen() == nobody
    assert "who is online is not known: `flower-edge up` does not run" in call(
        "devices", "list", "--state", str(tmp_path)
    )
    with folder.locked():
        now = seen()
        printed = call("devices", "list", "--state", str(tmp_path)).splitlines()
        lines = {line.split()[0]: line.rstrip() for line in printed}
        folder.remember("seen", {"at_s": time.time() - 3600.0, "ago_s": {"here": 1.0}})
        assert seen() == nobody  # who serves has not said anything for an hour
    assert now["never"] is None
    assert 1.0 <= float(now["here"] or 0.0) < 60.0
    assert lines["here"].endswith("online")
    assert lines["gone"].endswith("2 h 00 min ago")
    assert lines["never"].endswith("-")


def test_a_device_is_removed_also_while_nobody_serves(tmp_path: Path) -> None:
    folder = ServerFolder.at(tmp_path)
    folder.authority()
    book = EnrolmentBook(folder.book)
    book.admit(book.invite(), "key", "pi")
    book.joined("key", 7)
    words = call("devices", "remove", "pi", "--state", str(tmp_path))
    assert "pi (node 7) is out; its key is not taken again" in words
    assert "`flower-edge up` tells it when it is started" in words
    assert [device.name for device in book.untold()] == ["pi"]
    assert "no device has joined" in call("devices", "list", "--state", str(tmp_path))
    (gone,) = json.loads(call("devices", "list", "--removed", "--state", str(tmp_path), "--json"))["devices"]
    assert (gone["name"], gone["state"]) == ("pi", "removed")
    with pytest.raises(ConfigError, match="no device 'pi' has joined"):
        call("devices", "remove", "pi", "--state", str(tmp_path))


def test_removing_a_device_waits_until_who_serves_has_told_flower(tmp_path: Path) -> None:
    folder = ServerFolder.at(tmp_path)
    book = EnrolmentBook(folder.book)
    book.admit(book.invite(), "key", "pi")
    book.joined("key", 7)

    def serve() -> None:
        latest_s = time.monotonic() + 60.0
        while not book.untold():
            if time.monotonic() > latest_s:
                return
            time.sleep(0.01)
        book.told("key")

    serving = threading.Thread(target=serve, daemon=True)
    with folder.locked():
        assert folder.in_use
        serving.start()
        told = json.loads(call("devices", "remove", "7", "--state", str(tmp_path), "--json"))
    serving.join()
    assert not folder.in_use
    assert told == {"removed": "pi", "node_id": 7, "flower_told": True}


def test_sudo_is_root_and_who_is_not_is_pointed_at_roots_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "pi")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    monkeypatch.setattr(device_folder, "_OF_ROOT", tmp_path / "flower-edge")
    (tmp_path / "flower-edge").mkdir()
    with monkeypatch.context() as root:
        root.setattr(device_folder.os, "geteuid", lambda: 0)
        assert device_folder.default_device_folder() == tmp_path / "flower-edge"
        assert device_folder.or_was_it_root("leave") == ""
    monkeypatch.setattr(device_folder.os, "geteuid", lambda: 1000)
    assert device_folder.default_device_folder() == tmp_path / "mine" / "flower-edge"
    with pytest.raises(ConfigError, match="or did root join\\? sudo flower-edge leave"):
        call("leave")


# --- the doctor ---


def levels(folder: DeviceFolder, url: str = "") -> dict[str, str]:
    return {check.name: check.level for check in join_checks.join_checks(folder, url)}


def test_the_doctor_tells_of_a_join_that_cannot_be_reached_and_of_none(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path)
    assert levels(folder) == {"join": "ok"}
    assert levels(folder, URL) == {"server": "fail"}
    assert levels(folder, "ftp://x") == {"server": "fail"}
    folder.write("join.json", b"{")
    assert levels(folder) == {"join": "fail"}
    folder.keep(Joined(url=URL, ca_fingerprint=PRINT, name="pi", manner="process"))
    folder.write("authority.pem", make_authority("test", days=300).certificate_pem)
    seen = levels(folder)
    assert (seen["server's authority"], seen["node"], seen["server"]) == ("ok", "fail", "fail")


def test_the_doctor_tells_how_long_certificates_are_good() -> None:
    now = datetime.now(UTC)

    def level(days: float, begin: timedelta = timedelta(0)) -> tuple[str, str]:
        check = join_checks.certificate("it", make_authority("test", days=days, now=now + begin).certificate_pem)
        return check.level, check.found

    assert level(300.0)[0] == "ok"
    assert level(7.0)[0] == "warn"
    assert level(1.0, timedelta(days=-3))[0] == "fail"
    assert "valid from" in level(9.0, timedelta(days=3))[1]
    assert join_checks.certificate("it", b"x").level == "fail"


@pytest.mark.parametrize(
    ("ahead", "level"), [(None, "ok"), (0.0, "ok"), (5.0, "ok"), (30.0, "fail"), (-90.0, "warn"), (-400.0, "fail")]
)
def test_the_doctor_tells_the_clock_by_the_servers_word(ahead: float | None, level: str) -> None:
    check = join_checks.clock_of_server(ahead)
    assert check.level == level
    assert ahead is None or "by its own word" in check.found


def test_renewing_and_losing_what_a_server_keeps(tmp_path: Path) -> None:
    folder = ServerFolder.at(tmp_path)
    before = folder.fingerprint()
    first = [file.read_bytes() for file in folder.public_certificate(["edge.example"])]
    assert [file.read_bytes() for file in folder.public_certificate(["edge.example"])] == first
    assert [file.read_bytes() for file in folder.public_certificate(["other.example"])] != first
    assert ServerFolder.at(tmp_path).fingerprint() == before
    EnrolmentBook(folder.book)
    (tmp_path / "authority.key").unlink()
    with pytest.raises(EnrolmentError, match="devices have joined with it; put it back from a copy"):
        folder.authority()
