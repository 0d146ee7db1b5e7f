"""Where the tests of the source tree find it, and what of it they look at."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Folders of the checkout by the name of the package they are installed as.
PACKAGES = {"flower_edge": "flower_edge", "strategies": "flower_edge.strategies", "clients": "flower_edge.clients"}


def python_files(*folders: str) -> Iterator[Path]:
    """Every Python file in these folders of the checkout, sorted."""
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    """The name under which a file of the checkout is imported."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([PACKAGES[folder], *(part for part in rest if part != "__init__")])


def modules() -> list[str]:
    """Every module of the library that can be imported here; those named *_torch only where torch is installed."""
    names = [module_name(path) for path in python_files(*PACKAGES)]
    torch = importlib.util.find_spec("torch") is not None
    return [name for name in names if torch or not name.endswith("_torch")]


def tracked_files() -> list[Path]:
    """Files git knows or would take: tracked, and untracked ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for name in sorted(set(listed)) if (path := ROOT / name).is_file()]
