"""Where run folders go, and how a person names one of them.

Nothing here reads or writes what is inside a run folder; a folder with a `run.json` is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..errors import ConfigError
from .atomic import remove_leftovers

__all__ = ["RUNS_VARIABLE", "RUN_DIR_VARIABLE", "claim_below", "claim_exactly", "find", "runs_root"]

#: Environment variable: the folder that holds the run folders.
RUNS_VARIABLE: Final = "FLOWER_EDGE_RUNS"
#: Environment variable: the one run folder to write, set by whoever starts the run and wants to know where it went.
RUN_DIR_VARIABLE: Final = "FLOWER_EDGE_RUN_DIR"


def runs_root(root: str | Path | None = None) -> Path:
    """The folder that holds the run folders: the argument, else `FLOWER_EDGE_RUNS`, else `./runs`."""
    return Path(root if root is not None else os.environ.get(RUNS_VARIABLE) or "runs").expanduser().absolute()


def find(which: str, runs: Path, name_of: Callable[[Path], str]) -> Path:
    """The run folder below `runs` that a person means.

    Args:
        which: the folder's name or its beginning, the name of a run (the newest of that name), or `latest`.
        runs: the folder that holds the run folders; their names begin with the time, so they sort by age.
        name_of: run folder -> name of the run.

    Raises:
        ConfigError: no run, or more than one, is meant.
    """
    names = [folder.name for folder in by_age(runs)]
    found = [name for name in names if name == which] or [name for name in names if which and name.startswith(which)]
    if which == "latest":
        found = names[-1:]
    elif not found:
        found = [name for name in names if name_of(runs / name) == which][-1:]
    if len(found) == 1:
        return runs / found[0]
    if found:
        raise ConfigError(f"{which!r} is the beginning of {len(found)} runs; give more of it: {', '.join(found)}")
    there = f"the newest there are {', '.join(names[-5:])}" if names else "there are none"
    raise ConfigError(f"no run {which!r} in {runs}; {there}; set FLOWER_EDGE_RUNS for another folder of runs")


def by_age(runs: Path) -> list[Path]:
    """The run folders below `runs`, oldest first: by the time their names begin with, then by their number.

    Raises:
        ConfigError: it is a file.
    """
    if runs.is_file():
        raise ConfigError(f"{runs} is a file; give the folder that holds the run folders (--root, FLOWER_EDGE_RUNS)")

    def age(folder: Path) -> tuple[str, int, str]:
        stem, _, number = folder.name.rpartition("-")
        suffix = int(number) if stem and number.isdecimal() else 1
        return folder.name[:15], suffix, folder.name

    return sorted((file.parent for file in runs.glob("*/run.json")), key=age)


def claim_below(root: Path, begun: str, name: str) -> Path:
    """A new folder `<root>/<begun>-<name>`, with `-2`, `-3` ... behind when that is taken.

    Characters of `name` that a folder cannot have become `-`.
    """
    name = f"{begun}-{_slug(name)}"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = root / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise ConfigError(f"{root / name} and 9,998 more of that name exist; give another root")


def claim_exactly(folder: Path) -> Path:
    """That folder, made if need be.

    Raises:
        ConfigError: it holds a run already.
    """
    folder = folder.expanduser().absolute()
    if (folder / "run.json").exists() or (folder / "metrics.jsonl").exists():
        raise ConfigError(f"{folder} holds a run already; give a new folder, a run never writes over another")
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    return folder


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
