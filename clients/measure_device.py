"""What small devices tell about themselves beyond load and memory: pressure, clock, throttling, a phone's battery.

Read from /proc and /sys under a given root, and from two programs where they are installed: `vcgencmd` of Raspberry
Pi OS and `termux-battery-status` of Android's Termux. Every function either finds something or raises; `measure`
catches that, source by source. Nothing here decides what follows.

Sources: Linux, Documentation/accounting/psi.rst; Raspberry Pi documentation, "vcgencmd get_throttled".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["TERMUX_BIN", "battery_of_termux", "device_sources", "hottest_c", "throttled_of"]

Found = dict[str, bool | int | float]
#: Names that a source may find, and the source.
Source = tuple[tuple[str, ...], Callable[[], Found]]

#: Where Termux has its programs; a Debian inside of it (proot) has them there too, but not on its PATH.
TERMUX_BIN: Final = "data/data/com.termux/files/usr/bin"
#: What a program may take to answer: `termux-battery-status` waits for ever where its companion app is missing.
PATIENCE_S: Final = 2.0
#: Where the kernel of Raspberry Pi OS shows the firmware's throttling bits, without a program.
_THROTTLE_FILE: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"
#: Of those bits the ones that are about now: under-voltage, clock capped, throttled, soft temperature limit.
_NOW: Final = 0xF


def device_sources(root: Path, programs: bool = True) -> Iterator[Source]:
    """What may be found on a small device.

    Args:
        root: where /proc, /sys and Termux's programs are.
        programs: whether to ask programs, too.
    """
    yield ("cpu_pressure",), lambda: {"cpu_pressure": _pressure(root, "cpu")}
    yield ("memory_pressure",), lambda: {"memory_pressure": _pressure(root, "memory")}
    yield ("cpu_hz",), lambda: {"cpu_hz": _clock_hz(root, "scaling_cur_freq")}
    yield ("cpu_max_hz",), lambda: {"cpu_max_hz": _clock_hz(root, "cpuinfo_max_freq")}
    yield ("throttled", "throttle_bits"), lambda: throttled_of((root / _THROTTLE_FILE).read_text())
    if not programs:
        return
    if (vcgencmd := _program(root, "vcgencmd", "usr/bin")) is not None:
        yield ("throttled", "throttle_bits"), lambda: throttled_of(_said([vcgencmd, "get_throttled"]))
    if (termux := _program(root, "termux-battery-status", TERMUX_BIN)) is not None:
        yield ("battery", "charging", "temperature_c"), lambda: battery_of_termux(_said([termux]))


def throttled_of(text: str) -> Found:
    """Whether a Raspberry Pi is slowed down now, out of its bits: hexadecimal, with or without `throttled=0x`.

    Bits 0 to 3 are about now, bits 16 to 19 about any time since it was started.

    Raises:
        ValueError: no hexadecimal number.

    >>> throttled_of("throttled=0x50005")
    {'throttled': True, 'throttle_bits': 327685}
    >>> throttled_of("50000")["throttled"]
    False
    """
    bits = int(text.strip().rpartition("=")[2], 16)
    return {"throttled": bool(bits & _NOW), "throttle_bits": bits}


def battery_of_termux(text: str) -> Found:
    """Battery, mains and the battery's temperature out of what `termux-battery-status` prints.

    Raises:
        ValueError, KeyError, TypeError: not what it prints.

    >>> battery_of_termux('{"percentage": 80, "plugged": "UNPLUGGED", "status": "DISCHARGING", "temperature": 30.5}')
    {'battery': 0.8, 'charging': False, 'temperature_c': 30.5}
    """
    told: dict[str, Any] = json.loads(text)
    found: Found = {"battery": float(told["percentage"]) / 100.0}
    if isinstance(plugged := told.get("plugged"), str):
        found["charging"] = plugged.upper() != "UNPLUGGED"
    if isinstance(heat := told.get("temperature"), int | float) and not isinstance(heat, bool):
        found["temperature_c"] = float(heat)
    return found


def hottest_c(root: Path) -> float:
    """Degrees Celsius of the hottest thermal zone that can be read.

    Raises:
        ValueError: there is none.
    """
    return max(_numbers(root, "sys/class/thermal/thermal_zone*/temp")) / 1000.0


def _pressure(root: Path, of: str) -> float:
    for line in (root / "proc/pressure" / of).read_text().splitlines():
        words = line.split()
        if words and words[0] == "some":
            told = dict(word.split("=") for word in words[1:])
            return float(told["avg10"]) / 100.0
    raise ValueError(f"no line 'some' in /proc/pressure/{of}")


def _clock_hz(root: Path, name: str) -> float:
    """Of the fastest processor: small and large ones have clocks of their own."""
    return 1000.0 * max(_numbers(root, f"sys/devices/system/cpu/cpu[0-9]*/cpufreq/{name}"))


def _numbers(root: Path, pattern: str) -> list[int]:
    found = []
    for file in sorted(root.glob(pattern)):
        try:
            found.append(int(file.read_text()))
        except (OSError, ValueError):
            continue  # a sensor that is switched off answers with an error; the others count
    return found


def _program(root: Path, name: str, folder: str) -> str | None:
    """The program's path: in its usual folder below `root`, else on the PATH of the machine that runs this."""
    usual = root / folder / name
    if os.access(usual, os.X_OK):
        return str(usual)
    return shutil.which(name) if root == Path("/") else None


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout
