"""What `flower-edge doctor` looks at on a small device: memory and swap, clock, throttling, a torch that fits.

As in `checks`: one function per question, nothing is printed or changed. The values come from `measure_conditions`,
so the doctor sees what the device will tell the server.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from ..conditions import Conditions
from ..units import human_bits
from .checks import GIGABYTE, Check

__all__ = ["clock", "device_checks", "memory_and_swap", "throttling", "torch_build"]

#: Resident memory of a SuperNode (140 MB), its SuperExec (126 MB) and a client that trains in NumPy, rounded up.
_THIN_BYTES: Final = 400_000_000
#: The same with torch.
_TORCH_BYTES: Final = 800_000_000
#: From this torch on the package for 64-bit ARM is a CUDA build.
_CUDA_ON_ARM: Final = (2, 11)


def device_checks() -> Iterator[Check]:
    """The checks in order."""
    from ..clients.measure import measure_conditions

    seen = measure_conditions(interval_s=0.0)
    yield memory_and_swap(seen.memory_total_bytes, _swap_bytes(Path("/proc/meminfo")))
    yield throttling(seen)
    yield clock(time.time(), _installed_s(), _synchronised())
    yield torch_build(platform.machine(), _version("torch"), _has_cuda(Path("/")))


def memory_and_swap(total_bytes: int | None, swap_bytes: int | None) -> Check:
    """Whether a SuperNode and its client fit, and whether there is swap where it is narrow."""
    if total_bytes is None:
        return Check("device memory", "ok", "this system does not say how much there is")
    swap = "no swap" if not swap_bytes else f"{human_bits(8 * swap_bytes)} of swap"
    found = f"{human_bits(8 * total_bytes)}, {swap}"
    if total_bytes + (swap_bytes or 0) < _THIN_BYTES:
        return Check("device memory", "warn", found, "too little for a SuperNode and a client: add swap")
    if total_bytes < _TORCH_BYTES:
        advice = "enough for a thin client (docs/thin_client.md), not for torch"
        return Check("device memory", "warn", found, advice if swap_bytes else f"{advice}; add swap, 512 MB or more")
    if total_bytes < 2 * GIGABYTE and not swap_bytes:
        return Check("device memory", "warn", found, "add swap, 512 MB or more: a peak would end the process")
    return Check("device memory", "ok", found)


def throttling(seen: Conditions) -> Check:
    """Whether the device is slowed down, or has been since it was started."""
    heat = "" if seen.temperature_c is None else f", {seen.temperature_c:.0f} C"
    if seen.throttled is None:
        return Check("throttling", "ok", f"this device does not say{heat}")
    bits = seen.throttle_bits or 0
    found = f"bits {bits:#x}{heat}"
    if bits & 0x1:
        return Check("throttling", "warn", f"too little power now, {found}", "use the power supply made for the board")
    if seen.throttled:
        return Check("throttling", "warn", f"slowed down now, {found}", "cool it: a heat sink, a fan, air around it")
    if bits:
        return Check("throttling", "warn", f"was slowed down since it was started, {found}", "see to power and cooling")
    return Check("throttling", "ok", f"never since it was started{heat}")


def clock(now_s: float, installed_s: float | None, synchronised: bool | None) -> Check:
    """Whether the clock can be right: a wrong one makes every certificate invalid.

    Args:
        now_s: seconds since 1970, by this machine.
        installed_s: when this package was installed, by the same clock.
        synchronised: what the system says of its time server; `None` where it says nothing.
    """
    found = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now_s))
    fix = "sudo timedatectl set-ntp true, or set the time; a board without a battery for its clock starts in the past"
    if installed_s is not None and now_s < installed_s - 86_400.0:
        return Check("clock", "fail", f"{found}, which is before this package was installed", fix)
    if synchronised is False:
        return Check("clock", "warn", f"{found}, not synchronised", fix)
    return Check("clock", "ok", found if synchronised is None else f"{found}, synchronised")


def torch_build(machine: str, version: str | None, cuda: bool) -> Check:
    """Whether torch on a small board is the one for its processor, not hundreds of megabytes of CUDA."""
    if machine not in ("aarch64", "arm64") or version is None:
        return Check("torch build", "ok", f"{machine}, {'no torch' if version is None else version}")
    number, _, build = version.partition("+")
    numbers = tuple(int(part) for part in number.split(".")[:2] if part.isdigit())
    if platform.system() == "Darwin" or build == "cpu" or cuda or numbers < _CUDA_ON_ARM:
        return Check("torch build", "ok", f"{machine}, {version}")
    fix = "install it from PyTorch's CPU index, or take 'torch<2.11': see docs/devices.md"
    return Check("torch build", "warn", f"{version} is a CUDA build, and there is no NVIDIA device here", fix)


def _swap_bytes(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            if line.startswith("SwapTotal:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _installed_s() -> float | None:
    try:
        return Path(__file__).stat().st_mtime
    except OSError:
        return None


def _synchronised() -> bool | None:
    timedatectl = shutil.which("timedatectl")
    if timedatectl is None:
        return None
    command = [timedatectl, "show", "--property=NTPSynchronized", "--value"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=5.0).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(said)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has_cuda(root: Path) -> bool:
    """A desktop card, or a Jetson."""
    return any((root / name).exists() for name in ("dev/nvidia0", "dev/nvhost-ctrl", "etc/nv_tegra_release"))
