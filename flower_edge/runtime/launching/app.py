"""What a Flower app says about itself, read and checked before anything is started.

An app is a folder with a `pyproject.toml`. Flower's own table gives its name and the keys of its run config; ours,

    [tool.flower-edge.federation]
    num-supernodes = 12
    client-cpus = 1
    total-cpus = 2

the size of the federation it wants in simulation (Flower ignores tables it does not know). Nothing here starts a
process, imports the app or writes a file.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ...config import RunConfig, Scalar, read_config
from ...errors import ConfigError

__all__ = ["Federation", "FlowerApp", "check_run_config", "parse_run_config", "read_app", "run_config_toml"]

_KEY: Final = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
#: One `key=value` and the blanks behind it; a value is quoted either way or free of blanks and quotes.
_PAIR: Final = re.compile(rf"""({_KEY})=('[^'\n]*'|"(?:[^"\\\n]|\\.)*"|[^\s'"]+)(?:\s+|$)""")
_EXAMPLE: Final = """--run-config "num-server-rounds=3 lr=0.1 fast=true name='a b'\""""


@dataclass(frozen=True)
class Federation:
    """Size and share of the machine of a simulated federation.

    Args:
        num_supernodes: how many nodes Flower simulates; 2 is Flower's own default.
        client_cpus: processor cores one client takes while it trains. Flower's own default is 2, so that a machine
            with two cores trains one client at a time; ours is 1.
        total_cpus: cores the simulation may use in all; None is every core of this machine.

    >>> Federation(num_supernodes=12, total_cpus=2).to_flower()
    'num-supernodes=12 client-resources-num-cpus=1 init-args-num-cpus=2'
    """

    num_supernodes: int = 2
    client_cpus: int = 1
    total_cpus: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_supernodes", "client_cpus", "total_cpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{_dashed(name)} = {value}: must be 1 or more")
        there = self.total_cpus or os.cpu_count() or 1
        if self.client_cpus > there:
            asked = "total-cpus" if self.total_cpus else "this machine's cores"
            raise ConfigError(
                f"client-cpus = {self.client_cpus} but {asked} = {there}: not one client would fit; "
                f"give --client-cpus {there} or less, or a larger --total-cpus"
            )

    def override(
        self, *, num_supernodes: int | None = None, client_cpus: int | None = None, total_cpus: int | None = None
    ) -> Federation:
        """The same federation with what is not None replaced."""
        given = {"num_supernodes": num_supernodes, "client_cpus": client_cpus, "total_cpus": total_cpus}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def to_flower(self) -> str:
        """As the text behind `flwr run --federation-config`."""
        parts = [f"num-supernodes={self.num_supernodes}", f"client-resources-num-cpus={self.client_cpus}"]
        if self.total_cpus is not None:
            parts.append(f"init-args-num-cpus={self.total_cpus}")
        return " ".join(parts)


class _FederationTable(RunConfig):
    num_supernodes: int = Federation.num_supernodes
    client_cpus: int = Federation.client_cpus
    total_cpus: int | None = Federation.total_cpus


@dataclass(frozen=True)
class FlowerApp:
    """What `read_app` found: the folder, the project's name, the run config's defaults, the federation wanted."""

    folder: Path
    name: str
    config: Mapping[str, Scalar] = field(default_factory=dict)
    federation: Federation = Federation()


def read_app(folder: Path) -> FlowerApp:
    """Read an app's `pyproject.toml`.

    Args:
        folder: the app's folder, the one that holds `pyproject.toml`.

    Raises:
        ConfigError: there is no such folder or no `pyproject.toml` in it; it is not TOML; it is no Flower app; its
            run config holds something other than numbers, texts and booleans; its federation table is wrong; or it
            still has the table `[tool.flwr.federations]`.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        hint = f"; give its folder: {folder.parent}" if folder.name == "pyproject.toml" else ""
        came = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(f"app {folder} {came}; expected the folder of a Flower app{hint}")
    path = folder / "pyproject.toml"
    if not path.is_file():
        near = sorted(found.parent.name for found in folder.glob("*/pyproject.toml"))
        hint = f"; there is one in {', '.join(near)}" if near else ""
        raise ConfigError(f"app {folder} has no pyproject.toml; expected the folder of a Flower app{hint}")
    try:
        project = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    flwr = _table(project, "tool", "flwr")
    if "app" not in flwr:
        raise ConfigError(
            f"{path} has no [tool.flwr.app], so it is not a Flower app; `flwr new` makes one to start from"
        )
    if "federations" in flwr:
        # `flwr run` comments such a table out, in the user's own file, and moves its content to the user's own
        # ~/.flwr/config.toml; ours goes away with the run.
        raise ConfigError(
            f"{path} has [tool.flwr.federations], which Flower has given up and `flwr run` would comment out in your "
            "file; delete the table and say the size with [tool.flower-edge.federation] num-supernodes = N"
        )
    name = _table(project, "project").get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ConfigError(f'{path}: [project] name is {name!r}; expected letters, digits and -, such as "my-app"')
    source = f"[tool.flwr.app.config] in {path}"
    config = _flat(_table(flwr, "app", "config"), source)
    table = _flat(_table(project, "tool", "flower-edge", "federation"), f"[tool.flower-edge.federation] in {path}")
    wanted = read_config(_FederationTable, table, source=f"[tool.flower-edge.federation] in {path}")
    return FlowerApp(folder, name, config, Federation(wanted.num_supernodes, wanted.client_cpus, wanted.total_cpus))


def parse_run_config(texts: Iterable[str]) -> dict[str, Scalar]:
    """Read run config overrides as typed on a command line; the last word on a key counts.

    Args:
        texts: each either `key=value` pairs with blanks between them, or the path of a TOML file.

    Raises:
        ConfigError: a text, or the rest of one, cannot be read. Flower itself passes over what it cannot read.

    >>> parse_run_config(["lr=0.1 rounds=3", "fast=true name='a b' radio.bandwidth-hz=1e6"])
    {'lr': 0.1, 'rounds': 3, 'fast': True, 'name': 'a b', 'radio.bandwidth-hz': 1000000.0}
    """
    values: dict[str, Scalar] = {}
    for text in texts:
        values.update(_toml_file(Path(text)) if text.strip().endswith(".toml") else _pairs(text))
    return values


def check_run_config(app: FlowerApp, overrides: Mapping[str, Scalar]) -> None:
    """Refuse keys the app does not have, and values of another kind (number, text, truth) than its own.

    Flower says no more of an unknown key than "Invalid run configuration", and does not look at types. Ranges are the
    app's own business.

    Raises:
        ConfigError: names every unknown key, with the nearest known one, and every value of another kind.
    """
    complaints = []
    for key in (key for key in overrides if key not in app.config):
        near = difflib.get_close_matches(key, app.config, n=1)
        known = f"known keys are {', '.join(sorted(app.config))}" if app.config else "the app has no keys at all"
        complaints.append(f"{key}: unknown key; {f'did you mean {near[0]!r}?' if near else known}")
    for key, value in overrides.items():
        if key in app.config and (wanted := _kind(app.config[key])) != _kind(value):
            complaints.append(f"{key} = {value!r}: expected a {wanted}, as the app's own {app.config[key]!r}")
    if complaints:
        source = f"run config (the keys are those of [tool.flwr.app.config] in {app.folder / 'pyproject.toml'}):"
        raise ConfigError("\n  ".join([source, *complaints]))


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "truth value"
    return "text" if isinstance(value, str) else "number"


def run_config_toml(values: Mapping[str, Scalar]) -> str:
    r"""A flat run config as TOML text, which carries any string; `key=value` on Flower's command line does not.

    Raises:
        ConfigError: a key or a value is none that a run config can hold.

    >>> print(run_config_toml({"lr": 0.1, "say": 'it\'s "on"'}), end="")
    lr = 0.1
    say = "it's \"on\""
    """
    lines = []
    for key, value in values.items():
        if not re.fullmatch(_KEY, key):
            raise ConfigError(f"run config key {key!r}: expected letters, digits, - and _, with dots between words")
        lines.append(f"{key} = {_toml_value(key, value)}\n")
    return "".join(lines)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _table(document: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for name in path:
        inner = document.get(name, {})
        document = inner if isinstance(inner, Mapping) else {}
    return document


def _flat(table: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, source, f"{prefix}{key}."))
        elif isinstance(value, Scalar):
            flat[prefix + key] = value
        else:
            raise ConfigError(
                f"{source}: {prefix}{key} = {value!r}: expected a number, a text, true or false; "
                'write a list as one text, such as "a,b,c"'
            )
    return flat


def _pairs(text: str) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    rest = text.strip()
    while rest:
        pair = _PAIR.match(rest)
        if pair is None:
            raise ConfigError(
                f"--run-config {text!r}: cannot read {rest!r}; expected key=value pairs with blanks between them and "
                f"none around =, as in {_EXAMPLE}, or the path of a .toml file"
            )
        key, written = pair.groups()
        try:
            value = tomllib.loads(f"value = {written}")["value"]
        except tomllib.TOMLDecodeError:
            value = None
        if not isinstance(value, Scalar):
            raise ConfigError(
                f"--run-config {key}={written}: expected a number, true, false or a text in quotes of its own, "
                f"as in {key}='{written}'; for instance {_EXAMPLE}"
            )
        values[key] = value
        rest = rest[pair.end() :]
    return values


def _toml_file(path: Path) -> dict[str, Scalar]:
    source = f"--run-config {path}"
    try:
        return _flat(tomllib.loads(path.expanduser().read_text("utf-8")), source)
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror or error}); expected a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None


def _toml_value(key: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):  # NumPy's float64 is one, and says so in its own repr
        return repr(float(value))
    if isinstance(value, str):
        return '"' + "".join(_toml_character(character) for character in value) + '"'
    raise ConfigError(f"run config {key} = {value!r} ({type(value).__name__}): expected bool, int, float or str")


def _toml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\u{ord(character):04x}"
    return character
