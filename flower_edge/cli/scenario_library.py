"""The scenarios that come with flower-edge: where they lie, and what each says of itself.

They are data of the package, not modules of it: in an installed wheel they lie in `flower_edge/scenarios`, in a
checkout beside `flower_edge`. Nothing here copies or runs one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

import flower_edge

from ..errors import ConfigError

__all__ = ["Scenario", "find_scenario", "library", "scenarios"]

_RUN_TIME: Final = re.compile(r"^Run time: (.+?)[.:;]", re.MULTILINE)


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Attributes:
        folder: where it lies; its name is the scenario's.
    """

    folder: Path

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.folder.name

    @property
    def kind(self) -> Literal["app", "script"]:
        """`app` is a Flower app, for `flwr run`; `script` starts real processes of its own."""
        return "app" if (self.folder / "pyproject.toml").is_file() else "script"

    @property
    def readme(self) -> str:
        """What there is to know about it."""
        return (self.folder / "README.md").read_text("utf-8")

    @property
    def title(self) -> str:
        """The heading of its README, without its name."""
        heading = self.readme.partition("\n")[0].removeprefix("#").strip()
        return heading.partition(": ")[2] or heading

    @property
    def run_time(self) -> str:
        """How long it takes and where that was, in words; empty where its README does not say."""
        found = _RUN_TIME.search(self.readme)
        return found[1] if found else ""

    @property
    def command(self) -> str:
        """What starts it, from the folder one is in."""
        try:
            where: Path = self.folder.relative_to(Path.cwd())
        except ValueError:
            where = self.folder
        return f"flower-edge run {where}" if self.kind == "app" else f"python {where}"

    def config(self) -> Mapping[str, Any]:
        """Every key of an app's run config with what it is set to, flat as on the command line; of a script none."""
        if self.kind == "script":
            return {}
        from ..runtime.launching.app import read_app

        return read_app(self.folder).config


def library() -> Path:
    """The folder of all scenarios.

    Raises:
        ConfigError: this installation has none.
    """
    package = Path(flower_edge.__file__).parent
    for folder in (package / "scenarios", package.parent / "scenarios"):
        if (folder / "quickstart" / "pyproject.toml").is_file():
            return folder
    raise ConfigError(
        f"no scenarios in {package / 'scenarios'}: they were left out of this installation; "
        "install flower-edge anew (pip install --force-reinstall flower-edge), or run from a checkout"
    )


def scenarios() -> list[Scenario]:
    """All of them, by name.

    Raises:
        ConfigError: this installation has none.
    """
    return [Scenario(path.parent) for path in sorted(library().glob("*/README.md"))]


def find_scenario(name: str) -> Scenario:
    """The scenario of this name.

    Raises:
        ConfigError: there is none; the nearest one is named.
    """
    known = {one.name: one for one in scenarios()}
    if name not in known:
        near = get_close_matches(name.replace("-", "_"), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"no scenario {name!r}; {hint}")
    return known[name]
