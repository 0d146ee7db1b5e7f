"""`measure_conditions`: what this machine says about itself now: load, memory, disk, battery, temperature, throttling.

Real values, from psutil where it is installed, else from /proc and /sys, else from what Python's `os` knows;
`measure_device` has what only small devices tell. Every source is asked on its own: what cannot be measured here is
`None`, and nothing raises. Nothing here sends anything.
"""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from logging import getLogger
from pathlib import Path
from typing import Any, Final

from flwr.app import Context

from flower_edge.conditions import Conditions

from .measure_device import device_sources, hottest_c

__all__ = ["measure_conditions"]

log = getLogger(__name__)

Found = dict[str, bool | int | float]
#: Names that a source may find, and the source.
Source = tuple[tuple[str, ...], Callable[[], Found]]

_MEMORY: Final = ("memory_free_bytes", "memory_total_bytes", "memory_load")
_BATTERY: Final = ("battery", "charging")


def measure_conditions(
    context: Context | None = None,
    now_s: float | None = None,
    *,
    interval_s: float = 0.1,
    disk: str | Path = ".",
    root: str | Path = "/",
    psutil: bool = True,
    programs: bool = True,
) -> Conditions:
    """The conditions of this machine, now; never raises.

    Args:
        context, now_s: not looked at; they make this function a source for `answer_conditions` and the mods.
        interval_s: how long the processors are watched for their load. 0 takes the load average of the last minute.
        disk: a path on the disk that counts.
        root: where /proc and /sys are.
        psutil: whether to ask psutil (the extra `device`) first.
        programs: whether to ask `vcgencmd` and `termux-battery-status`, where they are installed.

    Load and memory are those of the whole machine, also inside a container; `cpu_count` is what this process may use.
    How fast the link is and how long a step takes cannot be seen from here: see `ConditionsMod` for `step_s`, and add
    what you know with `dataclasses.replace(measure_conditions(), up_bps=...)`.
    """
    del context, now_s  # the machine is what it is
    found: Found = {}
    sources = (
        *_psutil_sources(psutil, interval_s),
        *_system_sources(Path(root), interval_s, Path(disk)),
        *device_sources(Path(root), programs),
    )
    for names, source in sources:
        if all(name in found for name in names):
            continue
        try:
            found = {**source(), **found}
        except Exception as error:
            # Whatever a driver or a locked-down system comes up with: it costs this value, not the training.
            log.debug("%s cannot be measured here: %s: %s", ", ".join(names), type(error).__name__, error)
    return Conditions.read(found)


# -- psutil ----------------------------------------------------------------------------------------------------------


def _psutil_sources(wanted: bool, interval_s: float) -> Iterator[Source]:
    try:
        psutil: Any = importlib.import_module("psutil") if wanted else None
    except Exception as error:
        # Not only ImportError: on a system it does not know, such as Android, psutil raises NotImplementedError.
        log.debug("psutil is not used: %s: %s", type(error).__name__, error)
        return
    if psutil is None:
        return

    def load() -> Found:
        return {"load": psutil.cpu_percent(interval=interval_s) / 100.0}

    def memory() -> Found:
        told = psutil.virtual_memory()
        return _memory(int(told.available), int(told.total))

    def battery() -> Found:
        told = psutil.sensors_battery()
        if told is None:
            return {}
        plugged = {} if told.power_plugged is None else {"charging": bool(told.power_plugged)}
        return {"battery": told.percent / 100.0, **plugged}

    def temperature() -> Found:
        return {
            "temperature_c": max(part.current for parts in psutil.sensors_temperatures().values() for part in parts)
        }

    if interval_s > 0:
        yield ("load",), load
    yield from ((_MEMORY, memory), (_BATTERY, battery), (("temperature_c",), temperature))


# -- the system itself -----------------------------------------------------------------------------------------------


def _system_sources(root: Path, interval_s: float, disk: Path) -> Iterator[Source]:
    def load() -> Found:
        busy_before, all_before = _processor_time(root)
        time.sleep(interval_s)
        busy, total = _processor_time(root)
        return {"load": (busy - busy_before) / (total - all_before)}

    def average() -> Found:
        return {"load": min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))}

    def memory() -> Found:
        lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
        kib = {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}
        return _memory(1024 * kib["MemAvailable"], 1024 * kib["MemTotal"])

    def battery() -> Found:
        for supply in sorted((root / "sys/class/power_supply").iterdir()):
            if (supply / "type").read_text().strip() == "Battery":
                charging = (supply / "status").read_text().strip() != "Discharging"
                return {"battery": int((supply / "capacity").read_text()) / 100.0, "charging": charging}
        return {}

    def temperature() -> Found:
        return {"temperature_c": hottest_c(root)}

    def processors() -> Found:
        allowed = getattr(os, "sched_getaffinity", None)
        return {"cpu_count": len(allowed(0)) if allowed is not None else int(os.cpu_count() or 0)}

    def storage() -> Found:
        told = shutil.disk_usage(disk)
        return {"disk_free_bytes": told.free, "disk_total_bytes": told.total}

    if interval_s > 0:
        yield ("load",), load
    yield from (
        (("load",), average),
        (_MEMORY, memory),
        (_BATTERY, battery),
        (("temperature_c",), temperature),
        (("cpu_count",), processors),
        (("disk_free_bytes", "disk_total_bytes"), storage),
    )


def _processor_time(root: Path) -> tuple[int, int]:
    """Time the processors were busy, and all of it, since the start, in the system's ticks."""
    first = (root / "proc/stat").read_text().splitlines()[0].split()
    # user nice system idle iowait irq softirq steal; what follows is counted in user already
    ticks = [int(word) for word in first[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _memory(free: int, total: int) -> Found:
    return {"memory_free_bytes": free, "memory_total_bytes": total, "memory_load": 1.0 - free / total}
