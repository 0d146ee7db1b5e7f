"""A copy of a scenario as the start of an app of one's own: another name inside and out, and nothing overwritten.

Flower finds an app's modules by the name of its package, and the first folder on the path that has one of that name
wins. So a copy has a package of its own, and none that can be imported here already. Nothing here prints or runs.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import ConfigError
from .scenario_library import Scenario

__all__ = ["AppName", "copy_scenario"]

#: Flower's own limit for an app, less "-centre" and "-edge", which a script's apps have behind theirs.
_LONGEST: Final = 25
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "*.pyc", "runs", "build", ".*")
_TEXTS: Final = (".py", ".toml", ".md")


@dataclass(frozen=True)
class AppName:
    """What an app is called.

    Args:
        text: as the user gives it, letters, digits, - and _.

    Raises:
        ConfigError: what cannot be the name of an app or of its package, and why.

    >>> AppName("my-terminals").package, AppName("my_terminals").project
    ('my_terminals', 'my-terminals')
    """

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.text):
            raise ConfigError(
                f"name {self.text!r}: expected a letter, then letters, digits, - and _; for example my_terminals"
            )
        if len(self.text) > _LONGEST:
            raise ConfigError(f"name {self.text!r} has {len(self.text)} characters; at most {_LONGEST}")
        if keyword.iskeyword(self.package) or keyword.issoftkeyword(self.package):
            raise ConfigError(f"name {self.text!r} is a word of Python's; for example my_{self.package}")
        if importlib.util.find_spec(self.package) is not None:
            raise ConfigError(
                f"name {self.text!r}: Python can import a {self.package!r} here already, and would take one for the "
                f"other; for example my_{self.package}"
            )

    @property
    def package(self) -> str:
        """Of its Python package."""
        return self.text.replace("-", "_").lower()

    @property
    def project(self) -> str:
        """Of the app, as Flower takes it."""
        return self.text.replace("_", "-").lower()


def copy_scenario(scenario: Scenario, name: AppName, parent: Path) -> list[Path]:
    """Make `parent/name` from a scenario: all there or not at all.

    Returns:
        The files, relative to the new folder.

    Raises:
        ConfigError: something of that name is there already, or the folder cannot be written.
    """
    target = parent / name.text
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target} is there already, and nothing is overwritten; take another name, or move it away")
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".flower-edge-new-") as scratch:
            made = Path(scratch) / name.text
            shutil.copytree(scenario.folder, made, ignore=_LEFT_OUT)
            _rename(made, scenario.name, name)
            made.rename(target)
    except OSError as error:
        raise ConfigError(f"cannot make {target}: {error.strerror or error}; go to a folder you may write to") from None
    return sorted(path.relative_to(target) for path in target.rglob("*") if path.is_file())


def _rename(app: Path, scenario: str, name: AppName) -> None:
    packages = [path.parent for path in app.rglob("__init__.py")]
    # One package, or several that begin with the name of the shortest: three_hosts, three_hosts_centre.
    stem = min((package.name for package in packages), key=len)
    renamed = {
        rf"\bscenarios/{scenario}\b": name.text,
        rf"\b{stem}(?=\b|_)": name.package,
        rf"\b{stem.replace('_', '-')}\b": name.project,
        rf'(?<=RunFolder\.create\("){scenario.replace("_", "-")}(?=")': name.project,
    }
    # At once, so that no new name is renamed again.
    anything = re.compile("|".join(f"({old})" for old in renamed))
    new_names = list(renamed.values())
    for path in [path for path in app.rglob("*") if path.suffix in _TEXTS]:
        text = path.read_text("utf-8")
        path.write_text(anything.sub(lambda found: new_names[(found.lastindex or 1) - 1], text), "utf-8")
    for package in sorted(packages, key=lambda path: len(path.parts), reverse=True):
        package.rename(package.with_name(package.name.replace(stem, name.package, 1)))
