"""What the doctor says of a small device, value by value."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flower_edge.cli import device_checks as checks
from flower_edge.cli.main import app
from flower_edge.conditions import Conditions

MB = 10**6


@pytest.mark.parametrize(
    ("total_mb", "swap_mb", "level", "said"),
    [
        (None, None, "ok", ""),
        (8000, 0, "ok", ""),
        (1000, 0, "warn", "add swap"),
        (1000, 100, "ok", ""),
        (440, 0, "warn", "thin client .* add swap"),
        (440, 500, "warn", "thin client"),
        (200, 0, "warn", "too little"),
    ],
)
def test_memory_and_swap(total_mb: int | None, swap_mb: int | None, level: str, said: str) -> None:
    check = checks.memory_and_swap(
        None if total_mb is None else total_mb * MB, None if swap_mb is None else swap_mb * MB
    )
    assert check.level == level
    assert bool(check.advice) == (level != "ok")
    assert re.search(said, check.advice)


@pytest.mark.parametrize(
    ("seen", "level", "found"),
    [
        (Conditions(temperature_c=41.0), "ok", "this device does not say, 41 C"),
        (Conditions(throttled=False, throttle_bits=0), "ok", "never since it was started"),
        (Conditions(throttled=True, throttle_bits=0x50005), "warn", "too little power now"),
        (Conditions(throttled=True, throttle_bits=0x8), "warn", "slowed down now"),
        (Conditions(throttled=False, throttle_bits=0x40000), "warn", "was slowed down since"),
    ],
)
def test_throttling(seen: Conditions, level: str, found: str) -> None:
    check = checks.throttling(seen)
    assert check.level == level
    assert found in check.found
    assert bool(check.advice) == (level != "ok")


def test_a_clock_before_the_installation_fails_and_one_without_a_time_server_is_warned_of() -> None:
    installed_s = 1_790_000_000.0
    assert checks.clock(0.0, installed_s, None).level == "fail"
    assert "1970-01-01" in checks.clock(0.0, installed_s, True).found
    assert checks.clock(installed_s + 1, installed_s, False).level == "warn"
    assert checks.clock(installed_s + 1, installed_s, True).level == "ok"
    assert checks.clock(0.0, None, None).level == "ok"


@pytest.mark.parametrize(
    ("machine", "version", "cuda", "level"),
    [
        ("x86_64", "2.12.0", False, "ok"),
        ("aarch64", None, False, "ok"),
        ("aarch64", "2.10.1", False, "ok"),
        ("aarch64", "2.11.0+cpu", False, "ok"),
        ("aarch64", "2.11.0", True, "ok"),
        ("aarch64", "2.11.0", False, "warn"),
        ("aarch64", "2.12.0+cu128", False, "warn"),
    ],
)
def test_a_cuda_build_of_torch_on_a_board_without_cuda_is_warned_of(
    machine: str, version: str | None, cuda: bool, level: str
) -> None:
    assert checks.torch_build(machine, version, cuda).level == level


def test_swap_is_read_and_nonsense_is_not(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\nSwapTotal:       102396 kB\n")
    assert checks._swap_bytes(tmp_path / "meminfo") == 102396 * 1024
    (tmp_path / "meminfo").write_text("SwapTotal: many kB\n")
    assert checks._swap_bytes(tmp_path / "meminfo") is checks._swap_bytes(tmp_path / "absent") is None


def test_the_doctor_asks_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flower_edge.cli.doctor.every_check", lambda root: iter(()))  # those import torch
    document = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert [check["name"] for check in document["checks"]] == [
        "device memory", "throttling", "clock", "torch build", "join",
    ]  # fmt: skip
