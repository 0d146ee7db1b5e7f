"""What small devices tell beyond load and memory, from a made-up machine's files and programs; and nothing raises."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients import measure_device
from flower_edge.clients.measure import measure_conditions
from flower_edge.clients.measure_device import TERMUX_BIN, battery_of_termux, throttled_of
from flower_edge.conditions import Conditions

CPU = "sys/devices/system/cpu"
PI_FILES = {
    "proc/pressure/cpu": "some avg10=12.50 avg60=8.00 avg300=1 total=123\nfull avg10=0.00 avg60=0 avg300=0 total=0\n",
    "proc/pressure/memory": "some avg10=3.25 avg60=0 avg300=0 total=5\nfull avg10=1.00 avg60=0 avg300=0 total=1\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "600000\n",
    f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "1400000\n",
    f"{CPU}/cpu3/cpufreq/scaling_cur_freq": "1000000\n",
    f"{CPU}/cpu3/cpufreq/cpuinfo_max_freq": "1800000\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "sys/class/thermal/thermal_zone0/temp": "61000\n",
    "sys/class/thermal/thermal_zone1/temp": "off\n",
}
TERMUX_SAYS = '{"health": "GOOD", "percentage": 12, "plugged": "PLUGGED_AC", "temperature": 38.5}'


def raspberry(root: Path) -> Path:
    for name, text in PI_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def program(root: Path, folder: str, name: str, script: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (root / folder / name).chmod(0o755)


def seen(root: Path, **options: bool) -> Conditions:
    return measure_conditions(root=root, disk=root, interval_s=0, psutil=False, **options)


def test_pressure_clock_throttling_and_heat_of_a_raspberry_pi_are_read_from_its_files(tmp_path: Path) -> None:
    found = seen(raspberry(tmp_path))
    assert (found.cpu_pressure, found.memory_pressure) == (0.125, 0.0325)
    assert (found.cpu_hz, found.cpu_max_hz) == (1e9, 1.8e9)  # of the fastest processor
    assert (found.throttled, found.throttle_bits) == (True, 0x50005)
    assert found.temperature_c == 61.0  # the zone that is off counts for nothing
    assert found.dropped == ()


def test_a_machine_that_tells_nothing_gives_nothing_and_raises_nothing(tmp_path: Path) -> None:
    found = seen(tmp_path)
    names = ("cpu_pressure", "memory_pressure", "cpu_hz", "cpu_max_hz", "throttled", "throttle_bits", "temperature_c")
    assert all(getattr(found, name) is None for name in names)


@given(st.sampled_from(sorted(PI_FILES)), st.binary(max_size=40))
@settings(max_examples=40)
def test_whatever_is_in_a_file_nothing_raises_and_every_value_is_in_its_bounds(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    root = raspberry(tmp_path_factory.mktemp("machine"))
    (root / name).write_bytes(content)
    found = seen(root)
    assert Conditions.read(found.to_mapping()) == found


def test_where_the_firmware_file_is_missing_vcgencmd_is_asked(tmp_path: Path) -> None:
    program(tmp_path, "usr/bin", "vcgencmd", 'test "$1" = get_throttled && echo throttled=0x4')
    assert seen(tmp_path).throttled is True
    assert seen(tmp_path, programs=False).throttled is None


@pytest.mark.parametrize(
    ("text", "now"), [("throttled=0x0", False), ("0xF0000", False), ("throttled=0x8\n", True), ("1", True)]
)
def test_only_the_low_four_bits_are_about_now(text: str, now: bool) -> None:
    assert throttled_of(text)["throttled"] is now


def test_a_phone_in_termux_tells_its_battery_through_its_program(tmp_path: Path) -> None:
    program(tmp_path, TERMUX_BIN, "termux-battery-status", f"echo '{TERMUX_SAYS}'")
    found = seen(tmp_path)
    assert (found.battery, found.charging, found.temperature_c) == (0.12, True, 38.5)
    (tmp_path / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("70000")
    assert seen(tmp_path).temperature_c == 70.0  # of the processor, where it can be read


NONSENSE = ("exit 1", "echo what", "echo '[]'", "echo '{}'", "echo '{\"percentage\": 700}'")


@pytest.mark.parametrize("script", NONSENSE)
def test_a_program_that_fails_or_talks_nonsense_costs_its_own_value_only(tmp_path: Path, script: str) -> None:
    program(raspberry(tmp_path), TERMUX_BIN, "termux-battery-status", script)
    found = seen(tmp_path)
    assert found.battery is None
    assert found.cpu_pressure == 0.125


def test_a_program_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_device, "PATIENCE_S", 0.2)
    program(tmp_path, TERMUX_BIN, "termux-battery-status", "exec sleep 30")
    begun_s = time.monotonic()
    assert seen(tmp_path).battery is None
    assert time.monotonic() - begun_s < 10


def test_what_termux_does_not_tell_is_left_out() -> None:
    assert battery_of_termux('{"percentage": 50}') == {"battery": 0.5}
    assert battery_of_termux('{"percentage": 50, "plugged": null, "temperature": true}') == {"battery": 0.5}


class NoAndroid(types.ModuleType):
    """psutil as it is on a system it does not know: installed, and raising at its import or at its use."""

    def __getattr__(self, name: str) -> object:
        raise NotImplementedError("platform android is not supported")


def test_a_psutil_that_raises_when_it_is_imported_or_used_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raspberry(tmp_path)
    monkeypatch.setitem(sys.modules, "psutil", NoAndroid("psutil"))
    assert measure_conditions(root=tmp_path, disk=tmp_path, interval_s=0).cpu_pressure == 0.125
    monkeypatch.delitem(sys.modules, "psutil")
    (tmp_path / "psutil.py").write_text("raise NotImplementedError('platform android is not supported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert measure_conditions(root=tmp_path, disk=tmp_path, interval_s=0).cpu_pressure == 0.125
