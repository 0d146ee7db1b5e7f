"""What starts a node: systemd finds no fault with the units, a shell none with the script."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flower_edge.enrolment.device_folder import DeviceFolder, Joined, NodeOptions
from flower_edge.enrolment.keeper import keeper_command
from flower_edge.enrolment.runners import Kept, Systemd, choose_manner
from flower_edge.enrolment.start_files import UNIT_NAME, termux_script, unit_text

JOINED = Joined(
    url="https://edge.example:8000", ca_fingerprint="ab" * 32, name="pi", manner="systemd",
    options=NodeOptions(node_config="partition-id=0 site='50 % \"north\" $HOME'"),
)  # fmt: skip


def unit(tmp_path: Path, *, system: bool) -> str:
    folder = DeviceFolder(tmp_path / "a device")
    return unit_text(
        folder.command(JOINED), folder=folder.path, variables=folder.variables(), system=system,
        user="root" if system else "", memory_bytes=400_000_000, cpu_share=1.5,
    )  # fmt: skip


@pytest.mark.parametrize("system", [True, False])
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path, system: bool) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed here: apt-get install systemd")
    path = tmp_path / UNIT_NAME
    path.write_text(unit(tmp_path, system=system))
    command = [analyze, *([] if system else ["--user"]), "--man=no", "verify", str(path)]
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    # An older systemd does not know the two that let the wait grow; it says so and goes on.
    lines = [line for line in done.stderr.splitlines() if UNIT_NAME in line]
    faults = [line for line in lines if "RestartSteps" not in line and "RestartMaxDelaySec" not in line]
    assert faults == []
    if not lines:
        assert done.returncode == 0, done.stderr


def test_the_unit_has_caps_fences_and_waits(tmp_path: Path) -> None:
    text = unit(tmp_path, system=True)
    for line in (
        "MemoryMax=400000000", "CPUQuota=150%", "NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=always",
        "RestartSec=15", "RestartMaxDelaySec=300", "Wants=network-online.target time-sync.target",
        "CapabilityBoundingSet=", "WantedBy=multi-user.target", f'ReadWritePaths="{tmp_path}/a device"',
    ):  # fmt: skip
        assert f"\n{line}\n" in text
    assert '--node-config "partition-id=0 site=\'50 %% \\"north\\" $$HOME\'"' in text
    theirs = unit(tmp_path, system=False)
    assert "ProtectSystem" not in theirs  # a user's systemd may not be able to
    assert "NoNewPrivileges=yes" in theirs
    assert "WantedBy=default.target" in theirs


def test_systemd_reads_the_command_as_it_was_meant(tmp_path: Path) -> None:
    # The quoting of systemd is its own; this reads it back by its rules: "...", backslash, %% and $$.
    (line,) = [line for line in unit(tmp_path, system=True).splitlines() if line.startswith("ExecStart=")]
    words, word, quoted, text = [], "", False, line.removeprefix("ExecStart=")
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
            word += text[at]
        elif letter == '"':
            quoted = not quoted
        elif letter == " " and not quoted:
            words.append(word)
            word = ""
        else:
            assert letter not in "%$" or text[at + 1] == letter
            at += letter in "%$"
            word += letter
        at += 1
    assert [*words, word] == DeviceFolder(tmp_path / "a device").command(JOINED)


def test_a_shell_finds_no_fault_with_the_script_and_it_needs_no_more_than_python(tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    script.write_text(
        termux_script([sys.executable, "-c", "import os; print(os.environ['A'], 'it ran')"], {"A": "b c'd"})
    )
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "b c'd it ran\n", "")


def test_in_termux_the_script_asks_for_the_wake_lock_first(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    lock = folder / "termux-wake-lock"
    lock.write_text("#!/bin/sh\necho locked\n")
    lock.chmod(0o755)
    script = tmp_path / "start.sh"
    script.write_text(termux_script(["echo", "ran"], {}))
    done = subprocess.run(
        ["sh", str(script)], capture_output=True, text=True, timeout=60, env={"PATH": f"{folder}:/usr/bin:/bin"}
    )
    assert done.stdout == "locked\nran\n"


def test_each_machine_gets_what_runs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_manner({}, tmp_path) == "process"
    assert choose_manner({"TERMUX_VERSION": "0.118"}, tmp_path) == "termux"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert choose_manner({}, tmp_path) == "process"  # the folder of the host, in a container without the program
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert choose_manner({}, tmp_path) == "systemd"
    (tmp_path / "data/data/com.termux").mkdir(parents=True)
    assert choose_manner({}, tmp_path) == "termux"  # a Debian inside of it


def test_the_files_of_a_runner_are_those_it_would_write(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path)
    ((path, text),) = Systemd(folder, JOINED).files().items()
    assert path.name == UNIT_NAME
    assert "ExecStart=" in text
    ((path, text),) = Kept(folder, JOINED.model_copy(update={"manner": "termux"})).files().items()
    assert path == folder.file("start.sh")
    assert " ".join(keeper_command(folder.path)) in text
    assert Kept(folder, JOINED.model_copy(update={"manner": "process"})).files() == {}
