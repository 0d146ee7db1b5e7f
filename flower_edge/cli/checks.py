"""What `flower-edge doctor` looks at: one function per question, each answering with a `Check`.

Nothing here prints or changes anything. Heavy libraries are imported in a process of their own: a broken one may
crash, and a working one takes seconds and memory that nobody gets back.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from ..store.places import runs_root
from ..units import human_bits

__all__ = ["Check", "every_check"]

#: flwr from (inclusive) to (exclusive), as in pyproject.toml.
FLWR_FROM: Final = (1, 41)
FLWR_BELOW: Final = (1, 42)
#: Where a plain `flwr run` keeps its local SuperLink, unless FLWR_LOCAL_SUPERLINK_HTTP_API_PORT says otherwise.
LOCAL_SUPERLINK_PORT: Final = 39091
#: Imports torchvision also where its compiled operators do not load.
_HELPED: Final = "flower_edge.data.torchvision_torch"
GIGABYTE: Final = 10**9


@dataclass(frozen=True)
class Check:
    """One answer: what was looked at, how it is, what was found, what to do about it."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def every_check(root: Path | None = None) -> Iterator[Check]:
    """All checks in order, each when it is done; some take seconds."""
    yield python(sys.version_info[:3], sys.maxsize > 2**32)
    yield flwr(_version("flwr"))
    yield flwr_command(Path(sysconfig.get_path("scripts")))
    yield torch()
    yield torchvision()
    yield extra("scikit-learn", "sklearn", "data", "the digits data set")
    yield extra("matplotlib", "matplotlib", "report", "`flower-edge report`")
    yield extra("jinja2", "jinja2", "report", "`flower-edge report`")
    yield extra("ray", "ray", "simulation", "`flower-edge run`, which simulates through Ray")
    yield memory(_free_memory_bytes())
    yield disk(runs_root(root))
    yield writable(runs_root(root))
    yield port(int(os.environ.get("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT") or LOCAL_SUPERLINK_PORT))
    yield data(os.environ.get("FLOWER_EDGE_DATA"))


def python(version: tuple[int, ...], is_64_bit: bool) -> Check:
    """Python of a version and width that everything else is built for."""
    found = f"{'.'.join(map(str, version))}, {64 if is_64_bit else 32}-bit, {platform.platform()}"
    if version < (3, 11):
        return Check("python", "fail", found, "install Python 3.11 or newer and make the environment with it")
    if not is_64_bit:
        return Check("python", "fail", found, "install a 64-bit Python; Flower and torch have no 32-bit packages")
    return Check("python", "ok", found)


def flwr(version: str | None) -> Check:
    """Flower, in the versions this release was tested with."""
    wanted = f"{FLWR_FROM[0]}.{FLWR_FROM[1]}"
    fix = f"pip install 'flwr>={wanted},<{FLWR_BELOW[0]}.{FLWR_BELOW[1]}'"
    if version is None:
        return Check("flwr", "fail", "not installed", fix)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not FLWR_FROM <= numbers < FLWR_BELOW:
        return Check("flwr", "fail", f"{version}; this flower-edge works with {wanted}", fix)
    return Check("flwr", "ok", version)


def flwr_command(scripts: Path) -> Check:
    """The commands that `flower-edge run` starts, in this environment."""
    missing = [name for name in ("flwr", "flower-superlink") if shutil.which(name, path=str(scripts)) is None]
    if missing:
        fix = "pip install --force-reinstall --no-deps flwr"
        return Check("flwr command", "fail", f"no {' and no '.join(missing)} in {scripts}", fix)
    return Check("flwr command", "ok", str(scripts / "flwr"))


def torch() -> Check:
    """PyTorch: there, whole, and on which device."""
    if find_spec("torch") is None:
        return Check(
            "torch", "warn", "not installed", "needed by the torch scenarios: pip install 'flower-edge[torch]'"
        )
    script = (
        "import torch; print(torch.__version__,"
        "'CUDA ' + torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU only', sep=', ')"
    )
    return _from_process("torch", script, "torch")


def torchvision() -> Check:
    """torchvision, which can be installed and still not load, because it was built for another torch."""
    if find_spec("torchvision") is None:
        return Check("torchvision", "warn", "not installed", "needed for MNIST: pip install 'flower-edge[torch]'")
    script = "import torchvision; print(torchvision.__version__)"
    plain = _from_process("torchvision", script, "torch")
    if plain.level != "fail":
        return plain
    if _from_process("torchvision", f"import {_HELPED}", "torch").level != "ok":
        return plain
    found = f"built for another torch ({plain.found}); its data sets work all the same, its compiled operators do not"
    return Check("torchvision", "warn", found, "for the operators install the torchvision made for this torch")


def extra(name: str, module: str, extra_name: str, purpose: str) -> Check:
    """An optional library; only whether it is there."""
    if find_spec(module) is None:
        return Check(name, "warn", "not installed", f"needed for {purpose}: pip install 'flower-edge[{extra_name}]'")
    return Check(name, "ok", _version(name) or "there")


def memory(free_bytes: int | None) -> Check:
    """Memory for a small simulation."""
    if free_bytes is None:
        return Check("memory", "ok", "this system does not say how much is free")
    found = f"{human_bits(free_bytes * 8)} free"
    if free_bytes < 2 * GIGABYTE:
        fix = "a simulation takes 1 to 2 GB: close something, or run fewer clients at once (--total-cpus 1)"
        return Check("memory", "warn", found, fix)
    return Check("memory", "ok", found)


def disk(folder: Path) -> Check:
    """Room for run folders."""
    free_bytes = shutil.disk_usage(_existing(folder)).free
    found = f"{human_bits(free_bytes * 8)} free for {folder}"
    if free_bytes < 2 * GIGABYTE:
        level: Literal["warn", "fail"] = "fail" if free_bytes < GIGABYTE // 10 else "warn"
        return Check("disk", level, found, "remove old runs, or name another folder with --root or FLOWER_EDGE_RUNS")
    return Check("disk", "ok", found)


def writable(folder: Path) -> Check:
    """Whether a run folder can be made; tried where the folder, or what is to hold it, is."""
    fix = "name another folder with --root or FLOWER_EDGE_RUNS"
    if any(place.exists() and not place.is_dir() for place in (folder, *folder.parents)):
        return Check("runs folder", "fail", f"{folder} is, or lies below, a file", fix)
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return Check("runs folder", "ok", str(folder))
    except OSError as error:
        return Check("runs folder", "fail", f"{folder} cannot be written to ({error.strerror})", fix)


def port(number: int) -> Check:
    """Whether a local SuperLink of an earlier `flwr run` is still there: it outlives its run and serves later ones."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        taken = probe.connect_ex(("127.0.0.1", number)) == 0
    if not taken:
        return Check("local SuperLink", "ok", f"none on port {number}")
    fix = (
        "`flower-edge run` does not mind, it starts its own; a plain `flwr run` would run in the environment of that "
        f"one: find it with `ss -ltnp 'sport = :{number}'` and end it with `kill PID`"
    )
    return Check("local SuperLink", "warn", f"something answers on port {number}", fix)


def data(path: str | None) -> Check:
    """The folder that image data sets are read from."""
    if not path:
        return Check("data", "ok", "FLOWER_EDGE_DATA is not set; digits and synthetic data need none")
    if not Path(path).expanduser().is_dir():
        fix = "set FLOWER_EDGE_DATA to a folder that is there, or unset it"
        return Check("data", "fail", f"FLOWER_EDGE_DATA={path}, which is no folder", fix)
    return Check("data", "ok", f"FLOWER_EDGE_DATA={path}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _from_process(name: str, script: str, extra_name: str, timeout_s: float = 120.0) -> Check:
    fix = f"pip install --force-reinstall 'flower-edge[{extra_name}]'"
    try:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Check(name, "warn", f"installed, but its import took more than {timeout_s:.0f} s", "try again")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return Check(name, "fail", f"does not import: {last}", fix)
    return Check(name, "ok", done.stdout.strip())


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _free_memory_bytes() -> int | None:
    """What this process may still take: the machine's free memory, less where a container has a limit of its own."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)
