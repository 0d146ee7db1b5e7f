"""What `flower-edge plan-split` is told: devices, a cloud, a shape, as text or in a file, to values in SI units."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ..errors import ConfigError, SplitError
from ..splitting.capacity import Capacity, Cloud
from ..units import mbps_to_bps, ms_to_s

__all__ = ["cloud_from", "device_from", "devices_from", "shape_from", "unique"]

#: Fields of a device, as in --device and in files; the first is needed.
FIELDS: Final = ("gflops", "up_mbps", "down_mbps", "delay_ms", "memory_mb")
_DEVICE: Final = "expected name=GFLOPS:UP:DOWN:DELAY[:MEMORY] in GFLOP/s, Mbit/s, ms and MB, as in camera=0.1:20:50:5"


def shape_from(text: str) -> tuple[int, ...]:
    """Numbers with x between them.

    Raises:
        ConfigError: something else.

    >>> shape_from("1x32x32")
    (1, 32, 32)
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ConfigError(f"--input-shape {text!r}: expected numbers above 0, as in 1x32x32")
    return shape


def device_from(text: str) -> tuple[str, Capacity]:
    """One device as typed: a rate that is left out is not limited, the way back is as fast as the way there.

    Raises:
        ConfigError: not of this form, or a number that cannot be.

    >>> name, camera = device_from("camera=0.1:20")
    >>> name, camera.flops_per_s, camera.down_bps, camera.delay_s
    ('camera', 100000000.0, 20000000.0, 0.0)
    """
    name, sign, numbers = text.partition("=")
    parts = numbers.split(":")
    if not name.strip() or not sign or len(parts) > len(FIELDS):
        raise ConfigError(f"--device {text!r}: {_DEVICE}")
    try:
        given = {field: float(part) for field, part in zip(FIELDS, parts, strict=False) if part.strip()}
    except ValueError:
        raise ConfigError(f"--device {text!r}: {_DEVICE}") from None
    return name.strip(), _capacity(f"--device {text!r}", given)


def devices_from(path: Path) -> dict[str, Capacity]:
    """Devices in a file: a list `devices` of tables with a name and `FIELDS`, as TOML or JSON.

    Raises:
        ConfigError: no such file, or not of this form.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--devices {path}: {error}; expected a .toml or .json file with a list 'devices'") from None
    rows = found.get("devices") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"--devices {path}: expected a list 'devices' of tables, each with {', '.join(FIELDS)}")
    devices: dict[str, Capacity] = {}
    for at, row in enumerate(rows):
        name = str(row.get("name", at))
        where = f"device {name!r} in {path}"
        strange = sorted(set(row) - {"name", *FIELDS})
        if strange:
            raise ConfigError(f"{where}: no device has {strange[0]!r}; it has name, {', '.join(FIELDS)}")
        if name in devices:
            raise ConfigError(f"{where} is there twice; give each its own name")
        given = {field: row[field] for field in FIELDS if field in row}
        if not all(isinstance(value, int | float) for value in given.values()):
            raise ConfigError(f"{where}: {given}; expected numbers")
        devices[name] = _capacity(where, given)
    return devices


def cloud_from(text: str) -> Cloud:
    """A cloud as typed: GFLOP/s, and the rates of its own access in Mbit/s where they bind.

    Raises:
        ConfigError: not of this form.

    >>> cloud_from("50").flops_per_s, cloud_from("50:1000").up_bps
    (50000000000.0, 1000000000.0)
    """
    try:
        parts = [float(part) for part in text.split(":")]
        up, down = (*(mbps_to_bps(part) for part in parts[1:]), math.inf, math.inf)[:2]
        if len(parts) > 3:
            raise ValueError
        return Cloud(parts[0] * 1e9, up, down if len(parts) != 2 else up)
    except (ValueError, SplitError) as error:
        why = f"{error}; " if isinstance(error, SplitError) else ""
        raise ConfigError(
            f"--cloud {text!r}: {why}expected GFLOPS[:UP[:DOWN]] in GFLOP/s and Mbit/s, as in 50"
        ) from None


def _capacity(where: str, given: Mapping[str, float]) -> Capacity:
    if "gflops" not in given:
        raise ConfigError(f"{where}: no gflops; {_DEVICE}")
    up = mbps_to_bps(given["up_mbps"]) if "up_mbps" in given else math.inf
    memory = given.get("memory_mb")
    try:
        return Capacity(
            flops_per_s=given["gflops"] * 1e9,
            up_bps=up,
            down_bps=mbps_to_bps(given["down_mbps"]) if "down_mbps" in given else up,
            delay_s=ms_to_s(given.get("delay_ms", 0.0)),
            memory_bytes=None if memory is None else round(memory * 1e6),
        )
    except (SplitError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: {error}; {_DEVICE}") from None


def unique(devices: Sequence[tuple[str, Capacity]]) -> dict[str, Capacity]:
    """By name.

    Raises:
        ConfigError: a name twice.
    """
    found: dict[str, Capacity] = {}
    for name, capacity in devices:
        if name in found:
            raise ConfigError(f"--device {name}: is there twice; give each its own name")
        found[name] = capacity
    return found
