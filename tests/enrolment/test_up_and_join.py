"""`flower-edge up` and devices that join it, all real: they train through the filter, and start no runs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from up_cases import APP, Up, answer, server_in, wait

from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.enrolment.device_folder import DeviceFolder
from flower_edge.enrolment.keeper import keeper_pid
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.peers.revoked import RevokedPeers
from flower_edge.runtime.launching.processes import Family
from flower_edge.transport.certificates import fingerprint

#: The page needs an extra.
WITH_PAGE = importlib.util.find_spec("nicegui") is not None
pytestmark = [pytest.mark.slow, pytest.mark.flwr]


def rounds(report: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []


def node_of(folder: Path) -> int:
    """The process of the device's node."""
    pid = keeper_pid(DeviceFolder(folder))
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def numbers(up: Up) -> dict[str, float]:
    """What it tells Prometheus, by name and the values of labels."""
    text = urlopen(str(up.opening()["metrics"]), timeout=60).read().decode()
    return {
        ".".join([sample.name.removeprefix("flower_edge_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def left_behind(up: Up) -> set[int]:
    return Family(ServerFolder.at(up.folder / "server").launch_id).alive()


def try_to_start_a_run(up: Up, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    """As somebody would who has all that a device has."""
    home.mkdir()
    certificate = up.folder / "one" / "authority.pem"
    text = f'[superlink]\ndefault = "x"\n\n[superlink.x]\naddress = "{address}"\nroot-certificates = "{certificate}"\n'
    (home / "config.toml").write_text(text)
    variables = {**up.variables(), "FLWR_HOME": str(home), "FLWR_DISABLE_UPDATE_CHECK": "1"}
    command = [str(Path(sys.executable).parent / "flwr"), "run", str(APP), "x"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=180)


def test_two_devices_join_train_through_the_filter_and_one_leaves_and_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    with server_in(tmp_path) as up:
        up.start(
            *("--uses", "2", "--app", str(APP), "--nodes", "2", "--run-config", f"rounds=3 nodes=2 report='{report}'"),
            *("--metrics", "127.0.0.1:0", *(["--page", "127.0.0.1:0"] if WITH_PAGE else [])),
        )
        assert (numbers(up)["devices.joined"], numbers(up)["join_uses_left"]) == (0.0, 2.0)
        joining = [up.join(name, "--node-config", f"partition-id={at}") for at, name in enumerate(("one", "two"))]
        one, two = map(answer, joining)
        assert one["online"] is True
        assert two["online"] is True
        assert (one["runner"], one["name"], two["name"]) == ("process", "one", "two")
        wait(lambda: len(rounds(report)) == 3, 240.0, up.logs)
        assert [told["nodes"] for told in rounds(report)] == [sorted((one["node_id"], two["node_id"]))] * 3
        assert float(rounds(report)[-1]["accuracy"]) > 0.6  # type: ignore[arg-type]
        assert {told["revoked"] for told in rounds(report)} == {str(tmp_path / "server" / "revoked.json")}

        told = numbers(up)
        assert (told["devices.joined"], told["devices_online"], told["devices_joined_total"]) == (2.0, 2.0, 2.0)
        assert (told["superlink_up"], told["superlink_starts_total"], told["join_uses_left"]) == (1.0, 1.0, 0.0)
        assert told["fleet_requests_total.taken"] >= 6.0  # rounds, of each device
        if WITH_PAGE:
            page = urlopen(str(up.opening()["page"]), timeout=60).read().decode()
            assert "2 online" in page
            assert str(one["node_id"]) in page

        url = str(up.opening()["url"]).removeprefix("https://")
        refused = try_to_start_a_run(up, url, tmp_path / "thief")
        assert refused.returncode != 0
        assert "403" in refused.stdout + refused.stderr or "Permission denied" in refused.stdout + refused.stderr

        assert numbers(up)["fleet_requests_total.filtered"] >= 1.0
        again = up.join("three")
        assert "used" in again.communicate(timeout=120)[1]
        assert numbers(up)["join_refusals_total.token-used"] == 1.0

        certificates = {name: (tmp_path / name / "peer.pem").read_bytes() for name in ("one", "two")}
        key = (tmp_path / "one" / "node.key").read_bytes()
        authority = (tmp_path / "one" / "authority.pem").read_bytes()
        left = up.call("leave", "--state", str(tmp_path / "one"), "--json")
        assert left.returncode == 0, left.stderr
        assert not (tmp_path / "one").exists()
        listed = json.loads(up.call("devices", "list", "--state", str(tmp_path / "server"), "--json").stdout)
        assert [device["name"] for device in listed["devices"]] == ["two"]
        assert listed["serves"] is True
        assert listed["devices"][0]["seen_s_ago"] < 90.0

        thief = tmp_path / "old"
        thief.mkdir()
        (thief / "node.key").write_bytes(key)
        (thief / "authority.pem").write_bytes(authority)
        late = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "flower-supernode"), "--superlink", url, "--port", "0"),
                *("--root-certificates", str(thief / "authority.pem")),
                *("--auth-supernode-private-key", str(thief / "node.key"), "--max-retries", "0"),
            ],
            env=up.variables(), capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert "SuperNode ID" not in late.stdout + late.stderr
        removed = up.call("devices", "remove", "two", "--state", str(tmp_path / "server"), "--json")
        assert json.loads(removed.stdout)["flower_told"] is True, removed.stderr
        assert (numbers(up)["devices.removed"], numbers(up)["devices_removed_total"]) == (2.0, 2.0)
        revoked = RevokedPeers(tmp_path / "server" / "revoked.json")
        wait(lambda: set(revoked.now()) == set(map(fingerprint, certificates.values())), 60.0, up.logs)
        # The device that was taken out finds out by itself, and comes back as another one.
        log = tmp_path / "two" / "node.log"
        wait(lambda: "The node is tried again in 60 minutes" in log.read_text(), 120.0, up.logs)
        assert "two was removed from this server. This device is not taken there any more" in log.read_text()
        left = up.call("leave", "--state", str(tmp_path / "two"), "--json")
        assert json.loads(left.stdout)["still"] == "", left.stderr
        assert not (tmp_path / "two").exists()
        assert up.stop() == 0
        assert left_behind(up) == set()


@pytest.mark.full
def test_a_device_and_a_server_that_were_killed_come_back_as_who_they_were(tmp_path: Path) -> None:
    with server_in(tmp_path) as up:
        up.start("--uses", "2")
        joining = [up.join(name, "--node-config", f"partition-id={at}") for at, name in enumerate(("one", "two"))]
        one, two = map(answer, joining)
        # One device as its node dies, one as everything on it does; and the server, with the SuperLink left behind.
        os.kill(node_of(tmp_path / "one"), signal.SIGKILL)
        keeper = keeper_pid(DeviceFolder(tmp_path / "two"))
        assert keeper is not None
        os.kill(node_of(tmp_path / "two"), signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        up.stop(signal.SIGKILL)
        before = up.opening()

        report = tmp_path / "report.jsonl"
        up.start(
            "--uses", "0", "--app", str(APP), "--nodes", "2", "--run-config", f"rounds=1 nodes=2 report='{report}'"
        )
        after = up.opening()
        assert (after["url"], after["ca_fingerprint"], after["devices"]) == (before["url"], before["ca_fingerprint"], 2)
        line = f"flower-edge join {after['url']} --ca-fingerprint {after['ca_fingerprint']}"
        back = answer(up.join("two", "--node-config", "partition-id=1", "--wait-s", "240", line=line), 300.0)
        assert back["node_id"] == two["node_id"]
        wait(lambda: len(rounds(report)) == 1, 300.0, up.logs)
        assert rounds(report)[0]["nodes"] == sorted((one["node_id"], two["node_id"]))

        # The SuperLink alone: it is started again, and the devices come back by themselves.
        assert up.process is not None
        os.kill(superlink_of(up.process.pid), signal.SIGKILL)
        wait(lambda: any("answers again" in str(told) for told in up.told), 180.0, up.logs)
        removed = up.call("devices", "remove", "one", "--state", str(tmp_path / "server"))
        assert removed.returncode == 0, removed.stderr
        assert up.stop(signal.SIGINT) == 0
        assert left_behind(up) == set()

        # Ended in good order and started again: the device comes back by itself.
        up.start("--uses", "0")
        wait(lambda: (up.event("status") or {}).get("online") == 1, 300.0, up.logs)
        assert up.stop() == 0
        # Taken out while nobody serves: it is not let in when somebody does.
        removed = up.call("devices", "remove", "two", "--state", str(tmp_path / "server"), "--json")
        assert json.loads(removed.stdout) == {"removed": "two", "node_id": two["node_id"], "flower_told": False}
        up.start("--uses", "0")
        assert up.opening()["devices"] == 0
        assert EnrolmentBook(tmp_path / "server" / "enrolment.sqlite").untold() == []
        refused = up.join("two", line=line)
        assert "was removed here and is not taken again" in refused.communicate(timeout=240)[1]
        assert refused.returncode == 2


def superlink_of(pid: int) -> int:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"flower-superlink" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise AssertionError("no SuperLink among the children")


def test_a_second_server_in_the_same_folder_and_a_port_that_is_taken_are_refused(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken, server_in(tmp_path) as up:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up.call("up", "--state", str(tmp_path / "server"), "--listen", f"127.0.0.1:{port}", "--json")
        assert done.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port} (Address already in use); give another one" in done.stderr
        up.start()
        second = up.call("up", "--state", str(tmp_path / "server"), "--listen", "127.0.0.1:0", "--json")
        assert second.returncode == 2
        assert "another `flower-edge up` serves from" in second.stderr
