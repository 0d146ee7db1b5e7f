"""A Debian for 64-bit ARM in a folder, which runs on this machine under qemu: a device without being one.

It is made once, by debootstrap and pip, and kept in a cache folder: `FLOWER_EDGE_ARM_ROOT`, or below `~/.cache`.
Nothing of it is configured, which would take minutes under qemu: packages are unpacked, which is enough for Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PYTHON = "3.11"
_MIRROR = os.environ.get("FLOWER_EDGE_DEBIAN_MIRROR", "http://deb.debian.org/debian")
_PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64", "manylinux_2_34_aarch64")


def missing() -> str:
    """Why it cannot be had here; empty where it can."""
    if os.geteuid() != 0:
        return "not root: a folder with another Debian is entered by chroot"
    for program, package in (("debootstrap", "debootstrap"), ("qemu-aarch64-static", "qemu-user-static")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    entries = Path("/proc/sys/fs/binfmt_misc")
    if not any("qemu-aarch64" in path.name and "F" in path.read_text() for path in entries.glob("qemu-*")):
        return "the kernel does not know qemu for aarch64 (flag F): see docs/devices.md"
    return ""


def arm_root() -> Path:
    """The folder, made where it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flower-edge" / "arm64-bookworm"
    root = Path(os.environ.get("FLOWER_EDGE_ARM_ROOT") or cache)
    if not (root / "opt/whole").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        _unpack(root)
        _install(root)
        (root / "opt/whole").touch()
    _put_source(root)
    return root


def command(root: Path, *arguments: str) -> list[str]:
    """What runs Python in there, with `/proc` and `/dev` of a name space of its own, which goes with it."""
    script = 'mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" "$@"'
    python = [
        "/usr/bin/env",
        "PYTHONPATH=/opt/source:/opt/site",
        "PYTHONDONTWRITEBYTECODE=1",
        f"/usr/bin/python{PYTHON}",
    ]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(root), *python, "-P", *arguments]


def _unpack(root: Path) -> None:
    packages = f"python{PYTHON},libpython{PYTHON}-stdlib"
    options = ["--foreign", "--arch=arm64", "--variant=minbase", f"--include={packages}"]
    subprocess.run(["debootstrap", *options, "bookworm", str(root), _MIRROR], check=True, stdout=subprocess.DEVNULL)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)


def _install(root: Path) -> None:
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(root / "opt/site")),
            *(part for platform in _PLATFORMS for part in ("--platform", platform)),
            *("--python-version", PYTHON, "--implementation", "cp", "--only-binary", ":all:", *wanted),
        ],
        check=True,
    )


def _put_source(root: Path) -> None:
    source = root / "opt/source"
    shutil.rmtree(source, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "flower_edge", source / "flower_edge", ignore=ignore)
    for folder in ("strategies", "clients"):
        shutil.copytree(ROOT / folder, source / "flower_edge" / folder, ignore=ignore)
