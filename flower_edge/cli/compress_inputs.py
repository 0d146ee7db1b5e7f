"""What `flower-edge compress` is told of machines, cuts, depths, methods and links, as text to values.

Goals stay text: `Goals` reads them. Nothing here builds a session.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .codecs import rate_bps

if TYPE_CHECKING:
    from ..fringe.links import Link

__all__ = [
    "AUTOMATIC",
    "addresses_from",
    "cuts_from",
    "depth_from",
    "link_from",
    "links_from",
    "names_from",
    "writable",
]

#: What may be written where nothing is chosen; leaving the option out means the same.
AUTOMATIC = "auto"


def names_from(text: str, option: str) -> tuple[str, ...]:
    """Names with commas between them; none of nothing, or of "auto".

    Raises:
        ConfigError: an empty name, or one twice.

    >>> names_from("camera, gateway", "--machines"), names_from("auto", "--methods")
    (('camera', 'gateway'), ())
    """
    if text.strip() in ("", AUTOMATIC):
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if "" in names:
        raise ConfigError(f"{option} {text!r}: a name is empty; expected names with commas between, or {AUTOMATIC}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{option} {text!r}: {twice[0]!r} is there twice; name each once")
    return names


def cuts_from(text: str) -> tuple[str | int, ...] | None:
    """Where the model is cut: after modules by name, or at positions; None where that is not chosen.

    >>> cuts_from("block1,7"), cuts_from("auto")
    (('block1', 7), None)
    """
    names = names_from(text, "--cuts")
    return tuple(int(name) if name.isdecimal() else name for name in names) or None


def depth_from(text: str) -> dict[str, int] | int | None:
    """Layers of each side that may change: one number for all, or by machine; None where that is not chosen.

    Raises:
        ConfigError: something else.

    >>> depth_from("2"), depth_from("camera=2, server=0"), depth_from("")
    (2, {'camera': 2, 'server': 0}, None)
    """
    parts = names_from(text, "--depth")
    if not parts:
        return None
    said = f"--depth {text!r}: expected layers, 0 or more: one number, or by machine as in camera=2,gateway=1"
    if len(parts) == 1 and parts[0].isdecimal():
        return int(parts[0])
    found: dict[str, int] = {}
    for part in parts:
        name, _, layers = (word.strip() for word in part.partition("="))
        if not name or not layers.isdecimal() or name in found:
            raise ConfigError(said)
        found[name] = int(layers)
    return found


def link_from(text: str) -> Link:
    """A link as typed: a rate, and its delay one way where it has one.

    Raises:
        ConfigError: something else.

    >>> link_from("10 Mbit/s,10 ms")
    Link(goodput_bps=10000000.0, delay_s=0.01)
    >>> link_from("1Gbit/s").delay_s, link_from("1Gbit/s,0 ms").delay_s
    (0.0, 0.0)
    """
    from ..errors import FringeError
    from ..fringe.goals import seconds_of
    from ..fringe.links import Link

    rate, comma, delay = text.partition(",")
    try:
        return Link(rate_bps(rate), seconds_of(delay, "its delay", zero=True) if comma else 0.0)
    except (ConfigError, FringeError) as error:
        why = f"{error}; " if isinstance(error, FringeError) else ""
        raise ConfigError(
            f"--link {text!r}: {why}expected a rate, and a delay where there is one, as in '10 Mbit/s,10 ms'"
        ) from None


def links_from(texts: Sequence[str], connections: int) -> tuple[Link, ...] | None:
    """One for each connection; a single one holds for all of them, and of none none is given.

    Raises:
        ConfigError: another number of them.
    """
    links = tuple(link_from(text) for text in texts)
    if len(links) not in (0, 1, connections):
        raise ConfigError(
            f"--link is given {len(links)} times and {connections + 1} machines have {connections} connections; give "
            "one for each, in order, or one for all"
        )
    return links * connections if len(links) == 1 else links or None


def addresses_from(text: str, machines: Sequence[str]) -> dict[str, str]:
    """By machine, where its stage listens: `name=host:port`, or `host:port` in the order of the machines.

    Raises:
        ConfigError: something else, or another number of them.

    >>> addresses_from("10.0.0.1:9201,10.0.0.2:9201", ["camera", "server"])
    {'camera': '10.0.0.1:9201', 'server': '10.0.0.2:9201'}
    """
    from ..errors import EdgeError
    from ..transport.credentials import split_address

    parts = names_from(text, "--stages")
    named = [part for part in parts if "=" in part]
    if named and len(named) < len(parts):
        raise ConfigError(f"--stages {text!r}: some have names and some have none; write name=host:port for each")
    if not named and len(parts) != len(machines):
        raise ConfigError(
            f"--stages {text!r} are {len(parts)} and --machines {len(machines)}; write name=host:port for each, or "
            "give --machines in the same order"
        )
    pairs = [part.partition("=")[::2] for part in named] if named else list(zip(machines, parts, strict=True))
    found = {name.strip(): address.strip() for name, address in pairs}
    strange = [name for name in machines if name not in found]
    if len(found) < len(pairs) or strange:
        raise ConfigError(
            f"--stages {text!r}: {f'machine {strange[0]!r} has no address' if strange else 'a name is there twice'}; "
            "write name=host:port once for each machine"
        )
    for name, address in found.items():
        try:
            split_address(address)
        except EdgeError as error:
            raise ConfigError(f"--stages {name}={address}: {error}") from None
    return found


def writable(option: str, folder: Path | None) -> None:
    """Look before an hour's work whether its end can be written.

    Raises:
        ConfigError: it is a file, or nothing can be written there.
    """
    if folder is None:
        return
    there = next((one for one in (folder, *folder.absolute().parents) if one.exists()), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is a file" if there.is_file() else "cannot be written to"
        raise ConfigError(f"{option} {folder}: {there} {what}; give a folder that can be written to")
